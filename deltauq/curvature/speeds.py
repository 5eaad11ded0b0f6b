"""What one core of a usual processor does in a second, for counts of multiplications."""

from __future__ import annotations

__all__ = ["CHOLESKY", "COLUMNS", "DOUBLE", "EIGEN", "FORMED", "INNER"]

#: Multiplications (with an addition each, half of them where a matrix is symmetric) a second:
#: float32 products of rows with each other and with columns, float64 products, and the float64
#: eigenvalue problem and Cholesky's factor, whose counts are n^3 and n^3 / 3.
INNER, COLUMNS, DOUBLE, EIGEN, CHOLESKY = 85e9, 90e9, 45e9, 4.5e9, 30e9

#: Seconds for each number of a row that is formed.
FORMED = 5e-9
