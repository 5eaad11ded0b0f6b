"""Derivatives of the network's logits in its parameters, example by example."""

from deltauq.network.jacobians.factors import Factor, Rows, Workspace, assemble, evaluated, stacked
from deltauq.network.jacobians.head import LinearHead, find_linear_head
from deltauq.network.jacobians.per_example import Cotangents, PerExample, rows_by_example
from deltauq.network.jacobians.rules import register_rule
from deltauq.network.jacobians.second import hessian_product
from deltauq.network.jacobians.taps import Tap

__all__ = [
    "Cotangents",
    "Factor",
    "LinearHead",
    "PerExample",
    "Rows",
    "Tap",
    "Workspace",
    "assemble",
    "evaluated",
    "find_linear_head",
    "hessian_product",
    "register_rule",
    "rows_by_example",
    "stacked",
]
