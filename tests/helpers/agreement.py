"""Any model with data: what the package says of it beside its dense truth by `eager.py`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from eager import (
    Eager,
    binary_cross_entropy,
    covariances,
    cross_entropy,
    probabilities_to_logits,
    shares_to_logits,
    sigmoid_mean,
    softmax_mean,
    squares,
    two_classes,
)

from deltauq import DeltaMethod, curvature
from deltauq.likelihoods import Categorical, Gaussian

#: Label smoothing, and the variances of a regression's two outputs.
SMOOTHING, NOISE = 0.2, np.array([0.5, 1.5])


@contextmanager
def precision(dtype):
    """Layers and inputs made inside have this dtype, as if each had been given it."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)  # made of the floatx when it is first asked for, and kept
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


@dataclass(frozen=True)
class Outcome:
    """What a model's outputs are, and how that is written down.

    Attributes:
        n_outputs: C.
        loss: of one input's logits and label.
        mean: of one input's logits.
        draw: a generator, n -> labels.
        likelihood: as `DeltaMethod` takes it.
        target: labels -> what `loss` takes.
        link: at the end of the model, or None.
        contrasts: a constant added to the logits changes nothing.
        rate_factor: Keras' loss is a mean where a likelihood is a sum: L2 counts so many times.
    """

    n_outputs: int
    loss: Callable[..., Any]
    mean: Callable[..., Any]
    draw: Callable[..., Any]
    likelihood: Any = "auto"
    target: Callable[..., Any] = lambda y: y
    link: str | None = None
    contrasts: bool = False
    rate_factor: float = 1.0

    @property
    def to_logits(self):
        """Of the model's output."""
        inverse = {"softmax": probabilities_to_logits, "sigmoid": shares_to_logits}
        return inverse.get(self.link, tf.identity)


def _classes(rng, n):
    return rng.integers(0, 3, n)


def _categorical(**options):
    start = {"loss": cross_entropy, "mean": softmax_mean, "draw": _classes, "contrasts": True}
    return Outcome(3, **(start | options))


def _smoothed(y):
    return (1 - SMOOTHING) * np.eye(3)[y] + SMOOTHING / 3


def _labels(rng, n):
    return rng.integers(0, 2, (n, 3))


_BINARY = {
    "n_outputs": 1,
    "loss": binary_cross_entropy,
    "mean": two_classes,
    "draw": lambda rng, n: rng.integers(0, 2, n),
}
_SEVERAL = {
    "n_outputs": 3,
    "loss": binary_cross_entropy,
    "mean": sigmoid_mean,
    "draw": _labels,
    "rate_factor": 3,
}

OUTCOMES = {
    "logits": _categorical(),
    "softmax": _categorical(link="softmax"),
    "soft labels": _categorical(draw=lambda rng, n: rng.dirichlet(np.ones(3), n)),
    "label smoothing": _categorical(
        likelihood=Categorical(label_smoothing=SMOOTHING), target=_smoothed
    ),
    "binary": Outcome(**_BINARY, link="sigmoid"),
    "binary logit": Outcome(**_BINARY, likelihood="binary"),
    "labels": Outcome(**_SEVERAL, link="sigmoid"),
    "label logits": Outcome(**_SEVERAL, likelihood="multilabel"),
    "regression": Outcome(
        2,
        loss=squares(NOISE),
        mean=lambda z: z,
        draw=lambda rng, n: rng.normal(size=(n, 2)),
        likelihood=Gaussian(noise=NOISE),
        rate_factor=2 / (2 * NOISE.mean()),
    ),
}


@dataclass(frozen=True)
class Matter:
    """A model with data and L2.

    Attributes:
        model: the model.
        x: inputs, an array or a nest of them, `[N, ...]`.
        y: labels as `DeltaMethod` takes them.
        weight: `[N]`, or `[N, ...]` of every prediction an input makes.
        weights: what they are, "counts" or "importance".
        class_weight: class number -> importance, of labels that are class numbers; or None.
        valid: of every prediction, False where a Keras mask takes it out; or None.
        outcome: what the outputs are.
        l2: as `DeltaMethod` takes it.
        rates: what that is, of every parameter, or one.
        batch_size: of the package.
        twin: the same model in float64 for the truth, where the model itself is in float32.
    """

    model: Any
    x: Any
    y: np.ndarray
    weight: np.ndarray
    outcome: Outcome
    l2: Any = 0.2
    rates: Any = 0.2
    batch_size: int = 3
    twin: Any = None
    weights: str = "counts"
    class_weight: dict[int, float] | None = None
    valid: np.ndarray | None = None

    @cached_property
    def counts(self):
        """How often every prediction was observed, `[N ...]`."""
        seen = self.weight if self.weights == "counts" else self.weight > 0
        return (seen * (1 if self.valid is None else self.valid)).ravel()

    @cached_property
    def importance(self):
        """Of every prediction, `[N ...]`."""
        own = np.where(self.weights == "counts", 1.0, self.weight.ravel())
        factors = [(self.class_weight or {}).get(label, 1.0) for label in self.y.ravel()]
        return own * (factors if self.class_weight else 1.0)

    @property
    def n_examples(self):
        """N."""
        return self.counts.sum()

    @cached_property
    def truth(self):
        """By eager differentiation, each position of each input apart."""
        model, x, y = self.twin or self.model, self.x, self.outcome.target(self.y)
        variables = model.trainable_variables
        if self.twin is not None:
            x = tf.nest.map_structure(_wide, x)
        if self.weight.ndim > 1:
            x, y, model = _apart(model, x, y, self.weight.shape)
        return Truth(
            Eager(
                model,
                x,
                y,
                self.outcome.loss,
                self.counts * self.importance,
                to_logits=self.outcome.to_logits,
                variables=variables,
                n_examples=self.n_examples,
            ),
            self,
        )

    def fit(self, kind="ggn", **options):
        """The package's, in full rank."""
        options = {
            "rank": "full",
            "l2": self.l2,
            "likelihood": self.outcome.likelihood,
            "batch_size": self.batch_size,
            "weights": self.weights,
            "progress": False,
        } | options
        weight = None if np.all(self.weight == 1) else self.weight
        dm = DeltaMethod(self.model, kind, **options)
        return dm.fit(self.x, self.y, weight, class_weight=self.class_weight)

    def contrasts(self, values):
        """Logits, or J, `[N, C, ...]`: of a softmax what does not change with a common constant."""
        return values - values.mean(axis=1, keepdims=True) if self.outcome.contrasts else values


@dataclass(frozen=True)
class Truth:
    """Dense; made once."""

    eager: Eager
    matter: Matter

    @cached_property
    def logits_and_jacobian(self):
        return self.eager.jacobian()

    @cached_property
    def gradients(self):
        return self.eager.gradients()

    @cached_property
    def opg(self):
        return self.eager.opg(self.gradients)

    @cached_property
    def meat(self):
        return self.eager.meat(self.matter.importance, self.gradients)

    @cached_property
    def ggn(self):
        return self.eager.ggn(self.logits_and_jacobian)

    @cached_property
    def covariance(self):
        """Of the means, with the GGN, `[N, M, M]`."""
        return self.covariance_from(self.ggn)

    def covariance_from(self, curvature):
        """Of the means, with a curvature `[P, P]`: `[N, M, M]`."""
        logits, jacobian = self.logits_and_jacobian
        matter = self.matter
        rates = matter.rates * matter.outcome.rate_factor
        total = matter.n_examples
        return covariances(curvature, rates, total, jacobian, logits, matter.outcome.mean)[1]

    def hessian_times(self, vector, step=1e-4):
        """By central differences with two steps, whose errors of order h^2 cancel."""
        fine, coarse = (self.eager.hessian_times(vector, h) for h in (step, 2 * step))
        return (4 * fine - coarse) / 3

    def hessian_times_beside_kinks(self, vector):
        """The same in float64, with steps that reach over no kink, such as that of elu's slope.

        A difference that does is worth nothing, and shows: the shorter step gives another one.
        """
        for step in (1e-4, 1e-5, 1e-6):
            fine, coarse = (self.eager.hessian_times(vector, h) for h in (step, 2 * step))
            if np.max(np.abs(fine - coarse)) <= 1e-6 * np.max(np.abs(fine)):
                return (4 * fine - coarse) / 3
        raise AssertionError("a kink is at the weights: the second derivative has no value there")


@dataclass(frozen=True)
class Found:
    """What the package says."""

    matter: Matter
    fitted: DeltaMethod = field(repr=False)

    @property
    def _problem(self):
        return self.fitted._fitted.problem

    def operator(self, kind):
        """A curvature on the fitted data."""
        problem = self._problem
        options = {} if kind == "Hessian" else {"per_example": problem.per_example}
        make = getattr(curvature, kind)
        return make(problem.network, problem.likelihood, problem.data, **options)

    @property
    def curvature(self):
        """The fitted one `[P, P]`, of which all eigenpairs were kept."""
        pairs, scale = self.fitted._fitted.prior_pairs, self._problem.scale
        return (pairs.vectors * pairs.values) @ pairs.vectors.T / np.outer(scale, scale)

    @cached_property
    def prediction(self):
        return self.fitted.predict(self.matter.x)

    @cached_property
    def logits_and_jacobian(self):
        """Of the network's own logits."""
        linearization = self._problem.linearization
        batches = [linearization.rows(batch.x) for batch in self._problem.data]
        own = slice(-self.matter.outcome.n_outputs, None)  # of two classes the second has the logit
        jacobian = np.concatenate([b.shown.back[:, own] @ b.values for b in batches])
        return self.prediction.logits[:, own], jacobian / self._problem.scale


def assert_close(found, truth, tolerance):
    """Relative to the largest entry."""
    found, truth = np.asarray(found), np.asarray(truth)
    assert found.shape == truth.shape
    gap = np.max(np.abs(found - truth)) / np.max(np.abs(truth))
    assert gap <= tolerance, f"relative gap {gap:.2e} over {tolerance:.0e}"


def _wide(leaf):
    return leaf.astype("float64") if leaf.dtype.kind == "f" else leaf


def _apart(model, x, y, shape):
    """Every position as an input of its own: copies of the inputs, each with its position."""
    n, positions = shape[0], int(np.prod(shape[1:]))
    copies = tf.nest.map_structure(lambda leaf: np.repeat(leaf, positions, axis=0), x)
    place = np.tile(np.arange(positions), n)

    def at(inputs):
        one, where = inputs
        output = model(one)
        rows = tf.reshape(output, [len(output), positions, -1])
        return tf.gather(rows, where, batch_dims=1)

    return [copies, place], y.reshape(n * positions, *y.shape[len(shape) :]), at
