"""scikit-learn's own checks of estimators. Nothing is expected to fail."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from tiny_estimators import classifier, regressor


@parametrize_with_checks([classifier(hidden_units=()), regressor(hidden_units=())])
# Data of the checks are neither scaled nor many: what we warn of there is true, and not asked.
@pytest.mark.filterwarnings("ignore::deltauq.errors.ConvergenceWarning")
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)
