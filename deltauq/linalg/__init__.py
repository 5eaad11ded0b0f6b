"""Linear algebra on arrays and matrix products alone; nothing here knows a network."""

from deltauq.linalg.lanczos import BlockLanczos, Ends, RitzPairs
from deltauq.linalg.lowrank import LowRank, root_diagonal
from deltauq.linalg.nystrom import NystromSketch
from deltauq.linalg.orthogonal import (
    add_gram_product,
    combine,
    inner_products,
    orthonormal_basis,
    project_out,
)
from deltauq.linalg.storage import Storage

__all__ = [
    "BlockLanczos",
    "Ends",
    "LowRank",
    "NystromSketch",
    "RitzPairs",
    "Storage",
    "add_gram_product",
    "combine",
    "inner_products",
    "orthonormal_basis",
    "project_out",
    "root_diagonal",
]
