"""Iterations side by side find what each finds alone, in as few passes as the longest takes."""

from __future__ import annotations

import numpy as np

from deltauq.linalg import mapped, together


def powers(start, count):
    """A^count v, one product at a time."""
    columns = start
    for _ in range(count):
        columns = yield columns
    return columns


def test_they_share_their_products():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 6))
    starts = [rng.normal(size=(6, width)) for width in (1, 3, 2)]
    widths = []

    def matmat(vectors):
        widths.append(vectors.shape[1])
        return matrix @ vectors

    counts = (2, 4, 0)
    found = together(matmat, *(powers(*each) for each in zip(starts, counts, strict=True)))
    assert widths == [4, 4, 3, 3]
    for result, start, count in zip(found, starts, counts, strict=True):
        np.testing.assert_allclose(result, np.linalg.matrix_power(matrix, count) @ start)


def test_an_iteration_with_another_matrix_is_made_of_products_with_this_one():
    rng = np.random.default_rng(0)
    matrix, change = rng.normal(size=(2, 5, 5))
    start = rng.normal(size=(5, 2))
    iteration = mapped(
        powers(start, 3), lambda v: change @ v, lambda inner, image: change @ (image + inner)
    )
    (found,) = together(lambda v: matrix @ v, iteration)
    whole = change @ (matrix + np.eye(5)) @ change
    np.testing.assert_allclose(found, np.linalg.matrix_power(whole, 3) @ start)
