"""Linear algebra on arrays and matrix products alone; nothing here knows a network."""

from deltauq.linalg.lanczos import BlockLanczos, RitzPairs
from deltauq.linalg.lowrank import LowRank
from deltauq.linalg.nystrom import NystromSketch
from deltauq.linalg.orthogonal import orthonormal_basis, project_out

__all__ = [
    "BlockLanczos",
    "LowRank",
    "NystromSketch",
    "RitzPairs",
    "orthonormal_basis",
    "project_out",
]
