"""The Delta method on a model: the problem, the steps of a fit, and what can be asked of it."""

from deltauq.delta.delta_method import DeltaMethod

__all__ = ["DeltaMethod"]
