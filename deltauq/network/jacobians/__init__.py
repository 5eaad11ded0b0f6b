"""Derivatives of the network's logits in its parameters, example by example."""

from deltauq.network.jacobians.factors import Factor, Workspace, assemble, evaluated, stacked
from deltauq.network.jacobians.head import LinearHead, find_linear_head
from deltauq.network.jacobians.per_example import Cotangents, PerExample, rows_by_example
from deltauq.network.jacobians.second import hessian_product

__all__ = [
    "Cotangents",
    "Factor",
    "LinearHead",
    "PerExample",
    "Workspace",
    "assemble",
    "evaluated",
    "find_linear_head",
    "hessian_product",
    "rows_by_example",
    "stacked",
]
