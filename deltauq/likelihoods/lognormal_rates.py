"""Counts of a Poisson distribution whose log rate is normal: their probabilities and quantiles.

A trained network knows a log rate up to a normal error, so that a new count comes from a mixture of
Poisson distributions, the Poisson-lognormal one. It has no closed form: these are integrals over
the log rate of SciPy's Poisson distribution, by Gauss and Legendre's rule over the range in which
the integrand is neither negligible nor constant, so that no step of it falls between two nodes.
They are right to 1e-5 or better, whatever the rate and its error.
"""

from __future__ import annotations

import numpy as np
import scipy.special
import scipy.stats

from deltauq.likelihoods.likelihood import Array

__all__ = ["count_quantile", "log_probability"]

#: Nodes of the rule, and their weights, on [-1, 1].
_NODES, _WEIGHTS = scipy.special.roots_legendre(24)

#: Standard deviations beyond which a normal distribution has nothing, and the probability so small.
_FAR = 8.0
_NOTHING = 1e-13

#: An integrand of e^-30 of its largest value is negligible.
_NEGLIGIBLE = 30.0

#: Counts whose quantiles are sought at a time, for what the nodes take in memory.
_AT_ONCE = 2**15

#: A rate beyond which its counts are within 1e-7 of it.
_HUGE = 1e15


def log_probability(count: Array, log_rate: Array, variance: Array) -> Array:
    """Log of the probability of counts, log E Poisson(y; e^z) with z normal, in nats.

    Args:
        count: y, whole numbers >= 0, of any shape.
        log_rate: the mean of z, in that shape.
        variance: of z, >= 0, in that shape.
    """
    count, log_rate, variance = (np.asarray(x, np.float64) for x in (count, log_rate, variance))
    spread = np.sqrt(variance)

    def log_integrand(x: Array, y: Array, mean: Array, std: Array) -> Array:
        """Logs of Poisson(y; e^z) and normal(x), summed, at z = mean + std x, of terms with x."""
        z = mean + std * x
        with np.errstate(over="ignore"):
            return np.asarray(y * z - np.exp(z) - x**2 / 2)

    # The largest is where std (y - e^z) = x. With w = std^2 e^z that is w + log w = log std^2 +
    # mean + std^2 y, which Wright's omega function solves.
    with np.errstate(divide="ignore", invalid="ignore"):
        omega = scipy.special.wrightomega(np.log(variance) + log_rate + variance * count)
        rate = np.where(variance > 0, omega / variance, np.exp(log_rate))
        # The two forms are equal; each is exact where the other one cancels.
        top = np.where(omega > 1, (np.log(rate) - log_rate) / spread, spread * (count - rate))
    parts = count, log_rate, spread
    largest = log_integrand(top, *parts)
    # It is log-concave, and the more curved the larger x is: to the right it falls off at once.
    width = np.sqrt(2 * _NEGLIGIBLE / (1.0 + omega))
    left = width.copy()
    while np.any(short := largest - log_integrand(top - left, *parts) < _NEGLIGIBLE):
        left = np.where(short, 2 * left, left)
    integral = np.zeros_like(top)
    for reach in (-left, width):
        x = top[..., None] + reach[..., None] * (1 + _NODES) / 2
        each = log_integrand(x, *(part[..., None] for part in parts)) - largest[..., None]
        integral += np.abs(reach) / 2 * (np.exp(each) @ _WEIGHTS)
    of_normal = np.log(2 * np.pi) / 2
    return np.asarray(largest + np.log(integral) - of_normal - scipy.special.gammaln(count + 1))


def count_quantile(share: float, log_rate: Array, std: Array) -> Array:
    """The smallest count that is not exceeded with a probability of at least `share`.

    Whole numbers, as floats. Beyond 1e15, where a count is within 1e-7 of its rate, it is the
    quantile of the rate, infinite where a float ends.

    Args:
        share: in (0, 1).
        log_rate: the mean of the log rate z, of any shape.
        std: its standard deviation, >= 0, in that shape.
    """
    log_rate, std = np.asarray(log_rate, np.float64), np.asarray(std, np.float64)
    found = np.empty(log_rate.size)
    for start in range(0, log_rate.size, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        found[some] = _quantiles(share, log_rate.ravel()[some], std.ravel()[some])
    return found.reshape(log_rate.shape)


def _quantiles(share: float, log_rate: Array, std: Array) -> Array:
    """Quantiles `[n]` by bisection over the counts."""
    low, high = _between(share, log_rate, std)
    beyond = _probability_up_to(high, log_rate, std) < share
    low = np.where(beyond, high - 1.0, low)
    while np.any(high - low > 1.0):
        # Counts of several orders of magnitude are halved by their logarithm first.
        far = high > 4 * (low + 2)
        middle = np.floor(np.where(far, np.sqrt((low + 2) * high), (low + high) / 2))
        enough = _probability_up_to(middle, log_rate, std) >= share
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    with np.errstate(over="ignore"):
        of_rate = np.exp(log_rate + std * scipy.stats.norm.ppf(share))
    return np.where(beyond, of_rate, high)


def _between(share: float, log_rate: Array, std: Array) -> tuple[Array, Array]:
    """Counts (low, high) with low < quantile <= high, as far as that is not beyond `_HUGE`.

    A count exceeds n only where its rate is large, or where it is large for its rate: half of the
    probability that is left is granted to each.
    """
    below, above = share / 2, (1.0 - share) / 2
    with np.errstate(over="ignore"):
        small = np.exp(log_rate + std * scipy.stats.norm.ppf(below))
        large = np.exp(log_rate + std * scipy.stats.norm.isf(above))
    low = scipy.stats.poisson.ppf(below, np.minimum(small, _HUGE)) - 2.0
    high = scipy.stats.poisson.isf(above, np.minimum(large, _HUGE)) + 1.0
    return np.maximum(low, -1.0), high


def _probability_up_to(count: Array, log_rate: Array, std: Array) -> Array:
    """The probability `[n]` of at most so many counts, E P(y <= n; e^z) with z normal.

    P(y <= n; rate) falls from one to zero as the rate grows, where a gamma distribution of shape
    n + 1 has its mass. Before that it is one, and after it zero.
    """
    with np.errstate(divide="ignore"):
        from_rate = np.log(scipy.special.gammaincinv(count + 1, _NOTHING))
        to_rate = np.log(scipy.special.gammainccinv(count + 1, _NOTHING))
        ends = [(z - log_rate) / std for z in (from_rate, to_rate)]
    start, stop = (np.clip(np.nan_to_num(end, nan=0.0), -_FAR, _FAR) for end in ends)
    half = (stop - start) / 2
    x = ((start + stop) / 2)[:, None] + half[:, None] * _NODES
    with np.errstate(over="ignore"):
        rate = np.exp(log_rate[:, None] + std[:, None] * x)
    falling = scipy.special.pdtr(count[:, None], rate) * scipy.stats.norm.pdf(x)
    return np.asarray(scipy.stats.norm.cdf(start) + half * (falling @ _WEIGHTS))
