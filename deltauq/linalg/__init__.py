"""Linear algebra on NumPy arrays and on operators that are known by their matrix products alone.

Solvers take a function V -> A V and a size P, so what A stands for plays no part here. Tall arrays
`[P, m]` may be float32; sums and small `[m, m]` algebra are float64.
"""

from deltauq.linalg.cholesky import factor_positive
from deltauq.linalg.lanczos import BlockLanczos, Ends, RitzPairs
from deltauq.linalg.largest import (
    NormBound,
    bound_largest_eigenvalue,
    bounding_largest_eigenvalue,
)
from deltauq.linalg.lowrank import (
    LowRank,
    quadratic_diagonals,
    relative_width,
    root_diagonal,
)
from deltauq.linalg.nystrom import NystromSketch
from deltauq.linalg.orthogonal import (
    add_gram_product,
    combine,
    inner_products,
    orthonormal_basis,
    project_out,
    row_products,
    split,
)
from deltauq.linalg.pairs import Eigenpairs, MeasuredTail, Spectrum
from deltauq.linalg.passes import Asking, mapped, together
from deltauq.linalg.precision import nearest_orthonormal, relative_range
from deltauq.linalg.quadrature import (
    Krylov,
    MatrixForms,
    bound_matrix_forms,
    bounding_matrix_forms,
    gauss_radau,
)
from deltauq.linalg.storage import Storage
from deltauq.linalg.whitening import MOST_ROUNDING, Whitening

__all__ = [
    "MOST_ROUNDING",
    "Asking",
    "BlockLanczos",
    "Eigenpairs",
    "Ends",
    "Krylov",
    "LowRank",
    "MatrixForms",
    "MeasuredTail",
    "NormBound",
    "NystromSketch",
    "RitzPairs",
    "Spectrum",
    "Storage",
    "Whitening",
    "add_gram_product",
    "bound_largest_eigenvalue",
    "bound_matrix_forms",
    "bounding_largest_eigenvalue",
    "bounding_matrix_forms",
    "combine",
    "factor_positive",
    "gauss_radau",
    "inner_products",
    "mapped",
    "nearest_orthonormal",
    "orthonormal_basis",
    "project_out",
    "quadratic_diagonals",
    "relative_range",
    "relative_width",
    "root_diagonal",
    "row_products",
    "split",
    "together",
]
