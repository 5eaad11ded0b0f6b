"""A model as a function of its parameters, with its derivatives, and what its outputs mean."""

from deltauq.network.network import Layers, Network, Parameter

__all__ = ["Layers", "Network", "Parameter"]
