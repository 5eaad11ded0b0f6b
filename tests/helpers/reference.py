"""Independent float64 reference for curvature matrices of small classifiers.

Everything here is computed densely, one example at a time, with exact second-order
forward-mode differentiation (class `Jet`) and plain Python loops. The only dependency is
NumPy, and nothing is shared with the code under test: networks, loss, derivatives and
covariances are all written out again from their definitions.

Notation used in the docstrings:

* N: number of examples, C: number of classes, P: number of parameters;
* parameters are one flat vector [P]: each array flattened in C order, arrays
  concatenated in variable order (for each layer its kernel, then its bias).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# --------------------------------------------------------------------------------------
# Second-order forward-mode differentiation
# --------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Jet:
    """A number together with its first and second derivatives in P parameters.

    Constants are plain floats, never Jets, so that they cost no derivative work.
    Jets are treated as immutable: operations may share arrays but never modify them.

    Attributes:
        value: the number itself.
        gradient: its first derivatives, [P].
        hessian: its second derivatives, [P, P].
    """

    value: float
    gradient: np.ndarray
    hessian: np.ndarray

    # NumPy scalars on the left of an operator must leave the operation to this class.
    __array_ufunc__ = None

    def __add__(self, other: Jet | float) -> Jet:
        """Return u + v."""
        if isinstance(other, Jet):
            return Jet(
                self.value + other.value,
                self.gradient + other.gradient,
                self.hessian + other.hessian,
            )
        return Jet(self.value + float(other), self.gradient, self.hessian)

    __radd__ = __add__

    def __neg__(self) -> Jet:
        """Return -u."""
        return Jet(-self.value, -self.gradient, -self.hessian)

    def __sub__(self, other: Jet | float) -> Jet:
        """Return u - v."""
        if isinstance(other, Jet):
            return Jet(
                self.value - other.value,
                self.gradient - other.gradient,
                self.hessian - other.hessian,
            )
        return Jet(self.value - float(other), self.gradient, self.hessian)

    def __rsub__(self, other: float) -> Jet:
        """Return c - u for a constant c."""
        return -self + other

    def __mul__(self, other: Jet | float) -> Jet:
        """Return u v, with (uv)'' = u v'' + v u'' + u' v'^T + v' u'^T."""
        if isinstance(other, Jet):
            cross = np.outer(self.gradient, other.gradient)
            return Jet(
                self.value * other.value,
                self.value * other.gradient + other.value * self.gradient,
                self.value * other.hessian + other.value * self.hessian + cross + cross.T,
            )
        factor = float(other)
        return Jet(self.value * factor, self.gradient * factor, self.hessian * factor)

    __rmul__ = __mul__

    def __truediv__(self, other: Jet | float) -> Jet:
        """Return u / v."""
        if isinstance(other, Jet):
            return self * _reciprocal(other)
        return self * (1.0 / float(other))

    def __rtruediv__(self, other: float) -> Jet:
        """Return c / u for a constant c."""
        return _reciprocal(self) * other


def _compose(u: Jet, value: float, first: float, second: float) -> Jet:
    """Return f(u) from the numbers f(u), f'(u) and f''(u), by the chain rule."""
    return Jet(
        value,
        first * u.gradient,
        first * u.hessian + second * np.outer(u.gradient, u.gradient),
    )


def _reciprocal(u: Jet) -> Jet:
    """Return 1 / u."""
    inverse = 1.0 / u.value
    return _compose(u, inverse, -(inverse**2), 2.0 * inverse**3)


def exp(u: Jet) -> Jet:
    """Return the exponential of u."""
    value = math.exp(u.value)
    return _compose(u, value, value, value)


def log(u: Jet) -> Jet:
    """Return the natural logarithm of u."""
    return _compose(u, math.log(u.value), 1.0 / u.value, -1.0 / u.value**2)


def tanh(u: Jet) -> Jet:
    """Return the hyperbolic tangent of u."""
    value = math.tanh(u.value)
    first = 1.0 - value**2
    return _compose(u, value, first, -2.0 * value * first)


def relu(u: Jet) -> Jet:
    """Return max(u, 0); both derivatives are 0 where u <= 0, the second is 0 everywhere."""
    if u.value > 0.0:
        return u
    return Jet(0.0, np.zeros_like(u.gradient), np.zeros_like(u.hessian))


def parameter_jets(values: np.ndarray) -> list[Jet]:
    """Return the P independent variables as Jets.

    Args:
        values: the parameter values, [P].

    Returns:
        P Jets; the gradient of number i is the i-th unit vector, every hessian is zero.
    """
    count = len(values)
    identity = np.eye(count)
    no_curvature = np.zeros((count, count))
    return [Jet(float(values[i]), identity[i], no_curvature) for i in range(count)]


# --------------------------------------------------------------------------------------
# Layers, for one example
# --------------------------------------------------------------------------------------


def dense_layer(inputs: Sequence[Jet | float], kernel: np.ndarray, bias: np.ndarray) -> list[Jet]:
    """Return the outputs of a fully connected layer without activation.

    Args:
        inputs: [n_in] Jets or floats.
        kernel: [n_in, n_out] array of Jets.
        bias: [n_out] array of Jets.

    Returns:
        [n_out] Jets.
    """
    n_in, n_out = kernel.shape
    outputs = []
    for j in range(n_out):
        total = bias[j]
        for i in range(n_in):
            total = total + kernel[i, j] * inputs[i]
        outputs.append(total)
    return outputs


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Return the output size and the leading padding of TensorFlow's "SAME" rule.

    The output size is ceil(size / stride). The total padding is what the last window
    needs; when it is odd, the extra element goes after the data.
    """
    output_size = -(-size // stride)
    total = max((output_size - 1) * stride + kernel_size - size, 0)
    return output_size, total // 2


def conv2d_same(
    image: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int
) -> list[list[list[Jet]]]:
    """Return a 2-D convolution (cross-correlation) with "same" padding, no activation.

    Args:
        image: [height, width, c_in] floats.
        kernel: [kernel_height, kernel_width, c_in, c_out] array of Jets.
        bias: [c_out] array of Jets.
        stride: step between windows, the same in both directions.

    Returns:
        Jets as nested lists, [out_height][out_width][c_out].
    """
    height, width, _ = image.shape
    kernel_height, kernel_width, c_in, c_out = kernel.shape
    out_height, pad_top = same_padding(height, kernel_height, stride)
    out_width, pad_left = same_padding(width, kernel_width, stride)

    output = []
    for out_row in range(out_height):
        output_row = []
        for out_column in range(out_width):
            pixel = []
            for channel_out in range(c_out):
                total = bias[channel_out]
                for i in range(kernel_height):
                    for j in range(kernel_width):
                        row = out_row * stride + i - pad_top
                        column = out_column * stride + j - pad_left
                        if not (0 <= row < height and 0 <= column < width):
                            continue  # the padding is zero
                        for channel_in in range(c_in):
                            weight = kernel[i, j, channel_in, channel_out]
                            total = total + weight * float(image[row, column, channel_in])
                pixel.append(total)
            output_row.append(pixel)
        output.append(output_row)
    return output


def _floats(vector: np.ndarray) -> list[float]:
    """Return the entries of a vector as Python floats (constants for Jets)."""
    return [float(entry) for entry in vector]


# --------------------------------------------------------------------------------------
# Networks
# --------------------------------------------------------------------------------------

Forward = Callable[[list[np.ndarray], tuple[np.ndarray, ...]], list[Jet]]


@dataclass(frozen=True, eq=False)
class Network:
    """A small classifier, evaluated for one example at a time.

    Attributes:
        name: its key in `NETWORKS`.
        shapes: shapes of the parameter arrays in variable order.
        n_outputs: number of logits, C.
        input_shapes: shape of one example of each input.
        forward: the computation, from shaped arrays of Jets and one example to logits.
    """

    name: str
    shapes: list[tuple[int, ...]]
    n_outputs: int
    input_shapes: tuple[tuple[int, ...], ...]
    forward: Forward

    @property
    def n_params(self) -> int:
        """Number of parameters, P."""
        return sum(math.prod(shape) for shape in self.shapes)

    def logits(self, weights: list[Jet], x: tuple[np.ndarray, ...]) -> list[Jet]:
        """Return the logits of one example.

        Args:
            weights: the flat list of P Jets.
            x: one array per input, with the shapes `input_shapes`.

        Returns:
            C Jets.
        """
        if len(weights) != self.n_params:
            raise ValueError(f"{self.name}: {len(weights)} weights, expected {self.n_params}")
        if tuple(np.shape(part) for part in x) != self.input_shapes:
            raise ValueError(f"{self.name}: inputs must have shapes {self.input_shapes}")
        arrays = []
        start = 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            flat = np.empty(stop - start, dtype=object)
            flat[:] = weights[start:stop]
            arrays.append(flat.reshape(shape))
            start = stop
        return self.forward(arrays, x)


def _forward_no_hidden(arrays: list[np.ndarray], x: tuple[np.ndarray, ...]) -> list[Jet]:
    """Input 4 -> Dense 3."""
    kernel, bias = arrays
    return dense_layer(_floats(x[0]), kernel, bias)


def _forward_tanh(arrays: list[np.ndarray], x: tuple[np.ndarray, ...]) -> list[Jet]:
    """Input 4 -> Dense 5 tanh -> Dense 4 tanh -> Dense 3."""
    kernel_1, bias_1, kernel_2, bias_2, kernel_3, bias_3 = arrays
    hidden_1 = [tanh(u) for u in dense_layer(_floats(x[0]), kernel_1, bias_1)]
    hidden_2 = [tanh(u) for u in dense_layer(hidden_1, kernel_2, bias_2)]
    return dense_layer(hidden_2, kernel_3, bias_3)


def _forward_relu_conv(arrays: list[np.ndarray], x: tuple[np.ndarray, ...]) -> list[Jet]:
    """Image (5, 5, 2) -> Conv2D 3 filters 3x3, stride 2, same, ReLU -> Dense 4 ReLU -> Dense 3."""
    conv_kernel, conv_bias, kernel_1, bias_1, kernel_2, bias_2 = arrays
    feature_map = conv2d_same(x[0], conv_kernel, conv_bias, stride=2)
    features = [relu(u) for row in feature_map for pixel in row for u in pixel]
    hidden = [relu(u) for u in dense_layer(features, kernel_1, bias_1)]
    return dense_layer(hidden, kernel_2, bias_2)


def _forward_joined(arrays: list[np.ndarray], x: tuple[np.ndarray, ...]) -> list[Jet]:
    """Two inputs: a (3) -> Dense 4 tanh; b (2) -> Dense 3 tanh; [a-branch, b-branch] -> Dense 3."""
    a_kernel, a_bias, b_kernel, b_bias, head_kernel, head_bias = arrays
    a_branch = [tanh(u) for u in dense_layer(_floats(x[0]), a_kernel, a_bias)]
    b_branch = [tanh(u) for u in dense_layer(_floats(x[1]), b_kernel, b_bias)]
    return dense_layer(a_branch + b_branch, head_kernel, head_bias)


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(
            name="no_hidden",
            shapes=[(4, 3), (3,)],
            n_outputs=3,
            input_shapes=((4,),),
            forward=_forward_no_hidden,
        ),
        Network(
            name="tanh",
            shapes=[(4, 5), (5,), (5, 4), (4,), (4, 3), (3,)],
            n_outputs=3,
            input_shapes=((4,),),
            forward=_forward_tanh,
        ),
        Network(
            name="relu_conv",
            shapes=[(3, 3, 2, 3), (3,), (27, 4), (4,), (4, 3), (3,)],
            n_outputs=3,
            input_shapes=((5, 5, 2),),
            forward=_forward_relu_conv,
        ),
        Network(
            name="joined",
            shapes=[(3, 4), (4,), (2, 3), (3,), (7, 3), (3,)],
            n_outputs=3,
            input_shapes=((3,), (2,)),
            forward=_forward_joined,
        ),
    )
}


# --------------------------------------------------------------------------------------
# Loss and curvatures
# --------------------------------------------------------------------------------------


def cross_entropy(logits: Sequence[Jet], label: int) -> Jet:
    """Return the softmax cross-entropy of one example, log(sum_c exp(z_c)) - z_label.

    The largest logit is subtracted before the exponentials as a plain float: the result
    does not depend on it, so its derivatives are not needed.
    """
    if not 0 <= label < len(logits):
        raise ValueError(f"label {label} is not one of the {len(logits)} classes")
    shift = max(logit.value for logit in logits)
    total = exp(logits[0] - shift)
    for logit in logits[1:]:
        total = total + exp(logit - shift)
    return log(total) + shift - logits[label]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the class probabilities of one example, [C] -> [C]."""
    exponentials = np.exp(logits - np.max(logits))
    return exponentials / np.sum(exponentials)


def softmax_matrix(probabilities: np.ndarray) -> np.ndarray:
    """Return diag(p) - p p^T, [C] -> [C, C].

    This is the Hessian of the cross-entropy in the logits, and also the Jacobian of the
    probabilities in the logits.
    """
    return np.diag(probabilities) - np.outer(probabilities, probabilities)


@dataclass(frozen=True)
class Reference:
    """Per-example derivatives and mean data curvatures of one network.

    The curvatures are sum_n w_n (...)_n / sum_n w_n over the examples. The per-example
    arrays do not contain the weights w_n.

    Attributes:
        logits: [N, C].
        probabilities: [N, C].
        jacobian: d logits / d parameters, [N, C, P].
        gradients: gradient of each example's loss, [N, P].
        hessian: mean of the loss Hessians, [P, P].
        opg: mean of g g^T, uncentred, [P, P].
        ggn: mean of J^T (diag(p) - p p^T) J, [P, P].
    """

    logits: np.ndarray
    probabilities: np.ndarray
    jacobian: np.ndarray
    gradients: np.ndarray
    hessian: np.ndarray
    opg: np.ndarray
    ggn: np.ndarray


def dense_reference(
    network: Network,
    weights_flat: np.ndarray,
    x: tuple[np.ndarray, ...],
    y: np.ndarray,
    sample_weight: np.ndarray | None = None,
) -> Reference:
    """Compute all reference quantities of a network at given parameters.

    Args:
        network: one of `NETWORKS`.
        weights_flat: the parameters, [P].
        x: one array per input, [N, ...].
        y: integer class labels, [N].
        sample_weight: non-negative example weights with a positive sum, [N]; all 1 if None.

    Returns:
        The derivatives and the (weighted) mean curvatures, in float64.
    """
    weights_flat = np.asarray(weights_flat, dtype=np.float64)
    inputs = tuple(np.asarray(part, dtype=np.float64) for part in x)
    labels = np.asarray(y)
    n_examples, n_classes, n_params = len(labels), network.n_outputs, network.n_params
    if sample_weight is None:
        example_weights = np.ones(n_examples)
    else:
        example_weights = np.asarray(sample_weight, dtype=np.float64)
    if weights_flat.shape != (n_params,):
        raise ValueError(f"weights_flat has shape {weights_flat.shape}, expected ({n_params},)")
    if labels.shape != (n_examples,) or any(len(part) != n_examples for part in inputs):
        raise ValueError("x and y must hold the same number of examples")
    if example_weights.shape != (n_examples,):
        raise ValueError("sample_weight must hold one weight per example")
    if np.any(example_weights < 0.0) or not np.sum(example_weights) > 0.0:
        raise ValueError("sample_weight must be non-negative with a positive sum")

    logits = np.zeros((n_examples, n_classes))
    probabilities = np.zeros((n_examples, n_classes))
    jacobian = np.zeros((n_examples, n_classes, n_params))
    gradients = np.zeros((n_examples, n_params))
    hessian = np.zeros((n_params, n_params))
    opg = np.zeros((n_params, n_params))
    ggn = np.zeros((n_params, n_params))

    variables = parameter_jets(weights_flat)
    for n in range(n_examples):
        logit_jets = network.logits(variables, tuple(part[n] for part in inputs))
        loss = cross_entropy(logit_jets, int(labels[n]))
        for c in range(n_classes):
            logits[n, c] = logit_jets[c].value
            jacobian[n, c] = logit_jets[c].gradient
        probabilities[n] = softmax(logits[n])
        gradients[n] = loss.gradient

        weight = example_weights[n]
        hessian += weight * loss.hessian
        opg += weight * np.outer(loss.gradient, loss.gradient)
        loss_curvature = softmax_matrix(probabilities[n])
        for c in range(n_classes):
            for d in range(n_classes):
                ggn += weight * loss_curvature[c, d] * np.outer(jacobian[n, c], jacobian[n, d])

    total_weight = np.sum(example_weights)
    return Reference(
        logits=logits,
        probabilities=probabilities,
        jacobian=jacobian,
        gradients=gradients,
        hessian=hessian / total_weight,
        opg=opg / total_weight,
        ggn=ggn / total_weight,
    )


# --------------------------------------------------------------------------------------
# Delta method
# --------------------------------------------------------------------------------------


def _check_symmetric(matrix: np.ndarray, name: str) -> None:
    """Raise ValueError unless a matrix is square, finite and symmetric up to rounding."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be a square matrix, not of shape {matrix.shape}")
    if not np.all(np.isfinite(matrix)):
        raise ValueError(f"{name} has entries that are not finite")
    if np.max(np.abs(matrix - matrix.T)) > 1e-10 * np.max(np.abs(matrix)):
        raise ValueError(f"{name} is not symmetric")


def _inverse_positive_definite(matrix: np.ndarray, name: str) -> np.ndarray:
    """Return the inverse, [P, P]; raise ValueError unless symmetric positive definite.

    An eigenvalue within rounding error of zero counts as zero.
    """
    _check_symmetric(matrix, name)
    symmetric = (matrix + matrix.T) / 2.0
    eigenvalues = np.linalg.eigvalsh(symmetric)
    rounding = len(matrix) * np.finfo(np.float64).eps * np.max(np.abs(eigenvalues))
    if eigenvalues[0] <= rounding:
        raise ValueError(
            f"{name} is not positive definite: its smallest eigenvalue is {eigenvalues[0]:.3e}"
        )
    return np.linalg.inv(symmetric)


def _check_rates(rates: np.ndarray, n_params: int) -> None:
    """Raise ValueError unless there is one rate per parameter."""
    if rates.shape != (n_params,):
        raise ValueError(f"rates has shape {rates.shape}, expected ({n_params},)")


def parameter_covariance(curvature: np.ndarray, rates: np.ndarray, n_examples: float) -> np.ndarray:
    """Return the parameter covariance inverse(curvature + diag(rates)) / n_examples.

    Args:
        curvature: mean data curvature, [P, P].
        rates: L2 regularisation rate of each parameter, [P].
        n_examples: number of examples, or the sum of their weights.

    Returns:
        The covariance, [P, P].

    Raises:
        ValueError: if curvature + diag(rates) is not symmetric positive definite.
    """
    curvature = np.asarray(curvature, dtype=np.float64)
    rates = np.asarray(rates, dtype=np.float64)
    _check_rates(rates, len(curvature))
    return _inverse_positive_definite(curvature + np.diag(rates), "curvature + rates") / n_examples


def projected_parameter_covariance(
    curvature: np.ndarray, rates: np.ndarray, n_examples: float
) -> np.ndarray:
    """Return the parameter covariance with the negative curvature removed.

    With L = diag(rates) and M = L^-1/2 curvature L^-1/2, the regularised curvature is
    L^1/2 (M + I) L^1/2. Here the negative eigenvalues of M are replaced by zero before
    the inverse is taken, so the result exists for every symmetric curvature. It equals
    `parameter_covariance` when the curvature has no negative eigenvalue.

    Args:
        curvature: mean data curvature, [P, P].
        rates: positive L2 regularisation rate of each parameter, [P].
        n_examples: number of examples, or the sum of their weights.

    Returns:
        The covariance, [P, P].

    Raises:
        ValueError: if the curvature is not symmetric or a rate is not positive.
    """
    curvature = np.asarray(curvature, dtype=np.float64)
    rates = np.asarray(rates, dtype=np.float64)
    _check_rates(rates, len(curvature))
    if not np.all(rates > 0.0):
        raise ValueError("every rate must be positive")
    _check_symmetric(curvature, "curvature")

    root = np.diag(np.sqrt(rates))
    inverse_root = np.diag(1.0 / np.sqrt(rates))
    scaled = inverse_root @ ((curvature + curvature.T) / 2.0) @ inverse_root
    eigenvalues, eigenvectors = np.linalg.eigh(scaled)
    projected = eigenvectors @ np.diag(np.maximum(eigenvalues, 0.0)) @ eigenvectors.T
    precision = root @ (projected + np.eye(len(rates))) @ root
    return _inverse_positive_definite(precision, "projected curvature + rates") / n_examples


def logit_covariance(jacobian: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return the covariance of each example's logits, J Sigma J^T.

    Args:
        jacobian: d logits / d parameters, [N, C, P].
        sigma: parameter covariance, [P, P].

    Returns:
        [N, C, C].
    """
    n_examples, n_classes, _ = jacobian.shape
    covariance = np.zeros((n_examples, n_classes, n_classes))
    for n in range(n_examples):
        covariance[n] = jacobian[n] @ sigma @ jacobian[n].T
    return covariance


def probability_covariance(
    jacobian: np.ndarray, probabilities: np.ndarray, sigma: np.ndarray
) -> np.ndarray:
    """Return the covariance of each example's probabilities, S J Sigma J^T S.

    Args:
        jacobian: d logits / d parameters, [N, C, P].
        probabilities: [N, C]; S = diag(p) - p p^T.
        sigma: parameter covariance, [P, P].

    Returns:
        [N, C, C].
    """
    n_examples, n_classes, _ = jacobian.shape
    covariance = np.zeros((n_examples, n_classes, n_classes))
    for n in range(n_examples):
        slope = softmax_matrix(probabilities[n])
        covariance[n] = slope @ jacobian[n] @ sigma @ jacobian[n].T @ slope
    return covariance
