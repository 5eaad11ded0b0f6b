"""The mean data curvature of a network as a linear operator on parameter space, L2 not included."""

from deltauq.curvature.gram import GGN, OPG, SandwichMeat
from deltauq.curvature.hessian import Hessian
from deltauq.curvature.linear_head import LinearHeadGGN
from deltauq.curvature.montecarlo import MonteCarloGGN
from deltauq.curvature.operator import CurvatureOperator
from deltauq.curvature.registry import CURVATURES, CurvatureKind, register

__all__ = [
    "CURVATURES",
    "GGN",
    "OPG",
    "CurvatureKind",
    "CurvatureOperator",
    "Hessian",
    "LinearHeadGGN",
    "MonteCarloGGN",
    "SandwichMeat",
    "register",
]
