"""What is remembered of training data that are not at hand, so that they can be known again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.data.batches import Batches
from deltauq.data.checksums import COUNTS, alike
from deltauq.data.weights import Weighting
from deltauq.errors import InvalidInputError

__all__ = ["DataRecord"]


@dataclass(frozen=True)
class DataRecord:
    """What is remembered of a training set: what predictions ask of it, and sums to know it by.

    Attributes:
        n_rows: rows, whatever their weight.
        n_examples: N, the sum of the counts.
        weighting: what the weights were taken for.
        input_spec: `tf.TensorSpec`s of the inputs, their first axis free.
        columns: of a pandas frame; None of other inputs.
        sums: of `deltauq.data.checksums.checksum` over all rows `[13]`; of an older artifact the
            first of them.
    """

    n_rows: int
    n_examples: float
    weighting: Weighting
    input_spec: Any
    columns: tuple[Any, ...] | None
    sums: npt.NDArray[np.float64]

    @classmethod
    def of(cls, data: Batches) -> DataRecord:
        """What is to be remembered of some data; takes a pass over arrays, which have no sums yet.

        Args:
            data: the training set.
        """
        return cls(
            data.n_rows, data.n_examples, data.weighting, data.spec.x, data.columns, data.sums
        )

    def check_same(self, data: Batches) -> None:
        """Refuse other data, or weights that mean something else; the order may be another one.

        Raises:
            InvalidInputError: the data are not those that are remembered.
        """
        known, others = self.sums, data.sums[: len(self.sums)]
        whole = data.spec.y.dtype.is_integer
        beside = others.copy()
        beside[COUNTS : COUNTS + 1] = known[COUNTS : COUNTS + 1]
        if not alike(beside, known, whole_labels=whole):
            raise InvalidInputError(
                "these are not the training data of the fit",
                expected=f"its {self.n_rows} examples, in any order, prepared as they were then",
                received=f"{data.n_rows} examples"
                + (", other values in them" if data.n_rows == self.n_rows else ""),
                remedy="pass x, y and the weights that fit was called with",
            )
        n_alike = np.isclose(data.n_examples, self.n_examples, rtol=1e-6, atol=0.0)
        if not (n_alike and alike(others, known, whole_labels=whole)):
            raise InvalidInputError(
                "the weights of these training data are something else than in the fit",
                expected=f"weights: {self.weighting}, N = {self.n_examples:.10g}",
                received=f"weights: {data.weighting}, N = {data.n_examples:.10g}",
                remedy="pass sample_weight and class_weight as fit had them",
            )
