"""What a model of Keras says of its inputs, and inputs held against that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.arrays import in_dtype, refuse_text
from deltauq.errors import InvalidInputError

__all__ = ["ModelInputs"]


@dataclass(frozen=True)
class ModelInputs:
    """What a model says of the inputs that it takes; nothing where it says nothing.

    Attributes:
        rank: the sum of their ranks, batch axes included.
        names: of several inputs, each of which is one column.
        dtypes: of each input by its name, in order.
    """

    rank: int | None = None
    names: tuple[str, ...] | None = None
    dtypes: Mapping[str, tf.DType] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any) -> ModelInputs:
        """What is known of the inputs of a model of Keras; of any other nothing."""
        inputs = getattr(model, "inputs", None)
        if not inputs:
            return cls()
        shapes = [tuple(leaf.shape) for leaf in inputs]
        several = len(inputs) > 1 and all(shape[1:] in ((), (1,)) for shape in shapes)
        dtypes = {leaf.name: tf.as_dtype(leaf.dtype) for leaf in inputs}
        return cls(
            sum(map(len, shapes)),
            tuple(dtypes) if several else None,
            dtypes,
        )

    def checked(self, nest: Any) -> Any:
        """Arrays in which whole numbers are whole, and text is where the model takes it.

        A float that stands for an identity would otherwise be rounded to the model's precision.

        Args:
            nest: arrays `[N, ...]`, as `as_nest` makes them.

        Raises:
            InvalidInputError: text for numbers or the reverse, or numbers that are not whole.
        """
        count = len(tf.nest.flatten(nest))
        if isinstance(nest, list) and self.dtypes and count != len(self.dtypes):
            raise InvalidInputError(
                "x has another number of inputs than the model",
                expected=f"the model's inputs, {list(self.dtypes)}",
                received=f"a list of {count} arrays",
                remedy="pass a list of one array for each, or one array x[0] for a single one",
            )
        declared = self._like(nest)
        if declared is None:
            if self.dtypes and tf.string not in self.dtypes.values():
                tf.nest.map_structure(lambda leaf: refuse_text("x", leaf), nest)
            return nest
        return tf.nest.map_structure(_as_declared, nest, declared)

    def _like(self, nest: Any) -> Any:
        """The dtypes in the structure of some arrays; None where it is not that of the inputs."""
        dtypes = list(self.dtypes.values())
        if isinstance(nest, np.ndarray):
            return dtypes[0] if len(dtypes) == 1 else None
        leaves = nest.values() if isinstance(nest, dict) else nest
        if len(leaves) != len(dtypes) or not all(isinstance(leaf, np.ndarray) for leaf in leaves):
            return None
        if isinstance(nest, dict):
            return dict(self.dtypes) if nest.keys() == self.dtypes.keys() else None
        return dtypes


def _as_declared(leaf: npt.NDArray[Any], dtype: tf.DType) -> npt.NDArray[Any]:
    """Numbers of any kind for floats; text and whole numbers in the dtype itself."""
    if not dtype.is_floating:
        return in_dtype(leaf, dtype)
    refuse_text("x", leaf)
    return leaf
