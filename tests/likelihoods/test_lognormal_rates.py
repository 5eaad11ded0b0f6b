"""Counts whose log rate is normal: against sums over a fine grid, SciPy's Poisson, and draws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from marks import wide

from deltauq.likelihoods.lognormal_rates import count_quantile, log_probability

#: Rates from nearly none to thousands, and errors from none to hopeless: log rate, its error, y.
CASES = [
    (-5.0, 0.3, 0),
    (0.5, 1e-6, 2),
    (1.0, 0.2, 7),
    (0.0, 3.0, 0),
    (2.6, 3.0, 2),
    (7.0, 0.05, 1200),
    (8.0, 1.5, 40),
    (10.0, 0.001, 22000),
    (2.0, 9.0, 538),
]
Z, STD, Y = (np.array(column) for column in zip(*CASES, strict=True))
GRID = np.linspace(-10, 10, 400_001)


def on_grid(log_values):
    """Log of the normal mean of functions that are given on the grid."""
    return scipy.special.logsumexp(log_values + scipy.stats.norm.logpdf(GRID)) + np.log(
        GRID[1] - GRID[0]
    )


@pytest.mark.parametrize(("z", "std", "y"), CASES)
def test_log_probabilities_are_those_of_the_mixture(z, std, y):
    truth = on_grid(scipy.stats.poisson.logpmf(y, np.exp(z + std * GRID)))
    assert log_probability(y, z, std**2) == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("share", [wide(0.025), wide(0.5), 0.975])
@pytest.mark.parametrize(("z", "std"), list(zip(Z, STD, strict=True)))
def test_a_quantile_is_the_first_count_that_is_reached_with_its_probability(z, std, share):
    rate, count = np.exp(z + std * GRID), count_quantile(share, z, std)
    with np.errstate(divide="ignore"):  # no count is below zero
        upto, before = (
            np.exp(on_grid(scipy.stats.poisson.logcdf(n, rate))) for n in (count, count - 1)
        )
    assert before - 1e-5 < share <= upto + 1e-5
    assert count == np.floor(count) >= 0


def test_probabilities_sum_to_one():
    total = np.sum(np.exp(log_probability(np.arange(2000), np.full(2000, 2.0), 0.25)))
    assert total == pytest.approx(1.0, abs=1e-8)


def test_a_rate_that_is_known_has_the_poisson_distribution():
    np.testing.assert_allclose(
        log_probability(Y, Z, np.zeros(len(Z))), scipy.stats.poisson.logpmf(Y, np.exp(Z)), rtol=1e-9
    )
    for share in (0.01, 0.9):
        np.testing.assert_array_equal(
            count_quantile(share, Z, np.zeros(len(Z))), scipy.stats.poisson.ppf(share, np.exp(Z))
        )


@pytest.mark.wide  # the quantiles themselves: the tests before
def test_draws_lie_within_the_quantiles_as_often_as_they_say():
    rng = np.random.default_rng(0)
    z, std = rng.normal(2.0, 1.0, 40_000), rng.uniform(0.05, 0.8, 40_000)
    draws = rng.poisson(np.exp(z + std * rng.normal(size=z.shape)))
    low, high = count_quantile(0.05, z, std), count_quantile(0.95, z, std)
    assert np.mean(draws <= high) >= 0.95 - 4 * np.sqrt(0.05 * 0.95 / len(z))
    assert np.mean(draws < low) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / len(z))
    assert np.mean(draws < high) < 0.95 + 4 * np.sqrt(0.05 * 0.95 / len(z))


def test_where_floats_end_quantiles_are_those_of_the_rate_or_infinite():
    z, std = np.array([0.0, 800.0, -800.0, 300.0]), np.array([500.0, 1.0, 1.0, 100.0])
    np.testing.assert_array_equal(count_quantile(0.975, z, std)[:3], [np.inf, np.inf, 0.0])
    np.testing.assert_array_equal(count_quantile(0.025, z, std)[:3], [0.0, np.inf, 0.0])
    of_rate = np.exp(300 + 100 * scipy.stats.norm.ppf(0.025))
    assert count_quantile(0.025, z, std)[3] == pytest.approx(of_rate)
