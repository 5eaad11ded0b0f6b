"""Keras masks, which say what predictions of an input the loss leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.data.batches import spec_of
from deltauq.errors import UnsupportedModelError
from deltauq.network.graph import Compiled
from deltauq.network.inspection import Inspection
from deltauq.network.link import mask_of
from deltauq.network.network import Network

__all__ = ["OutputMask", "find_mask"]


def find_mask(network: Network, inspection: Inspection) -> OutputMask | None:
    """Find the mask that Keras keeps on a model's output; None where there is none.

    `Masking`, `Embedding(mask_zero=True)` and layers with a `compute_mask` of their own mark
    padding, and most layers hand the mark on. A loss of Keras leaves the predictions out that are
    marked at the output, and divides by the number of the others.

    Args:
        network: the network.
        inspection: what a look at it on a few rows found.

    Raises:
        UnsupportedModelError: a mask with other axes than the predictions have; Keras' own loss
            could not be computed with it either.
    """
    mask, positions = inspection.mask, inspection.position_shape
    if mask is None:
        return None
    # Keras lets one of the two have an axis of length one more at the end.
    if not any(_alike(mask, fit) for fit in (positions, (*positions, 1))) and not (
        positions[-1:] == (1,) and _alike(mask, positions[:-1])
    ):
        raise UnsupportedModelError(
            "the mask on the model's output does not fit its predictions",
            expected=f"a mask of shape {['B', *positions]}, an entry a prediction",
            received=f"shape {['B', *mask]}, beside an output of shape "
            f"{['B', *inspection.output.shape[1:]]}",
            remedy="end the mask where the axis that it marks ends, such as by a layer whose "
            "compute_mask returns None",
        )
    return OutputMask(network, int(np.prod(positions)) if positions else None)


class OutputMask:
    """Which predictions of some inputs count, by the mask on the model's output.

    Args:
        network: the network; its output carries a mask.
        positions: T predictions an input; None where an input makes one.
    """

    def __init__(self, network: Network, positions: int | None) -> None:
        self._network = network
        self._shape = [-1] if positions is None else [-1, positions]
        self._compiled: Compiled | None = None

    def __call__(self, x: Any) -> npt.NDArray[np.bool_]:
        """True where a prediction counts, `[B]` or `[B, T]`; the model runs as far as it must."""
        if self._compiled is None:
            params = tf.TensorSpec([self._network.n_params], self._network.dtype)
            self._compiled = Compiled(self._of_flat, params, spec_of(x))
        return np.asarray(self._compiled(self._network.params, x))

    def symbolic(self, output: tf.Tensor) -> tf.Tensor:
        """Mask of the model's own output, True where a prediction counts; in a `tf.function`."""
        return tf.reshape(tf.cast(mask_of(output), tf.bool), self._shape)

    def _of_flat(self, params: tf.Tensor, x: Any) -> tf.Tensor:
        return self.symbolic(self._network.output(self._network.unflatten(params), x))


def _alike(mask: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    """Shapes that are the same as far as the first one is known."""
    return len(mask) == len(shape) and all(
        a is None or a == b for a, b in zip(mask, shape, strict=True)
    )
