"""Predictions with their epistemic uncertainty, and how a parameter covariance becomes theirs."""

from deltauq.likelihoods.class_numbers import class_numbers
from deltauq.prediction.classes import (
    DifferenceTest,
    Prediction,
    SomeClassesPrediction,
    VarianceSplit,
)
from deltauq.prediction.counts import CountPrediction
from deltauq.prediction.estimate import Estimate, join, normal_quantile
from deltauq.prediction.events import Events
from deltauq.prediction.forms import ROUNDING
from deltauq.prediction.labels import MultiLabelPrediction
from deltauq.prediction.predictive import AveragedProbabilities, PredictiveMoments
from deltauq.prediction.propagation import (
    PREDICTIONS,
    assemble,
    predict,
    predict_some,
    prediction_memory,
)
from deltauq.prediction.quantities import RegressionPrediction

__all__ = [
    "PREDICTIONS",
    "ROUNDING",
    "AveragedProbabilities",
    "CountPrediction",
    "DifferenceTest",
    "Estimate",
    "Events",
    "MultiLabelPrediction",
    "Prediction",
    "PredictiveMoments",
    "RegressionPrediction",
    "SomeClassesPrediction",
    "VarianceSplit",
    "assemble",
    "class_numbers",
    "join",
    "normal_quantile",
    "predict",
    "predict_some",
    "prediction_memory",
]
