"""What the variables of a model must be like for a curvature of the cost to describe them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deltauq.errors import UnsupportedModelError
from deltauq.network.adapters import Adapter
from deltauq.network.parameters import layer_of

__all__ = [
    "check_constraints",
    "check_finite_weights",
    "check_last_layer",
    "check_one_precision",
]

#: How the names of dtypes begin in which nothing is rounded.
_EXACT = ("int", "uint", "bool", "string")


def check_one_precision(adapter: Adapter, variables: Sequence[Any]) -> None:
    """Refuse a model that is not float32 everywhere, or float64 everywhere.

    Layers that compute in whole numbers or in text, as lookups do, have no precision: where one
    stands behind an uncertain variable, there is no derivative, which is found elsewhere.

    Raises:
        UnsupportedModelError: uncertain variables and layers have several, or another one.
    """
    dtypes = {str(variable.dtype) for variable in variables}
    others = {
        name: dtype
        for name, dtype in adapter.dtypes_of_layers().items()
        if not dtype.startswith(_EXACT) and dtype not in dtypes
    }
    if len(dtypes) != 1 or not dtypes <= {"float32", "float64"} or others:
        raise UnsupportedModelError(
            "the model mixes precisions, or uses one that curvature cannot be computed in",
            expected="float32 everywhere, or float64 everywhere",
            received=f"variables of {sorted(dtypes)}"
            + (f", layers computing in {others}" if others else ""),
            remedy="copy the weights into the same model built with one dtype in every layer, "
            "those without weights included",
        )


def check_last_layer(chosen: Sequence[Any], makers: Sequence[Any]) -> None:
    """Refuse a last layer that has no part in the step that makes the outputs.

    An output whose weights are an embedding's has the layer before it as the last one of its own
    weights; a subclass may make its layers in any order.

    Args:
        chosen: the variables of the layer of the model's last variable.
        makers: the variables by which the outputs are made of what comes before.

    Raises:
        UnsupportedModelError: they are of other layers.
    """
    if makers and not {layer_of(v) for v in chosen} & {layer_of(v) for v in makers}:
        own, other = ([variable.path for variable in each] for each in (chosen, makers))
        raise UnsupportedModelError(
            "the layer of the model's last variable is not the one that makes its outputs, so that "
            "layers='last' may mean either",
            expected="a model whose last layer with weights of its own makes the outputs",
            received=f"last variables {own}, and outputs that are made by {other}",
            remedy=f"say which: layers={other} for what makes the outputs (wherever else the model "
            f"uses it), layers={own} for the last variables",
        )


def check_finite_weights(variables: Sequence[Any]) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        UnsupportedModelError: a weight is not finite.
    """
    for variable in variables:
        value = variable.numpy()
        if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise UnsupportedModelError(
                f"the weights in {variable.path!r} hold NaN or infinity",
                expected="finite weights",
                received=f"{np.count_nonzero(~np.isfinite(value))} of {value.size} not finite",
                remedy="the training diverged; train again with a smaller learning rate",
            )


def check_constraints(variables: Sequence[Any]) -> None:
    """Refuse uncertain variables at the edge of what training allowed: the cost may fall beyond it.

    A constraint with room, such as a norm that is far below its maximum, changes no minimum.

    Raises:
        UnsupportedModelError: a constraint that acts on a variable, or on values a tenth from it.
    """
    constrained = {
        variable.path: type(variable.constraint).__name__
        for variable in variables
        if variable.constraint is not None and _acts_near(variable.constraint, variable.numpy())
    }
    if constrained:
        raise UnsupportedModelError(
            "some weights were trained under a constraint",
            expected="weights at a minimum of the cost, not at the edge of what is allowed",
            received=f"{constrained}",
            remedy="train without the constraint, or hold those variables fixed by selecting the "
            "others with layers=...",
        )


def _acts_near(constraint: Any, value: npt.NDArray[Any]) -> bool:
    """Whether a constraint changes a value scaled by a tenth, or moved by one to random sides."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], value.shape).astype(value.dtype)
    moved = 0.1 * np.sqrt(np.mean(np.square(value)), dtype=value.dtype) * signs
    near = [value, 0.9 * value, 1.1 * value, value + moved, value - moved]
    tolerance = 10 * np.finfo(value.dtype).eps  # a norm's rule divides by it, and multiplies again
    return not all(
        np.allclose(np.asarray(constraint(tf.constant(each))), each, rtol=tolerance, atol=0.0)
        for each in near
    )
