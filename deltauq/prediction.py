"""From a parameter covariance to the covariance of every prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats
import tensorflow as tf
from beartype import beartype
from jaxtyping import Float, jaxtyped

from deltauq.covariance import ParameterCovariance, check_choice
from deltauq.errors import InvalidInputError, optional
from deltauq.inputs import InputBatches
from deltauq.jacobians import Workspace
from deltauq.linalg import root_diagonal
from deltauq.linearization import Linearization, Rows, Sketch, contrasts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DifferenceTest", "Prediction", "VarianceSplit", "assemble", "join", "predict"]

Array = npt.NDArray[Any]

#: Relative rounding of a standard error in the network's precision, by which bounds are widened.
ROUNDING = {"float32": 1e-4, "float64": 1e-9}


def predict(
    linearization: Linearization,
    covariance: ParameterCovariance,
    inputs: InputBatches,
    vectors: Array,
) -> Prediction:
    """Push a parameter covariance through the linearised network, batch by batch.

    Cov(z) = J Sigma J^T and Cov(p) = S Cov(z) S with S the mean's Jacobian. J is never multiplied
    by a `[P, P]` matrix.

    Args:
        linearization: of the network.
        covariance: of its parameters.
        inputs: the inputs.
        vectors: the covariance's vectors, C-contiguous and in the network's precision.
    """
    parts = _predict_batches(linearization, covariance, inputs, vectors)
    return join(list(parts))


def _predict_batches(
    linearization: Linearization,
    covariance: ParameterCovariance,
    inputs: InputBatches,
    vectors: Array,
) -> Iterator[Prediction]:
    workspace = Workspace(vectors.dtype)
    for x in inputs:
        found = linearization.sketch(x, vectors, workspace)
        middle = covariance.project(found.along, found.rest)
        outer: Sequence[Array] | None = covariance.project_bounds(found.along, found.rest)
        if outer is not None and not covariance.certified:
            outer = (*outer, middle)
        prediction = assemble(found, middle, outer, vectors.dtype.name)
        yield replace(prediction, certified=covariance.certified)


def assemble(
    found: Sketch | Rows, middle: Array, outer: Sequence[Array] | None, dtype: str
) -> Prediction:
    """A prediction from covariances of the contrasts of the classes.

    Args:
        found: logits, means and slopes.
        middle: the covariance `[B, C', C']`.
        outer: between which it lies, or None; the standard errors' bounds are those from the
            smallest to the largest.
        dtype: the network's precision, whose rounding widens them.
    """
    back = np.broadcast_to(contrasts(found.logits.shape[1]).T, found.slope.shape)
    return Prediction(
        found.logits,
        found.mean,
        _congruent(back, middle),
        _congruent(found.slope, middle),
        None if outer is None else _std_bounds(back, outer, ROUNDING[dtype]),
        None if outer is None else _std_bounds(found.slope, outer, ROUNDING[dtype]),
    )


def _std_bounds(left: Array, middles: Sequence[Array], rounding: float) -> Array:
    """The range of the roots of the diagonals of L M L^T, rounding allowed for, `[B, C, 2]`."""
    roots = [root_diagonal(_congruent(left, middle)) for middle in middles]
    low, high = np.min(roots, axis=0), np.max(roots, axis=0)
    return np.stack([low * (1.0 - rounding), high * (1.0 + rounding)], axis=-1)


def _congruent(left: Array, middle: Array) -> Array:
    """L M L^T, symmetric to the bit."""
    result = left @ middle @ np.swapaxes(left, -1, -2)
    return np.asarray((result + np.swapaxes(result, -1, -2)) / 2)


def join(parts: Sequence[Prediction]) -> Prediction:
    """One prediction of the inputs of several."""
    return _each_column(np.concatenate, *parts)


def _each_column(function: Callable[[list[Array]], Array], *parts: Prediction) -> Prediction:
    """Make one prediction of some, column by column; what is not a column is that of the first."""
    columns: dict[str, Any] = {}
    for field in fields(Prediction):
        column = [getattr(part, field.name) for part in parts]
        columns[field.name] = function(column) if isinstance(column[0], np.ndarray) else column[0]
    return Prediction(**columns)


def _unstacked(limits: Array | None, name: str) -> tuple[Array, Array]:
    if limits is None:
        raise InvalidInputError(
            f"{name} needs a bound on what the eigenpairs leave out",
            expected="a curvature that was fitted with bounds",
            received="one fitted with bounds=False",
            remedy="pass bounds=True (the default) and fit again; it takes a few more passes over "
            "the data",
        )
    return limits[..., 0], limits[..., 1]


@dataclass(frozen=True)
class DifferenceTest:
    """Is the most probable class separable from the second? One entry an input.

    Attributes:
        first: the most probable class `[N]`.
        second: the runner-up `[N]`.
        difference: of their logits, the log of their odds `[N]`.
        std: its standard error `[N]`, from the covariance of the two.
        z: difference / std `[N]`.
        p_value: two-sided, of "the two are equally probable" `[N]`.
    """

    first: Array
    second: Array
    difference: Array
    std: Array
    z: Array
    p_value: Array


@dataclass(frozen=True)
class VarianceSplit:
    """Where the variance of the class indicators comes from, `[N, C]` each.

    Attributes:
        total: p (1 - p).
        epistemic: from the weights: Var(p), which more data would remove.
        aleatoric: from the labels: what is left.
    """

    total: Array
    epistemic: Array
    aleatoric: Array


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class Prediction:
    """Probabilities of N inputs with their epistemic uncertainty.

    Attributes:
        logits: z `[N, C]`.
        probabilities: p `[N, C]`, rows sum to one.
        logit_covariance: Cov(z) = J Sigma J^T `[N, C, C]`.
        covariance: Cov(p) = S Cov(z) S `[N, C, C]`; rows sum to zero.
        logit_std_limits: between which `logit_std` from all eigenpairs lies, `[N, C, 2]`; None
            where the curvature was computed without bounds.
        std_limits: the same of `std`; read them as `std_bounds`.
        certified: the limits are bounds; otherwise (sandwich, negative_curvature="keep", `refine`
            of an exact Hessian) they are an estimate of how far the standard errors may lie.
        data_passes: passes over the training data that these inputs took (`refine`).
    """

    logits: Float[np.ndarray, "N C"]
    probabilities: Float[np.ndarray, "N C"]
    logit_covariance: Float[np.ndarray, "N C C"]
    covariance: Float[np.ndarray, "N C C"]
    logit_std_limits: Float[np.ndarray, "N C 2"] | None = None
    std_limits: Float[np.ndarray, "N C 2"] | None = None
    certified: bool = True
    data_passes: int = 0

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, rows: slice | Array | list[int]) -> Prediction:
        """The prediction of some of the inputs, chosen by a slice, numbers or a mask."""
        if not isinstance(rows, slice):
            rows = np.atleast_1d(np.asarray(rows))
        return _each_column(lambda columns: columns[0][rows], self)

    def __repr__(self) -> str:
        n, c = self.logits.shape
        median = f", median score {np.median(self.score):.3g}" if n else ""
        return f"Prediction({n} inputs, {c} classes{median})"

    @cached_property
    def labels(self) -> Array:
        """The most probable class `[N]`."""
        return np.asarray(np.argmax(self.logits, axis=1))

    @cached_property
    def std(self) -> Array:
        """Standard error of each probability `[N, C]`."""
        return root_diagonal(self.covariance)

    @cached_property
    def logit_std(self) -> Array:
        """Standard error of each logit `[N, C]`."""
        return root_diagonal(self.logit_covariance)

    @property
    def std_bounds(self) -> tuple[Array, Array]:
        """(low, high), each `[N, C]`: the standard errors from all eigenpairs lie between them.

        OPG and GGN: with the probability that `eigenpairs.left_out` states. They are about what
        the low rank costs, not about the Delta method itself. Where `certified` is False they are
        an estimate.

        Raises:
            InvalidInputError: the curvature was computed without them.
        """
        return _unstacked(self.std_limits, "std_bounds")

    @property
    def logit_std_bounds(self) -> tuple[Array, Array]:
        """The same for the standard errors of the logits."""
        return _unstacked(self.logit_std_limits, "logit_std_bounds")

    @cached_property
    def score(self) -> Array:
        """One number an input: sqrt(trace Cov(p)) `[N]`."""
        return np.asarray(np.sqrt(np.sum(self.std**2, axis=1)))

    @cached_property
    def entropy(self) -> Array:
        """Entropy of the predicted distribution in nats `[N]`: the spread of the labels."""
        return np.asarray(np.sum(scipy.special.entr(self.probabilities), axis=1))

    @cached_property
    def mutual_information(self) -> Array:
        """Information a label would bring about the weights, in nats `[N]`, to second order.

        (1/2) sum_c Var(p_c) / p_c = (1/2) trace(S Cov(z)), the second-order term of
        H(E p) - E H(p) (Smith and Gal 2018, arXiv 1803.08533, section 3).
        """
        p = self.probabilities
        centred = np.einsum("nc,ncc->n", p, self.logit_covariance)
        mean = np.einsum("nc,ncd,nd->n", p, self.logit_covariance, p)
        return np.maximum(0.5 * (centred - mean), 0.0)

    def variance_split(self) -> VarianceSplit:
        """The variance of each class's indicator, divided by the law of total variance.

        p (1 - p) = Var(p) + E[p (1 - p)] (Kwon et al. 2020, "Uncertainty quantification using
        Bayesian neural networks in classification"). Where the linearisation gives a Var(p) beyond
        p (1 - p), the aleatoric part is negative: then neither is determined by the data.
        """
        total = self.probabilities * (1.0 - self.probabilities)
        return VarianceSplit(total, self.std**2, total - self.std**2)

    def interval(
        self, level: float = 0.95, method: Literal["logit", "normal"] = "logit"
    ) -> tuple[Array, Array]:
        """Intervals of the probabilities at a confidence level.

        Args:
            level: in (0, 1).
            method: "logit" takes the normal interval of log(p_c / (1 - p_c)), whose standard error
                comes from Cov(z), back to probabilities: it stays inside [0, 1]. "normal" is
                p +- q std, which may leave it.

        Returns:
            (lower, upper), each `[N, C]`.
        """
        check_choice("method", method, ("logit", "normal"))
        if not 0 < level < 1:
            raise InvalidInputError(
                "level is not a confidence level",
                expected="a number between 0 and 1, such as 0.95",
                received=repr(level),
            )
        q = scipy.stats.norm.ppf(0.5 + level / 2)
        if method == "normal":
            return self.probabilities - q * self.std, self.probabilities + q * self.std
        odds, std = self._log_odds()
        return scipy.special.expit(odds - q * std), scipy.special.expit(odds + q * std)

    def difference_test(self) -> DifferenceTest:
        """Test the most probable class against the second: normal test of z_first - z_second."""
        # By the logits: probabilities that round to zero are all alike.
        order = np.argsort(-self.logits, axis=1, kind="stable")
        first, second = order[:, 0], order[:, 1]
        n = np.arange(len(self))
        cov = self.logit_covariance
        variance = cov[n, first, first] + cov[n, second, second] - 2 * cov[n, first, second]
        difference = self.logits[n, first] - self.logits[n, second]
        std = np.sqrt(np.maximum(variance, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(difference == 0, 0.0, difference / std)
        return DifferenceTest(first, second, difference, std, z, 2 * scipy.stats.norm.sf(np.abs(z)))

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """A table with one row an input, in the manner of statsmodels' `summary_frame`.

        Columns: `label`, then `predicted`, `se`, `ci_lower`, `ci_upper` of that class, `se_low` and
        `se_high` where there are `std_bounds`, `score`, `entropy`, `mutual_information`, and
        `predicted_c`, `se_c` of every class c.
        """
        frames = optional("pandas", needed_by="to_frame() needs pandas", extra="report")
        n, top = np.arange(len(self)), self.labels
        lower, upper = self.interval(level)
        columns: dict[str, Array] = {
            "label": top,
            "predicted": self.probabilities[n, top],
            "se": self.std[n, top],
            "ci_lower": lower[n, top],
            "ci_upper": upper[n, top],
        }
        if self.std_limits is not None:
            columns["se_low"], columns["se_high"] = self.std_limits[n, top].T
        columns["score"] = self.score
        columns["entropy"] = self.entropy
        columns["mutual_information"] = self.mutual_information
        for c in range(self.logits.shape[1]):
            columns[f"predicted_{c}"] = self.probabilities[:, c]
            columns[f"se_{c}"] = self.std[:, c]
        return frames.DataFrame(columns)

    def distribution(self) -> Any:
        """The normal distribution of the logits, `tfp.distributions`, batch `[N]`, event `[C]`.

        Softmax of its samples are samples of the probabilities.
        """
        import tensorflow_probability as tfp

        values, vectors = np.linalg.eigh(self.logit_covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        return tfp.distributions.MultivariateNormalLinearOperator(
            loc=tf.constant(self.logits), scale=tf.linalg.LinearOperatorFullMatrix(root)
        )

    def plot(self, y: Any = None, ax: Any = None) -> Any:
        """Probability against standard error of the predicted class; see `deltauq.plots`."""
        from deltauq import plots

        return plots.probability_against_error(self, y, ax=ax)

    def _log_odds(self) -> tuple[Array, Array]:
        """log(p_c / (1 - p_c)) and its standard error, `[N, C]` each, without dividing by zero.

        The gradient of class c's log odds in the logits is e_c - q with q the probabilities of the
        other classes given that it is none of c.
        """
        n_classes = self.logits.shape[1]
        odds, variance = np.empty_like(self.logits), np.empty_like(self.logits)
        for c in range(n_classes):
            others = np.delete(np.arange(n_classes), c)
            rest = self.logits[:, others]
            odds[:, c] = self.logits[:, c] - scipy.special.logsumexp(rest, axis=1)
            gradient = np.zeros_like(self.logits)
            gradient[:, c] = 1.0
            gradient[:, others] = -scipy.special.softmax(rest, axis=1)
            variance[:, c] = np.einsum(
                "nc,ncd,nd->n", gradient, self.logit_covariance, gradient, optimize=True
            )
        return odds, np.sqrt(np.maximum(variance, 0.0))
