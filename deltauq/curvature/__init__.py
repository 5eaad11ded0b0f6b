"""The mean data curvature of a network as a linear operator on parameter space, L2 not included."""

from deltauq.curvature.gram import GGN, OPG, SandwichMeat
from deltauq.curvature.hessian import Hessian
from deltauq.curvature.linear_head import LinearHeadGGN
from deltauq.curvature.montecarlo import MonteCarloGGN
from deltauq.curvature.operator import CurvatureOperator

__all__ = [
    "GGN",
    "OPG",
    "CurvatureOperator",
    "Hessian",
    "LinearHeadGGN",
    "MonteCarloGGN",
    "SandwichMeat",
]
