"""Linear algebra on arrays and matrix products alone; nothing here knows a network."""

from deltauq.linalg.lanczos import BlockLanczos, Ends, RitzPairs
from deltauq.linalg.largest import NormBound, bound_largest_eigenvalue
from deltauq.linalg.lowrank import LowRank, relative_width, root_diagonal
from deltauq.linalg.nystrom import NystromSketch
from deltauq.linalg.orthogonal import (
    add_gram_product,
    combine,
    inner_products,
    orthonormal_basis,
    project_out,
    split,
)
from deltauq.linalg.pairs import Eigenpairs
from deltauq.linalg.quadrature import InverseForms, bound_inverse_forms
from deltauq.linalg.storage import Storage

__all__ = [
    "BlockLanczos",
    "Eigenpairs",
    "Ends",
    "InverseForms",
    "LowRank",
    "NormBound",
    "NystromSketch",
    "RitzPairs",
    "Storage",
    "add_gram_product",
    "bound_inverse_forms",
    "bound_largest_eigenvalue",
    "combine",
    "inner_products",
    "orthonormal_basis",
    "project_out",
    "relative_width",
    "root_diagonal",
    "split",
]
