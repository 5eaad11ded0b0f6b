"""Training data as they are handed over, before a model says how they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from deltauq.data.arrays import ArrayInputs, refuse_unreadable
from deltauq.data.model_inputs import ModelInputs
from deltauq.data.streams import Stream, as_inputs, as_source
from deltauq.errors import InvalidInputError

__all__ = ["TrainingData"]


@dataclass(frozen=True)
class TrainingData:
    """What `fit`, `attach`, `diagnose` and the others are given, as one record.

    Whether labels and weights come in one of the two possible ways is checked here; what they hold
    is checked by `Batches`, which read them: `Batches(*training, likelihood=...)`.

    Args:
        x: inputs: an array, a pandas frame, or a nest of arrays `[N, ...]`; or a finite dataset of
            `(x, y)` or `(x, y, weight)`, which the record holds as a `Stream`.
        y: labels `[N, ...]`; None beside a dataset.
        sample_weight: `[N]`, or `[N, T]` where an input makes T predictions; None for none, and
            beside a dataset.
        class_weight: class number -> weight; None for none.

    Raises:
        InvalidInputError: arrays without labels, labels or weights beside a dataset, or a dataset
            that never ends.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    class_weight: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", as_source(self.x))
        if self.stream is None and self.y is None:
            refuse_unreadable(self.x, "x")  # such as a loader of batches, which has them inside
            raise InvalidInputError(
                "y is missing",
                expected="labels [N] beside the inputs x",
                received="y=None",
                remedy="pass fit(x, y), or one tf.data.Dataset of (x, y)",
            )
        if self.stream is not None and (self.y is not None or self.sample_weight is not None):
            raise InvalidInputError(
                "y and sample_weight came beside a dataset",
                expected="one tf.data.Dataset or PyDataset of (x, y) or (x, y, weight)",
                received="a dataset as x, and labels or weights of their own",
                remedy="put the labels and the weights into the dataset",
            )

    def __iter__(self) -> Iterator[Any]:
        """x, y, sample_weight and class_weight, in the order in which all calls take them."""
        return iter((self.x, self.y, self.sample_weight, self.class_weight))

    @property
    def stream(self) -> Stream | None:
        """The dataset that is read batch by batch; None where x holds arrays."""
        return self.x if isinstance(self.x, Stream) else None

    def of_model(self, model: Any) -> TrainingData:
        """Training data with x as arrays, made here once, or as a dataset of known elements.

        Args:
            model: the ranks of its inputs tell single examples of a dataset from batches; the
                columns of a frame are its inputs where it takes several by name.

        Raises:
            InvalidInputError: what cannot be read as arrays, or text for a model that takes none.
        """
        taken = ModelInputs.of(model)
        x = as_inputs(self.x, taken)
        if isinstance(x, ArrayInputs):
            x = replace(x, nest=taken.checked(x.nest))
        return replace(self, x=x)
