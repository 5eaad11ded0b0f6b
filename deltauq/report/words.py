"""Text for numbers and names, as a reader of a page sees them."""

from __future__ import annotations

import math

from deltauq.curvature import CURVATURES

__all__ = [
    "MISSING",
    "NBSP",
    "beside_error",
    "curvature_in_full",
    "curvature_name",
    "fixed",
    "number",
    "percent",
]

MINUS, MISSING, NBSP = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"

#: Decimals that a page shows; smaller numbers have a power of ten.
_DECIMALS = 6

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def curvature_in_full(curvature: str) -> tuple[str, str]:
    """The full name of a curvature, and what it is; the name alone where nothing is known of it."""
    kind = CURVATURES.get(curvature)
    spelled_out = f", {kind.spelled_out}" if kind and kind.spelled_out else ""
    return curvature_name(curvature) + spelled_out, kind.meaning if kind else ""


def curvature_name(curvature: str) -> str:
    """The short name of a curvature."""
    kind = CURVATURES.get(curvature)
    return kind.short_name or curvature if kind else curvature


def fixed(value: float | None, digits: int) -> str:
    """Text of a number with a fixed number of decimals; a dash for none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{digits}f}".replace("-", MINUS)


def number(value: float) -> str:
    """Text of a number with three significant digits, or a power of ten where that is short."""
    if not math.isfinite(value):
        return f"{value:.0f}".replace("-", MINUS).replace("inf", "\N{INFINITY}")
    rounded = float(f"{value:.2e}")
    if 1e3 <= abs(rounded) < 1e6:
        return f"{rounded:,.0f}".replace("-", MINUS)
    if rounded == 0 or 1e-4 <= abs(rounded) < 1e3:
        return f"{rounded:.3g}".replace("-", MINUS)
    return _with_power(value, 2)


def beside_error(value: float, error: float) -> str:
    """Text of a number as exact as its standard error, of which two digits count.

    Args:
        value: the number.
        error: in the same unit; zero or none that is finite leaves three digits of the number.
    """
    if not (value and math.isfinite(value) and math.isfinite(error) and error > 0):
        return number(value)
    decimals = 1 - math.floor(math.log10(error))
    rounded = round(value, decimals)
    if decimals > _DECIMALS or abs(rounded) >= 1e12:
        size = math.floor(math.log10(abs(rounded))) if rounded else -decimals
        return _with_power(rounded, max(0, size + decimals))
    return f"{rounded:,.{max(0, decimals)}f}".replace("-", MINUS)


def _with_power(value: float, decimals: int) -> str:
    """Text of a number times a power of ten."""
    mantissa, exponent = f"{value:.{decimals}e}".split("e")
    power = str(int(exponent)).translate(_SUPERSCRIPT)
    return f"{float(mantissa):g}{NBSP}\N{MULTIPLICATION SIGN}{NBSP}10{power}".replace("-", MINUS)


def percent(share: float) -> str:
    """Text of a share in percent with two significant digits, never a rounded 0 or 100."""
    if 0 < share < 1e-4:
        return f"under 0.01{NBSP}%"
    if 0.999 < share < 1:
        return f"over 99.9{NBSP}%"
    return f"{100 * share:.{2 if share < 0.995 else 3}g}{NBSP}%"
