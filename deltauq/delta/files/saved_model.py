"""Predictions with standard errors as a SavedModel, which needs TensorFlow alone."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deltauq.curvature.calibrated_tail import LEAST_SHARE
from deltauq.curvature.parameter_covariance import ParameterCovariance
from deltauq.data.batch_reader import check_batch_size
from deltauq.delta.fitted import Fitted
from deltauq.errors import InvalidInputError, what_it_says
from deltauq.likelihoods import Likelihood
from deltauq.linalg import LowRank
from deltauq.network.graph import traced
from deltauq.network.jacobians import rows_by_example
from deltauq.prediction import PREDICTIONS, ROUNDING, normal_quantile
from deltauq.prediction.directions import AllOutputs, Shown
from deltauq.runtime.whole_files import folder_written_whole

__all__ = ["export_fit"]

Tensors = dict[str, tf.Tensor]


def export_fit(fitted: Fitted, path: Path, *, level: float, batch_size: int | None) -> None:
    """Write a SavedModel; see `DeltaMethod.export`.

    It is written beside its place and moved there once it is whole.
    """
    if os.path.exists(path):  # which takes names that are too long for those of nothing
        raise InvalidInputError(
            "the directory to export to exists already",
            expected="a path where nothing is",
            received=str(path),
            remedy="remove it, or choose another version's directory",
        )
    if not path.parent.is_dir():
        raise InvalidInputError(
            "the directory above the export does not exist",
            expected="an existing directory",
            received=str(path.parent),
            remedy="create it first, or name a place in one that exists",
        )
    rows = None if batch_size is None else check_batch_size(batch_size)
    served = _Served(fitted, level)
    names, specs = _named_inputs(fitted.problem.input_spec, rows)
    signatures = {
        "serving_default": _signature(served.everything, names, specs),
        "mean": _signature(served.mean_alone, names, specs),
    }
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    size = sum(variable.dtype.size * math.prod(variable.shape) for variable in served.variables)
    with folder_written_whole(path, size=size) as beside:
        try:
            tf.saved_model.save(served, str(beside), signatures, options)
        except tf.errors.OpError as error:
            raise OSError(what_it_says(error)) from error


class _Served(tf.Module):
    """A fit as functions of inputs, everything large in variables."""

    def __init__(self, fitted: Fitted, level: float) -> None:
        super().__init__()
        self._network = fitted.problem.network.in_variables()
        self._kept = tf.nest.flatten([self._network.params, *self._network.fixed_values()])
        self._tables = self._network.adapter.tables()
        self._vectors = tf.Variable(fitted.vectors, trainable=False)
        self._covariance = fitted.covariance
        self._likelihood = fitted.problem.likelihood
        self._directions = AllOutputs(self._likelihood)
        self._mask = fitted.problem.linearization.mask
        self._scale = fitted.problem.scale
        self._quantile = normal_quantile(level)
        self._mean_name = PREDICTIONS[self._likelihood.outcome].mean_name

    def mean_alone(self, x: Any) -> Tensors:
        """Probabilities, or the means of a regression, without their uncertainty."""
        logits = self._network.logits(self._network.unflatten(self._network.params), x)
        return {self._mean_name: self._directions.symbolic(logits).mean}

    def everything(self, x: Any) -> Tensors:
        """Means, standard errors with their bounds, intervals and scores."""
        pieces = [tf.identity(p) for p in self._network.unflatten(self._network.params)]
        logits = self._network.logits(pieces, x)
        shown = self._directions.symbolic(logits)
        along, rest = self._sketch(pieces, x, logits)
        covariance = self._covariance
        own = _with_own_tail(covariance, along, rest, shown.slope)
        middle = _form(covariance.spectrum, along, own) / covariance.n_examples
        std = _roots(shown.slope, middle)
        masked = self._masked(pieces, x, shown)
        score = tf.sqrt(tf.reduce_sum(tf.square(std), axis=1))
        found = {
            self._mean_name: shown.mean,
            "std": std,
            "score": tf.where(masked, tf.constant(np.nan, score.dtype), score),
            "masked": masked,
        } | self._interval(shown, middle, std)
        if covariance.bounds is not None:
            ends = [_form(end, along, rest) / covariance.n_examples for end in covariance.bounds]
            if not covariance.certified:
                ends.append(middle)
            roots = tf.stack([_roots(shown.slope, end) for end in ends])
            rounding = ROUNDING[self._network.dtype]
            low, high = (1.0, 1.0) if covariance.noise is None else covariance.noise.on_std
            most = tf.reduce_max(roots, axis=0) * (1.0 + rounding)
            found["std_low"] = tf.reduce_min(roots, axis=0) * ((1.0 - rounding) * low)
            found["std_high"] = tf.where(most > 0, tf.where(most > 0, most, 1.0) * high, most)
        return found

    def _masked(self, pieces: list[tf.Tensor], x: Any, shown: Shown) -> tf.Tensor:
        """Which predictions the mask on the model's output takes out, one row each."""
        if self._mask is None:
            return shown.masked
        return ~tf.reshape(self._mask.symbolic(self._network.output(pieces, x)), [-1])

    def _sketch(
        self, pieces: list[tf.Tensor], x: Any, logits: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """J D U `[B, R, K]` and the Gram matrix of what J D has outside U, `[B, R, R]`, float64.

        The part outside is formed itself: as a difference it might cancel.
        """
        cotangents = self._directions.cotangents(logits)
        parameters = self._network.parameters
        found = rows_by_example(self._network, pieces, x, cotangents, list(range(len(parameters))))
        rows = [found[i] * self._scale[p.start] for i, p in enumerate(parameters)]
        n_rows = cotangents.shape[1] // self._directions.positions
        flat = tf.reshape(tf.concat(rows, axis=2), [-1, self._network.n_params])
        inside = flat @ self._vectors
        outside = flat - tf.matmul(inside, self._vectors, transpose_b=True)
        along = tf.reshape(inside, [-1, n_rows, self._vectors.shape[1]])
        outside = tf.reshape(outside, [-1, n_rows, self._network.n_params])
        rest = tf.matmul(outside, outside, transpose_b=True)
        return tf.cast(along, tf.float64), tf.cast(rest, tf.float64)

    def _interval(self, shown: Shown, middle: tf.Tensor, std: tf.Tensor) -> Tensors:
        """Of the means, as the predictions' `interval` has it; of observations too."""
        form = _INTERVALS[self._likelihood.outcome]
        return form(self._likelihood, shown, middle, std, self._quantile)


def _interval_of_numbers(
    likelihood: Likelihood, shown: Shown, middle: tf.Tensor, std: tf.Tensor, q: float
) -> Tensors:
    """Normal intervals of means and of observations, q standard errors to both sides."""
    del middle
    wide = tf.sqrt(tf.square(std) + likelihood.observation_variance(shown.mean))
    return {
        "lower": shown.mean - q * std,
        "upper": shown.mean + q * std,
        "observation_lower": shown.mean - q * wide,
        "observation_upper": shown.mean + q * wide,
    }


def _interval_of_counts(
    likelihood: Likelihood, shown: Shown, middle: tf.Tensor, std: tf.Tensor, q: float
) -> Tensors:
    """Normal intervals of the log rates, as rates, and the standard errors of new counts.

    Quantiles of new counts take SciPy, and are left to `CountPrediction.interval`.
    """
    spread = q * _roots(shown.back, middle)
    variance = tf.square(std) + likelihood.observation_variance(shown.mean)
    return {
        "lower": tf.exp(shown.logits - spread),
        "upper": tf.exp(shown.logits + spread),
        "observation_std": tf.sqrt(variance),
    }


def _interval_of_labels(
    likelihood: Likelihood, shown: Shown, middle: tf.Tensor, std: tf.Tensor, q: float
) -> Tensors:
    """Normal intervals of the logits, as probabilities, and those averaged over the logits."""
    del likelihood, std
    of_logits = _roots(shown.back, middle)
    averaged = {"predictive": tf.sigmoid(_probit_logits(shown.logits, of_logits))}
    return _of_logits(shown.logits, q * of_logits) | averaged


def _interval_of_classes(
    likelihood: Likelihood, shown: Shown, middle: tf.Tensor, std: tf.Tensor, q: float
) -> Tensors:
    """Intervals by the log odds of each class against all others, and averaged probabilities."""
    del likelihood, std
    centre, of_logits = _log_odds(shown.logits)
    shrunk = _probit_logits(shown.logits, _roots(shown.back, middle))
    intervals = _of_logits(centre, q * _roots(of_logits @ shown.back, middle))
    return intervals | {"predictive": tf.nn.softmax(shrunk)}


def _probit_logits(logits: tf.Tensor, std: tf.Tensor) -> tf.Tensor:
    """Shrink logits as `deltauq.likelihoods.links.probit_logits` does, by operations of a graph."""
    return logits / tf.sqrt(1.0 + math.pi / 8 * tf.square(std))


def _of_logits(centre: tf.Tensor, spread: tf.Tensor) -> Tensors:
    return {"lower": tf.sigmoid(centre - spread), "upper": tf.sigmoid(centre + spread)}


#: How the means of every outcome get their intervals.
_INTERVALS = {
    "classes": _interval_of_classes,
    "labels": _interval_of_labels,
    "quantities": _interval_of_numbers,
    "counts": _interval_of_counts,
}


def _form(spectrum: LowRank, along: tf.Tensor, rest: tf.Tensor) -> tf.Tensor:
    """X (U W U^T + t (I - U U^T)) X^T, as `LowRank.quadratic_form`."""
    weights = tf.constant(spectrum.weights, tf.float64)
    weighted = along * weights if spectrum.weights.ndim == 1 else along @ weights
    return tf.matmul(weighted, along, transpose_b=True) + spectrum.tail * rest


def _with_own_tail(
    covariance: ParameterCovariance, along: tf.Tensor, rest: tf.Tensor, slope: tf.Tensor
) -> tf.Tensor:
    """What lies outside U, times the input's own tail over that of the spectrum.

    As `ParameterCovariance.project` has it.
    """
    by_share, spectrum = covariance.by_share, covariance.spectrum
    if by_share is None or not spectrum.tail > 0:
        return rest
    inside, outside = (
        tf.maximum(tf.reduce_sum((slope @ form) * slope, axis=2), 0.0)
        for form in (_form(LowRank(spectrum.weights, 0.0), along, rest), rest)
    )
    whole = inside + outside
    counted = whole > 0
    shares = tf.where(counted, outside / tf.where(counted, whole, 1.0), 0.0)
    count = tf.reduce_sum(tf.cast(counted, rest.dtype), axis=1)
    share = tf.reduce_sum(shares, axis=1) / tf.maximum(count, 1.0)
    share = tf.clip_by_value(share, LEAST_SHARE, 1.0 - LEAST_SHARE)
    logit = tf.math.log(share) - tf.math.log1p(-share)
    tail = by_share.least + (1.0 - by_share.least) * tf.sigmoid(by_share.offset + logit / 2)
    ratio = tf.where(count > 0, tail / spectrum.tail, tf.ones_like(tail))
    return ratio[:, None, None] * rest


def _roots(left: tf.Tensor, middle: tf.Tensor) -> tf.Tensor:
    """The roots of the diagonal of L M L^T."""
    variance = tf.reduce_sum((left @ middle) * left, axis=2)
    return tf.sqrt(tf.maximum(variance, 0.0))


def _log_odds(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """log(p_c / (1 - p_c)) `[B, C]` and its derivative in the logits `[B, C, C]`."""
    own = tf.eye(logits.shape[1], dtype=logits.dtype)
    others = tf.where(own > 0, tf.constant(-np.inf, logits.dtype), logits[:, None, :])
    return logits - tf.reduce_logsumexp(others, axis=2), own - tf.nn.softmax(others)


def _named_inputs(spec: Any, rows: int | None) -> tuple[Any, dict[str, tf.TensorSpec]]:
    """The inputs' structure with a name in place of each, and the names' specs."""
    if isinstance(spec, dict):
        names: Any = {key: str(key) for key in spec}
    elif isinstance(spec, list):
        names = [f"x_{k}" for k in range(len(spec))]
    else:
        names = "x"
    specs = {
        name: tf.TensorSpec([rows, *leaf.shape[1:]], leaf.dtype, name)
        for name, leaf in zip(tf.nest.flatten(names), tf.nest.flatten(spec), strict=True)
    }
    return names, specs


def _signature(function: Any, names: Any, specs: dict[str, tf.TensorSpec]) -> Any:
    def of_named(**inputs: tf.Tensor) -> Tensors:
        return function(tf.nest.map_structure(lambda name: inputs[name], names))

    return traced(of_named, **specs)
