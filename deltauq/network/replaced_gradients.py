"""Gradients that replace those of TensorFlow that are slow, or wrong when differentiated again.

The gradient of max pooling, which TensorFlow computes one output at a time, is for windows that do
not overlap a product with a mask, and so is its own gradient. The gradient of a convolution that
keeps the size of its images is a convolution with the kernel turned around: the same arithmetic,
but 1.4 to 4 times faster than TensorFlow's operation for it. The second derivative of tanh and of
the logistic function is one product, with a factor that serves any number of vectors.

`tf.nn.moments` (layer and group normalisation) stops the gradient of the mean inside the variance:
it is zero, but its own gradient is not. Softsign and the nearest neighbours of a resized image
have no second derivative in TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

__all__ = ["GRADIENT_PREFIX", "replaced_gradients"]

#: How the names of the gradients registered here begin.
GRADIENT_PREFIX = "DeltaUQ"

_MAX_POOL = f"{GRADIENT_PREFIX}MaxPool"
_SPREAD = f"{GRADIENT_PREFIX}Spread"
_CONV = f"{GRADIENT_PREFIX}Conv2D"
_TANH = f"{GRADIENT_PREFIX}Tanh"
_TANH_GRAD = f"{GRADIENT_PREFIX}TanhGrad"
_SIGMOID = f"{GRADIENT_PREFIX}Sigmoid"
_SIGMOID_GRAD = f"{GRADIENT_PREFIX}SigmoidGrad"
_SOFTSIGN = f"{GRADIENT_PREFIX}Softsign"
_CENTRE = f"{GRADIENT_PREFIX}Centre"
_VANISHING = f"{GRADIENT_PREFIX}Vanishing"
_NEAREST = f"{GRADIENT_PREFIX}Nearest"
_NEAREST_GRAD = f"{GRADIENT_PREFIX}NearestGrad"

_REPLACED = {
    "MaxPool": _MAX_POOL,
    "Conv2D": _CONV,
    "Tanh": _TANH,
    "Sigmoid": _SIGMOID,
    "Softsign": _SOFTSIGN,
    "ResizeNearestNeighbor": _NEAREST,
}


@contextmanager
def replaced_gradients() -> Iterator[None]:
    """Give operations that are traced inside the gradients of this module.

    Operations that run eagerly keep their own.
    """
    if tf.executing_eagerly():
        yield
        return
    graph = tf.compat.v1.get_default_graph()
    with graph.gradient_override_map(_REPLACED):
        yield
    for operation in graph.get_operations():
        if operation.type == "StopGradient" and _is_centre(operation):
            name = attr_value_pb2.AttrValue(s=_CENTRE.encode())
            operation._set_attr("_gradient_op_type", name)


def _is_centre(operation: Any) -> bool:
    """Whether a StopGradient serves only as the mean in mean((x - mean(x))^2), over equal axes.

    The derivative of that in the mean is zero identically, whatever x is.
    """
    centre, mean = operation.outputs[0], operation.inputs[0].op
    if mean.type != "Mean" or not mean.get_attr("keep_dims"):
        return False
    x, axes = mean.inputs
    squares = centre.consumers()
    return bool(squares) and all(
        square.type == "SquaredDifference"
        and {tensor.ref() for tensor in square.inputs} == {x.ref(), centre.ref()}
        and _averaged_over(square, axes)
        for square in squares
    )


def _averaged_over(operation: Any, axes: tf.Tensor) -> bool:
    """Whether only means over these axes, which must be known, read an operation's output."""
    wanted = tf.get_static_value(axes)
    readers = operation.outputs[0].consumers()
    return wanted is not None and all(
        reader.type == "Mean" and np.array_equal(tf.get_static_value(reader.inputs[1]), wanted)
        for reader in readers
    )


@tf.RegisterGradient(_CENTRE)
def _centre(_: Any, gradient: tf.Tensor) -> tf.Tensor:
    """Zero, as the gradient that arrives is but for rounding, with that one's derivative."""
    with tf.compat.v1.get_default_graph().gradient_override_map({"ZerosLike": _VANISHING}):
        return tf.raw_ops.ZerosLike(x=gradient)


@tf.RegisterGradient(_VANISHING)
def _vanishing(_: Any, upstream: tf.Tensor) -> tf.Tensor:
    return upstream


@tf.RegisterGradient(_TANH)
def _tanh(operation: Any, gradient: tf.Tensor) -> tf.Tensor:
    with tf.compat.v1.get_default_graph().gradient_override_map({"TanhGrad": _TANH_GRAD}):
        return tf.raw_ops.TanhGrad(y=operation.outputs[0], dy=gradient)


@tf.RegisterGradient(_TANH_GRAD)
def _tanh_grad(operation: Any, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of g = dy (1 - y^2): dg / dy_value = -2 y dy, and dg / d dy = 1 - y^2, times the upstream.

    The first product is formed without the upstream, so that it is one factor in every product.
    """
    y, dy = operation.inputs
    return upstream * (-2 * y * dy), tf.raw_ops.TanhGrad(y=y, dy=upstream)


@tf.RegisterGradient(_SIGMOID)
def _sigmoid(operation: Any, gradient: tf.Tensor) -> tf.Tensor:
    with tf.compat.v1.get_default_graph().gradient_override_map({"SigmoidGrad": _SIGMOID_GRAD}):
        return tf.raw_ops.SigmoidGrad(y=operation.outputs[0], dy=gradient)


@tf.RegisterGradient(_SIGMOID_GRAD)
def _sigmoid_grad(operation: Any, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of g = dy y (1 - y): dg / dy_value = (1 - 2 y) dy, and dg / d dy = y (1 - y), likewise."""
    y, dy = operation.inputs
    return upstream * ((1 - 2 * y) * dy), tf.raw_ops.SigmoidGrad(y=y, dy=upstream)


@tf.RegisterGradient(_SOFTSIGN)
def _softsign(operation: Any, gradient: tf.Tensor) -> tf.Tensor:
    return gradient / tf.square(1 + tf.abs(operation.inputs[0]))


@tf.RegisterGradient(_NEAREST)
def _nearest(operation: Any, gradient: tf.Tensor) -> tuple[tf.Tensor, None]:
    override = {"ResizeNearestNeighborGrad": _NEAREST_GRAD}
    with tf.compat.v1.get_default_graph().gradient_override_map(override):
        spread = tf.raw_ops.ResizeNearestNeighborGrad(
            grads=gradient, size=tf.shape(operation.inputs[0])[1:3], **_grid(operation)
        )
    return spread, None


@tf.RegisterGradient(_NEAREST_GRAD)
def _nearest_grad(operation: Any, upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
    size = tf.shape(operation.inputs[0])[1:3]
    return tf.raw_ops.ResizeNearestNeighbor(images=upstream, size=size, **_grid(operation)), None


def _grid(operation: Any) -> dict[str, bool]:
    return {name: operation.get_attr(name) for name in ("align_corners", "half_pixel_centers")}


@tf.RegisterGradient(_CONV)
def _convolution(operation: Any, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of the images and of the kernel."""
    images, kernel = operation.inputs
    names = ("strides", "padding", "data_format", "dilations", "explicit_paddings")
    options = {name: operation.get_attr(name) for name in names}
    if _keeps_size(operation):
        turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
        for_images = tf.nn.conv2d(gradient, turned, 1, "SAME")
    else:
        for_images = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images), filter=kernel, out_backprop=gradient, **options
        )
    for_kernel = tf.raw_ops.Conv2DBackpropFilter(
        input=images, filter_sizes=tf.shape(kernel), out_backprop=gradient, **options
    )
    return for_images, for_kernel


def _keeps_size(operation: Any) -> bool:
    """Whether the padding is the same on all sides and every pixel is the centre of a window."""
    images, kernel = (tensor.shape for tensor in operation.inputs)
    get = operation.get_attr
    return (
        (get("padding"), get("data_format")) == (b"SAME", b"NHWC")
        and [*get("strides"), *get("dilations")] == [1] * 8
        and None not in kernel
        and kernel[0] % 2 == kernel[1] % 2 == 1
        and kernel[2] == images[3]
    )


@tf.RegisterGradient(_MAX_POOL)
def _max_pool(operation: Any, gradient: tf.Tensor) -> tf.Tensor:
    """The gradient goes to the first of the largest entries of each window."""
    images, pooled = operation.inputs[0], operation.outputs[0]
    window = _square_window(operation)
    if window is None:
        names = ("ksize", "strides", "padding", "data_format")
        options = {name: operation.get_attr(name) for name in names}
        explicit = operation.get_attr("explicit_paddings")
        return tf.raw_ops.MaxPoolGrad(
            orig_input=images,
            orig_output=pooled,
            grad=gradient,
            explicit_paddings=explicit,
            **options,
        )
    height, width = images.shape[1:3]
    used = [window * (height // window), window * (width // window)]
    entries = tf.split(
        tf.nn.space_to_depth(images[:, : used[0], : used[1]], window), window**2, axis=3
    )
    masks, taken = [], tf.zeros_like(pooled, tf.bool)
    for entry in entries:
        largest = tf.equal(entry, pooled)
        masks.append(largest & ~taken)
        taken |= largest
    # Made once, however many gradients there are: it does not depend on them.
    mask = tf.nn.depth_to_space(tf.cast(tf.concat(masks, axis=3), gradient.dtype), window)
    spread = _spread(mask, gradient, window)
    return tf.pad(spread, [[0, 0], [0, height - used[0]], [0, width - used[1]], [0, 0]])


def _spread(mask: tf.Tensor, gradient: tf.Tensor, window: int) -> tf.Tensor:
    """Mask times the gradient of each window; its adjoint sums over the windows."""
    layout = [-1, mask.shape[1] // window, window, mask.shape[2] // window, window, mask.shape[3]]
    wide = tf.reshape(mask, layout) * gradient[:, :, None, :, None]
    spread = tf.reshape(wide, [-1, *mask.shape[1:]])
    with tf.compat.v1.get_default_graph().gradient_override_map({"IdentityN": _SPREAD}):
        return tf.identity_n([spread, mask, gradient])[0]


@tf.RegisterGradient(_SPREAD)
def _spread_grad(operation: Any, upstream: tf.Tensor, *_: Any) -> tuple[None, None, tf.Tensor]:
    _, mask, values = operation.inputs
    window = mask.shape[1] // values.shape[1]
    return None, None, window**2 * tf.nn.avg_pool2d(mask * upstream, window, window, "VALID")


def _square_window(operation: Any) -> int | None:
    """The side of square windows that do not overlap and need no padding; None for others."""
    get = operation.get_attr
    size, strides = list(get("ksize")), list(get("strides"))
    shape = operation.inputs[0].shape
    if get("data_format") != b"NHWC" or size != strides or size[1] != size[2] or size[1] == 1:
        return None
    if size[0] != 1 or size[3] != 1 or None in shape[1:]:
        return None
    fits = get("padding") == b"VALID" or all(n % size[1] == 0 for n in shape[1:3])
    return int(size[1]) if fits else None
