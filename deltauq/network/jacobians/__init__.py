"""Derivatives of the network's logits in its parameters, example by example.

The rows of the Jacobian are taken along R cotangents `[B, R, C]`, directions in the logits. A `Tap`
is an operation of the traced network in which a variable meets the data; a rule makes the rows of
the variable, as a `Factor`, from what the tap reads and from the cotangents of what it gives. Steps
of a sequence may be folded into the batch, F rows of the operation to an example: its folds.
"""

from deltauq.network.jacobians.factors import (
    Factor,
    OuterProducts,
    Rows,
    Workspace,
    assemble,
    evaluated,
    outer_products,
    stacked,
)
from deltauq.network.jacobians.head import LinearHead, find_linear_head
from deltauq.network.jacobians.per_example import Cotangents, PerExample, rows_by_example
from deltauq.network.jacobians.rules import register_rule
from deltauq.network.jacobians.taps import Tap

__all__ = [
    "Cotangents",
    "Factor",
    "LinearHead",
    "OuterProducts",
    "PerExample",
    "Rows",
    "Tap",
    "Workspace",
    "assemble",
    "evaluated",
    "find_linear_head",
    "outer_products",
    "register_rule",
    "rows_by_example",
    "stacked",
]
