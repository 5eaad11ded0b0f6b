"""Plots of predictions, comparisons and spectra with matplotlib.

Every function draws on the axes it is given, or on a figure of its own that needs no display (a
notebook shows it), and returns the axes; arguments that do not fit the prediction raise
`InvalidInputError`. Predictions that are masked are left out, with what stands beside them. No
global state of matplotlib is changed. Colours are Okabe and Ito's, told apart by colour-blind
readers; marker or line style differs as well, for print in grey.
"""

from deltauq.plots.calibration import reliability, risk_coverage
from deltauq.plots.comparisons import comparison
from deltauq.plots.predictions import class_bars, gallery, probability_against_error
from deltauq.plots.quantities import mean_against_error, regression_band
from deltauq.plots.regions import decision_regions
from deltauq.plots.spectra import rank_curve, spectrum

__all__ = [
    "class_bars",
    "comparison",
    "decision_regions",
    "gallery",
    "mean_against_error",
    "probability_against_error",
    "rank_curve",
    "regression_band",
    "reliability",
    "risk_coverage",
    "spectrum",
]
