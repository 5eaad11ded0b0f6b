"""Derivatives of the network in its parameters, as graph functions."""

from deltauq.jacobians.per_example import Cotangents, PerExample
from deltauq.jacobians.second import hessian_products

__all__ = ["Cotangents", "PerExample", "hessian_products"]
