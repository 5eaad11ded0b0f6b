"""Random regressions whose noise is estimated, most in low rank, beside their truth in row space.

With R the rows of J of all observations, each times the root of what it counts, and Lambda the L2
rates beside half the sum of squares, the inverse of R^T R / N + Lambda is that of an [N C, N C]
matrix (Woodbury): the truth costs little for any P. Nothing of the package is used for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from agreement import precision

from deltauq import DeltaMethod
from deltauq.errors import InvalidInputError

#: Share of the observations below which nothing is left to estimate a noise from.
LEAST_FREEDOM = 1e-3

#: Rounding of a float32 model beside its float64 truth, of what is bounded.
ROUNDING = {"float64": 1e-7, "float32": 1e-3}


@dataclass(frozen=True)
class RandomRegression:
    """A regression by mean squared error, its data and the options."""

    units: int
    n_outputs: int
    n: int
    weights: str
    rate: float
    rank: int | str
    curvature: str
    dtype: str
    seed: int

    def compare(self) -> bool:
        """Whether there was a covariance to compare."""
        matter = Matter(self)
        truth = Truth(matter)
        left = truth.n_examples - truth.gamma / self.n_outputs
        try:
            dm = matter.fit()
        except InvalidInputError as error:
            if "noise cannot be estimated" not in str(error) or left > truth.least_freedom:
                raise
            return False
        prediction = dm.predict(matter.x)
        low, high = prediction.std_bounds
        slack = ROUNDING[self.dtype]
        assert np.all(low <= prediction.std * (1 + slack))
        assert np.all(prediction.std <= high * (1 + slack))
        assert np.all(np.isfinite(prediction.std))
        if prediction.certified:
            assert np.all(low <= truth.std * (1 + slack)), np.max(low / truth.std)
            assert np.all(truth.std <= high * (1 + slack)), np.max(truth.std / high)
        return True


def random_regression(rng: np.random.Generator) -> RandomRegression:
    """Any of them."""
    n_outputs = int(rng.integers(1, 3))
    wide = rng.random() < 0.7  # P > 3,000, which no dense fit takes by itself
    return RandomRegression(
        units=int(rng.integers(50, 60) if wide else rng.integers(3, 12)),
        n_outputs=n_outputs,
        n=int(rng.integers(20, 80)),
        weights=str(rng.choice(["none", "counts", "importance"])),
        rate=float(10 ** rng.uniform(-3, 0)),
        rank=[int(rng.integers(5, 30)), "auto"][int(rng.integers(2))],
        curvature="ggn" if n_outputs > 1 else str(rng.choice(["ggn", "opg"])),
        dtype=str(rng.choice(["float64", "float32"])),
        seed=int(rng.integers(2**16)),
    )


class Matter:
    """The model of a `RandomRegression`, trained a little, with its data."""

    def __init__(self, spec: RandomRegression) -> None:
        self.spec = spec
        rng = np.random.default_rng(spec.seed)
        keras.utils.set_random_seed(spec.seed)
        n = spec.n
        self.x = rng.normal(size=(n, 4)).astype(spec.dtype)
        signal = np.stack([self.x[:, 0] + self.x[:, 1] ** 2, np.sin(self.x[:, 2])], 1)
        noise = rng.uniform(0.1, 1.5, 2) * rng.normal(size=(n, 2))
        self.y = (signal + noise)[:, : spec.n_outputs]
        self.counts, self.importance = np.ones(n), np.ones(n)
        if spec.weights == "counts":
            self.counts = rng.integers(1, 4, n).astype(float)
        elif spec.weights == "importance":
            self.importance = rng.uniform(0.3, 2, n)
        self.weight = self.counts * self.importance
        self.model = self._build(spec.dtype)
        self.model.fit(
            self.x, self.y, sample_weight=self.weight, epochs=10, batch_size=16, verbose=0
        )

    def _build(self, dtype: str) -> Any:
        with precision(dtype):
            dense = keras.layers.Dense
            layers = [keras.Input((4,), dtype=dtype), dense(self.spec.units, "tanh")]
            layers += [dense(self.spec.units, "tanh"), dense(self.spec.n_outputs)]
            model = keras.Sequential(layers)
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    def fit(self) -> DeltaMethod:
        """As a user would."""
        spec = self.spec
        return DeltaMethod(
            self.model, spec.curvature, rank=spec.rank, l2=spec.rate, progress=False
        ).fit(self.x, self.y, None if spec.weights == "none" else self.weight)


class Truth:
    """Noise and standard errors of the outputs, dense in row space."""

    def __init__(self, matter: Matter) -> None:
        weights = [w.astype("float64") for w in matter.model.get_weights()]
        rows, outputs = _rows(weights, matter.x.astype("float64"))
        residuals = matter.y - outputs
        n, n_outputs, _ = rows.shape
        self.n_examples = float(matter.counts.sum())
        rate = matter.spec.rate * n_outputs / 2  # Keras' mse is 2 / C times half the squares
        weighted = np.sqrt(matter.weight)[:, None, None] * rows
        self.least_freedom = 2 * LEAST_FREEDOM * self.n_examples
        squares = matter.weight @ residuals**2
        if matter.spec.curvature == "opg":
            # sum_n w r^2 j j^T / s^4 + N lambda / s^2, times s^4: gamma depends on the mean square,
            # by which the noise is estimated first.
            weighted = weighted * residuals[:, :, None]
            rate = rate * squares[0] / self.n_examples
        flat = weighted.reshape(n * n_outputs, -1)
        kernel = flat @ flat.T / rate
        self.gamma = float(
            np.trace(np.linalg.solve(kernel + self.n_examples * np.eye(len(kernel)), kernel))
        )
        noise = squares / (self.n_examples - self.gamma / n_outputs)
        mean = float(noise.mean())
        if matter.spec.curvature == "opg":
            rate = matter.spec.rate * n_outputs / 2 * mean
            noise_of_bread, kernel = mean**2, flat @ flat.T / rate
        else:
            noise_of_bread = mean
        ahead = rows.reshape(n * n_outputs, -1)
        solved = np.linalg.solve(
            kernel + self.n_examples * np.eye(len(kernel)), flat @ ahead.T / rate
        )
        inverse = (ahead.T - flat.T @ solved) / rate  # bread^-1 of every row
        if n_outputs == 1:
            variance = noise_of_bread * np.sum(ahead.T * inverse, axis=0) / self.n_examples
        else:  # outputs of unequal noise: what the pooled squares minimise is a sandwich
            shares = np.tile(noise / mean, n)[:, None]
            along = flat @ inverse
            meat = np.sum(shares * along**2, axis=0) / self.n_examples
            # L2 counts in the meat as far as the least noise goes: in full it would drown the quiet
            # output.
            meat += rate * float(np.min(noise) / mean) * np.sum(inverse**2, axis=0)
            variance = mean * meat / self.n_examples
        self.std = np.sqrt(variance).reshape(n, n_outputs)


def _rows(weights: list[Any], x: Any) -> tuple[Any, Any]:
    """J `[N, C, P]` and the outputs `[N, C]` of two tanh layers and a linear one."""
    first, first_bias, second, second_bias, last, last_bias = weights
    hidden = np.tanh(x @ first + first_bias)
    deeper = np.tanh(hidden @ second + second_bias)
    n, n_outputs = len(x), len(last_bias)
    rows = []
    for c in range(n_outputs):
        unit = np.tile(np.eye(n_outputs)[c], (n, 1))
        of_deeper = last[:, c] * (1 - deeper**2)
        of_hidden = (of_deeper @ second.T) * (1 - hidden**2)
        ends = [(x, of_hidden), (hidden, of_deeper), (deeper, unit)]
        parts = [(a[:, :, None] * b[:, None, :], b) for a, b in ends]
        rows.append(np.concatenate([np.reshape(p, (n, -1)) for pair in parts for p in pair], 1))
    return np.stack(rows, 1), deeper @ last + last_bias
