"""Predictions of one of several classes: for all classes, or for some classes of many."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats
from beartype import beartype
from jaxtyping import Float, Int, jaxtyped

from deltauq.errors import InvalidInputError, check_choice
from deltauq.likelihoods.class_numbers import check_class_numbers, class_numbers
from deltauq.prediction.estimate import Array, Estimate, normal_quantile
from deltauq.prediction.events import Events
from deltauq.prediction.given import refuse_unless, truth_of
from deltauq.prediction.predictive import SAMPLES, AveragedProbabilities, average_softmax
from deltauq.runtime.showing import Shown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "DifferenceTest",
    "Prediction",
    "SomeClassesPrediction",
    "VarianceSplit",
    "interval_of",
]


@dataclass(frozen=True)
class DifferenceTest:
    """Test of whether the most probable class is separable from the second, one entry an input.

    Attributes:
        first: the most probable class `[N]`.
        second: the runner-up `[N]`.
        difference: of their logits, the log of their odds `[N]`.
        std: standard error of the difference `[N]`, from the covariance of the two.
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
    """Where the variance of an outcome comes from, the weights or the labels, `[N, C]` each.

    Attributes:
        total: p (1 - p) of a class's or label's indicator; Var of an observation of a regression.
        epistemic: from the weights, Var(p), which more data would remove.
        aleatoric: from the labels, what is left.
    """

    total: Array
    epistemic: Array
    aleatoric: Array


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class Prediction(Estimate, Shown):
    """Class probabilities of N inputs with their epistemic uncertainty.

    Probabilities `[N, C]` are the means of an `Estimate`, which has the other attributes: their
    rows sum to one, those of `covariance` to zero.
    """

    outcome = "classes"
    mean_name = "probabilities"

    def __repr__(self) -> str:
        score = self.unmasked.score
        median = f", median score {np.median(score):.3g}" if len(score) else ""
        return f"Prediction({self._count}, {self.logits.shape[1]} classes{median})"

    @property
    def probabilities(self) -> Array:
        """Probability p of every class for every input `[N, C]`; rows sum to one."""
        return self.mean

    @cached_property
    def labels(self) -> Array:
        """The most probable class of every input `[N]`, as class numbers."""
        return np.asarray(np.argmax(self.logits, axis=1))

    def checked_truth(self, y: npt.ArrayLike) -> Array:
        """Labels as class numbers `[N]`, as `Estimate.checked_truth`."""
        n, n_classes = self.logits.shape
        truth = truth_of(y, self.masked)
        fits = truth.shape in ((n,), (n, 1), (n, n_classes))
        refuse_unless(fits, f"class numbers [{n}]", truth)
        of_two = n_classes == 2 and bool(np.all((truth >= 0) & (truth <= 1)))
        if truth.shape == (n, n_classes) and n_classes > 1:
            refuse_unless(bool(np.all(truth >= 0)), "weights >= 0 of the classes", truth)
        elif not of_two:  # where one number is the probability of the second
            check_class_numbers(truth, n_classes)
        return class_numbers(truth)

    @property
    def least_confidence(self) -> Array:
        """One minus the probability of the most probable class `[N]`."""
        return np.asarray(1 - self.probabilities.max(axis=1))

    def events(self, y: npt.ArrayLike | None = None) -> Events:
        """The predicted classes as events, one an input: each comes true where it is right.

        Args:
            y: the classes, as `checked_truth` takes them; None where they are not known.
        """
        n = np.arange(len(self))
        happened = None if y is None else np.asarray(self.labels == self.checked_truth(y))
        return Events(
            self.probabilities[n, self.labels],
            self.std[n, self.labels],
            happened,
            None if happened is None else ~happened,
            unit="input",
            subject="the predicted class",
            predicate="right",
        )

    def is_wrong(self, y: npt.ArrayLike) -> Array:
        """Whether the most probable class is another than the label `[N]`.

        Args:
            y: labels, as the likelihood's `check_labels` gives them.
        """
        return np.asarray(self.labels != self.checked_truth(y))

    @cached_property
    def entropy(self) -> Array:
        """Entropy of the predicted distribution in nats `[N]`: the spread of the labels.

        NaN where a prediction is masked, as is `mutual_information`.
        """
        return self._unless_masked(np.sum(scipy.special.entr(self.probabilities), axis=1))

    @cached_property
    def mutual_information(self) -> Array:
        """Information a label would bring about the weights, in nats `[N]`, to second order.

        (1/2) sum_c Var(p_c) / p_c = (1/2) trace(S Cov(z)), the second-order term of
        H(E p) - E H(p) (Smith and Gal 2018, arXiv 1803.08533, section 3), and at most the entropy:
        no label brings more than it holds. Where the two are equal the expansion has left its
        range, and standard errors are beyond what a probability can have.
        """
        p = self.probabilities
        second_order = 0.5 * np.sum(self.std**2 / np.where(p > 0, p, 1.0), axis=1)
        return np.minimum(second_order, self.entropy)

    def predictive(
        self, method: str = "probit", *, samples: int = SAMPLES, seed: int = 0
    ) -> AveragedProbabilities:
        """Average the probabilities over the distribution of the logits, E softmax(z + e).

        e is normal with the covariance `logit_covariance` = V as it stands: where eigenpairs were
        left out, at the tail that `std` takes. `std_bounds` and `std_range` are not carried over.

        Args:
            method: "probit" is softmax(z_c / sqrt(1 + (pi / 8) V_cc)) (Gibbs 1997), of the
                variances alone, though a number added to all logits changes it. "monte_carlo"
                draws with the full covariance, and has no error but that of sampling. "bridge" is
                the mean of the Dirichlet distribution that the Laplace bridge makes of the logits
                less their mean, M z and M V M with M = I - 1 1^T / C (Hobbhahn, Kristiadi and
                Hennig 2022, arXiv 2003.01227; the variance is not corrected): for three classes or
                more. It does not tend to softmax(z) where V becomes small.
            samples: of "monte_carlo", pairs of draws e and -e. The sampling error of 1,000 is at
                most a thirtieth of a probability's standard deviation, and comes beside it.
            seed: of "monte_carlo". All inputs share the draws: up to rounding an input's
                probabilities are the same whichever others are predicted with it, and the sampling
                errors of the inputs are not independent.

        Returns:
            Probabilities `[N, C]` whose rows sum to one. Time and memory of "monte_carlo" are
            N samples C^2, and 8 MiB a few times beside the result and two arrays `[N, C, C]`.

        Raises:
            InvalidInputError: a method that is none, or "bridge" of two classes.
            NumericalError: a covariance that is no covariance.
        """
        return average_softmax(self.logits, self.logit_covariance, method, samples, seed)

    def variance_split(self) -> VarianceSplit:
        """Divide the variance of each class's indicator by the law of total variance.

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
        return interval_of(self, *self._log_odds(), level, method)

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

    def to_frame(self, level: float = 0.95, predictive: str | None = None) -> pd.DataFrame:
        """A table with one row an input, in the manner of statsmodels' `summary_frame`.

        Columns: `label`, the most probable class, then its `probability`, `se`, `ci_lower` and
        `ci_upper`, `se_low` and `se_high` where there are `std_bounds`, `score`, `entropy`,
        `mutual_information`, and `probability_c`, `se_c` of every class c; with a method for
        `predictive`, such as "probit", then `predictive_c`, its average over the weights.
        """
        return super().to_frame(level, predictive)

    def _columns(self, level: float) -> dict[str, Array]:
        n, top = np.arange(len(self)), self.labels
        lower, upper = self.interval(level)
        columns: dict[str, Array] = {
            "label": top,
            "probability": self.probabilities[n, top],
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
            columns[f"probability_{c}"] = self.probabilities[:, c]
            columns[f"se_{c}"] = self.std[:, c]
        return columns

    def plot(self, y: Any = None, ax: Axes | None = None) -> Axes:
        """Draw the predicted class's probability against its standard error, one point an input.

        Args:
            y: labels: wrong predictions are drawn differently; None for none.
            ax: matplotlib axes; None makes a figure.
        """
        return self._draw("probability_against_error", y, ax=ax)

    def _log_odds(self) -> tuple[Array, Array]:
        """log(p_c / (1 - p_c)) and its standard error, `[N, C]` each, without dividing by zero.

        The gradient of class c's log odds in the logits is (e_c - p) / (1 - p_c), that is e_c - q
        with q the probabilities of the other classes given that it is none of c. The first form
        takes C^2 steps for all classes together; the second one is for the most probable class,
        the only one whose 1 - p_c can round to zero.
        """
        z, cov, p = self.logits, self.logit_covariance, self.probabilities
        n, top = np.arange(len(self)), self.labels
        along = np.einsum("ncd,nd->nc", cov, p)
        spread = np.einsum("ncc->nc", cov) - 2 * along + np.einsum("nc,nc->n", p, along)[:, None]
        rest = 1 - p
        rest[n, top] = 1.0
        odds = z - scipy.special.logsumexp(z, axis=1, keepdims=True) - np.log(rest)
        variance = spread / rest**2
        others = z.copy()
        others[n, top] = -np.inf
        odds[n, top] = z[n, top] - scipy.special.logsumexp(others, axis=1)
        gradient = -scipy.special.softmax(others, axis=1)
        gradient[n, top] = 1.0
        variance[n, top] = np.einsum("nc,nc->n", gradient, np.einsum("ncd,nd->nc", cov, gradient))
        return odds, np.sqrt(np.maximum(variance, 0.0))


@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class SomeClassesPrediction(Estimate):
    """Probabilities of k chosen classes out of many, with their exact covariance.

    Attributes:
        classes: the class that each column is about `[N, k]`; the most probable first where those
            were asked for.
        log_odds: log(p / (1 - p)) `[N, k]`.
        log_odds_std: their standard errors `[N, k]`.
    """

    classes: Int[np.ndarray, "N C"] = field(kw_only=True)
    log_odds: Float[np.ndarray, "N C"] = field(kw_only=True)
    log_odds_std: Float[np.ndarray, "N C"] = field(kw_only=True)

    def __repr__(self) -> str:
        return f"SomeClassesPrediction({self._count}, {self.logits.shape[1]} classes of many)"

    @property
    def probabilities(self) -> Array:
        """Probability p of every chosen class for every input `[N, k]`."""
        return self.mean

    def interval(
        self, level: float = 0.95, method: Literal["logit", "normal"] = "logit"
    ) -> tuple[Array, Array]:
        """Intervals (lower, upper) of the chosen classes' probabilities, each `[N, k]`.

        Args:
            level: in (0, 1).
            method: as for `Prediction.interval`.
        """
        return interval_of(self, self.log_odds, self.log_odds_std, level, method)

    def predictive(self, method: str = "probit", **options: int) -> NoReturn:
        """Refuse to average: a softmax takes the logits of all classes, and their covariance.

        Raises:
            InvalidInputError: always.
        """
        raise InvalidInputError(
            "some classes of many cannot be averaged over the weights",
            expected="the logits of all classes, with their covariance",
            received=f"those of {self.logits.shape[1]} classes an input",
            remedy="predict(x) without classes=... has all of them, of as many inputs as fit in "
            "memory",
        )

    def to_frame(self, level: float = 0.95, predictive: str | None = None) -> pd.DataFrame:
        """A table with one row for each input and class.

        Columns: `input`, `class`, `probability`, `se`, `ci_lower`, `ci_upper`, and `se_low`,
        `se_high` where there are `std_bounds`. There is nothing for `predictive`.
        """
        return super().to_frame(level, predictive)

    def _columns(self, level: float) -> dict[str, Array]:
        n, k = self.logits.shape
        lower, upper = self.interval(level)
        columns = {
            "input": np.repeat(np.arange(n), k),
            "class": self.classes.ravel(),
            "probability": self.mean.ravel(),
            "se": self.std.ravel(),
            "ci_lower": lower.ravel(),
            "ci_upper": upper.ravel(),
        }
        if self.std_limits is not None:
            columns["se_low"], columns["se_high"] = self.std_limits.reshape(-1, 2).T
        return columns


def interval_of(
    estimate: Estimate, log_odds: Array, log_odds_std: Array, level: float, method: str
) -> tuple[Array, Array]:
    """Intervals of probabilities at a confidence level, by their log odds or by themselves.

    Args:
        estimate: has the probabilities and their standard errors, `[N, C]`.
        log_odds: log(p / (1 - p)) `[N, C]`.
        log_odds_std: standard errors of the log odds, `[N, C]`.
        level: in (0, 1).
        method: "logit" or "normal", as for `Prediction.interval`.
    """
    check_choice("method", method, ("logit", "normal"))
    q = normal_quantile(level)
    if method == "normal":
        return estimate.mean - q * estimate.std, estimate.mean + q * estimate.std
    ends = (log_odds - q * log_odds_std, log_odds + q * log_odds_std)
    return scipy.special.expit(ends[0]), scipy.special.expit(ends[1])
