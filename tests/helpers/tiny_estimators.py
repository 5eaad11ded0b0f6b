"""Estimators that train in no time, for checks that fit them many times."""

from __future__ import annotations

from deltauq import DeltaClassifier, DeltaRegressor

TINY = {
    "hidden_units": (4,),
    "l2": 0.1,
    "rank": "full",
    "bounds": False,
    "epochs": 0,  # L-BFGS on all examples alone, so that their order does not matter
    "progress": False,
}


def classifier(**options):
    return DeltaClassifier(**TINY | options)


def regressor(**options):
    return DeltaRegressor(**TINY | options)
