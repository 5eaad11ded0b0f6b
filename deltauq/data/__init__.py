"""Training data and inputs: checked arrays or datasets, weights, batches read again and again."""

from deltauq.data.batches import Batch, Batches, Part, spec_of

__all__ = ["Batch", "Batches", "Part", "spec_of"]
