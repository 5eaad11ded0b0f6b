"""What is remembered of training data that are not at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from deltauq.data.batches import Batch, Batches, Part
from deltauq.data.checksums import COUNTS, alike
from deltauq.data.weights import Weighting
from deltauq.errors import InvalidInputError

__all__ = ["DataRecord"]


class DataRecord(Batches):
    """What is remembered of a training set that is not at hand: every attempt to read it raises.

    Args:
        n_rows: as the attribute of `Batches`, and so the others.
        n_examples: N.
        weighting: what the weights were taken for.
        spec: of a batch.
        columns: of a frame.
        sums: by which the data can be known again.
    """

    def __init__(
        self,
        *,
        n_rows: int,
        n_examples: float,
        weighting: Weighting,
        spec: Batch,
        columns: tuple[Any, ...] | None,
        sums: npt.NDArray[np.float64],
    ) -> None:
        self.n_rows = n_rows
        self.n_examples = n_examples
        self.weighting = weighting
        self.spec = spec
        self.columns = columns
        self._sums = sums
        self.on_batch: Callable[[int], None] | None = None

    def check_same(self, data: Batches) -> None:
        """`InvalidInputError` unless these are the data that are remembered, in any order."""
        known, others = self.sums, data.sums[: len(self.sums)]
        whole = data.spec.y.dtype.is_integer
        beside = others.copy()
        beside[COUNTS : COUNTS + 1] = known[COUNTS : COUNTS + 1]
        if not alike(beside, known, whole_labels=whole):
            raise InvalidInputError(
                "these are not the training data of the artifact",
                expected=f"its {self.n_rows} examples, in any order, prepared as they were then",
                received=f"{data.n_rows} examples"
                + (", other values in them" if data.n_rows == self.n_rows else ""),
                remedy="pass x, y and the weights that fit was called with",
            )
        n_alike = np.isclose(data.n_examples, self.n_examples, rtol=1e-6, atol=0.0)
        if not (n_alike and alike(others, known, whole_labels=whole)):
            raise InvalidInputError(
                "the weights of these training data are something else than in the artifact",
                expected=f"weights: {self.weighting}, N = {self.n_examples:.10g}",
                received=f"weights: {data.weighting}, N = {data.n_examples:.10g}",
                remedy="pass sample_weight and class_weight as fit had them",
            )

    def _raw_parts(self) -> Iterator[Part]:
        self.require()
        return iter(())

    def require(self) -> None:
        """They are not."""
        raise InvalidInputError(
            "this needs the training data, and an artifact holds none",
            expected="the data that fit was called with",
            received="a method loaded from a file",
            remedy="give them back with attach(x, y); or pass inputs of your own where there is an "
            "argument for them",
        )
