"""What is wrong with a fit before it is made, and how good it is after: checks and comparison."""

from deltauq.evaluation.comparison import Comparison, compare
from deltauq.evaluation.diagnosis import Diagnosis, diagnose

__all__ = ["Comparison", "Diagnosis", "compare", "diagnose"]
