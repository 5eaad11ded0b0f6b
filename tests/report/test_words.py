"""Numbers as a page writes them: three digits, or as many as their standard error leaves."""

from __future__ import annotations

import pytest

from deltauq.report.words import beside_error, number


def plain(text):
    """Without the characters that keyboards lack."""
    text = text.replace("\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}10", "e")
    return text.replace("\N{MINUS SIGN}", "-").translate(
        str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (-0.12345, "-0.123"),
        (999.4, "999"),
        (999.6, "1,000"),
        (245_300.0, "245,000"),
        (999_900.0, "1e6"),
        (1.234e7, "1.23e7"),
        (9.9996e-5, "0.0001"),
        (1.234e-6, "1.23e-6"),
        (float("inf"), "∞"),
    ],
)
def test_three_digits_count(value, text):
    assert plain(number(value)) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (245_312.0, 512.0, "245,310"),
        (-1.53, 0.3, "-1.53"),
        (0.12345, 0.012, "0.123"),
        (1.23456e-9, 2e-12, "1.2346e-9"),
        (99.96, 11.0, "100"),
        (0.0, 1e-9, "0"),
        (5.12345, 0.0, "5.12"),
        (5.12345, float("inf"), "5.12"),
    ],
)
def test_of_a_number_and_its_error_two_digits_of_the_error_count(value, error, text):
    assert plain(beside_error(value, error)) == text
