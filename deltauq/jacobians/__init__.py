"""Derivatives of the network in its parameters."""

from deltauq.jacobians.factors import Factor, Workspace, assemble, evaluated, stacked
from deltauq.jacobians.per_example import Cotangents, PerExample
from deltauq.jacobians.second import hessian_product

__all__ = [
    "Cotangents",
    "Factor",
    "PerExample",
    "Workspace",
    "assemble",
    "evaluated",
    "hessian_product",
    "stacked",
]
