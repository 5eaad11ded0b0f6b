"""Nests of arrays, of numbers or of text, as the arrays of an artifact."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

__all__ = ["pack_nest", "unpack_nest"]

Arrays = dict[str, npt.NDArray[Any]]


def pack_nest(nest: Any, arrays: Arrays, name: str) -> Any:
    """Add the leaves of a nest to the arrays of an artifact.

    Args:
        nest: arrays or tensors, of numbers or of text.
        arrays: of the artifact, which grow.
        name: what stands before the number of each leaf.

    Returns:
        The nest with the number of each leaf in its place, for the facts.
    """
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(nest)]
    for k, leaf in enumerate(leaves):
        if leaf.dtype.kind == "O":  # text, for which the format of the arrays has no dtype
            text = tf.io.serialize_tensor(leaf).numpy()
            arrays[f"{name} text/{k}"] = np.frombuffer(text, np.uint8)
        else:
            arrays[f"{name}/{k}"] = leaf
    return tf.nest.pack_sequence_as(nest, list(range(len(leaves))))


def unpack_nest(numbers: Any, arrays: Arrays, name: str) -> Any:
    """The nest of arrays that `pack_nest` has added.

    Args:
        numbers: what it returned.
        arrays: of the artifact.
        name: as it was given.
    """

    def leaf(k: int) -> npt.NDArray[Any]:
        text = arrays.get(f"{name} text/{k}")
        if text is None:
            return arrays[f"{name}/{k}"]
        return np.asarray(tf.io.parse_tensor(text.tobytes(), tf.string).numpy())

    return tf.nest.map_structure(leaf, numbers)
