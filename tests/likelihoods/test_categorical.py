"""The factor of a softmax' second derivative: C - 1 columns, right for saturated rows too."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deltauq.likelihoods import AtPositions, Categorical, CustomLoss

TOLERANCE = {"float64": 1e-14, "float32": 3e-7}

SCALES = {"equal": 0.0, "nearly equal": 1e-6, "usual": 2.0, "saturated": 30.0, "one-hot": 1000.0}


def drawn(scale, n_classes, dtype):
    """Logits of 40 examples in a working precision, and their probabilities."""
    logits = scale * np.random.default_rng(n_classes).normal(size=(40, n_classes))
    logits = tf.constant(logits, dtype)
    return logits, tf.nn.softmax(tf.cast(logits, tf.float64)).numpy().astype(np.longdouble)


def second_derivative(p):
    """diag(p) - p p^T with p_c (1 - p_c) as p_c times the sum of the others, where p_c = 1 too."""
    found = -p[:, :, None] * p[:, None, :]
    for c in range(p.shape[1]):
        found[:, c, c] = p[:, c] * np.delete(p, c, axis=1).sum(axis=1)
    return found


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("scale", SCALES)
def test_the_factor_of_c_minus_1_columns_makes_the_second_derivative(scale, n_classes, dtype):
    """Beside the largest entry of each example's matrix, and entry by entry.

    Where a p is 1 up to rounding too: the sum of the others has what 1 - p has lost.
    """
    logits, p = drawn(SCALES[scale], n_classes, dtype)
    factor = Categorical().hessian_factor(logits, None)
    assert factor.shape == (40, n_classes, n_classes - 1)
    assert Categorical().n_rows(n_classes) == n_classes - 1
    wide = factor.numpy().astype(np.longdouble)
    gap = np.abs(wide @ np.swapaxes(wide, 1, 2) - (truth := second_derivative(p)))
    # Under this a square root and its square have lost what they are made of.
    seen = np.abs(truth) > 1e6 * np.finfo(dtype).tiny
    largest = np.max(np.abs(truth), axis=(1, 2), keepdims=True)
    assert np.all(gap <= TOLERANCE[dtype] * largest + 1e6 * np.finfo(dtype).tiny)
    assert np.all(gap[seen] <= 3 * TOLERANCE[dtype] * np.abs(truth[seen]))
    assert np.any(seen) or scale == "one-hot"


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("scale", SCALES)
def test_products_with_the_factor_need_no_matrix(scale, dtype):
    logits, _ = drawn(SCALES[scale], 7, dtype)
    vectors = tf.constant(np.random.default_rng(1).normal(size=(40, 6, 3)), dtype)
    found = Categorical().hessian_factor_times(logits, None, vectors)
    expected = (Categorical().hessian_factor(logits, None) @ vectors).numpy()
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[dtype] * np.max(np.abs(expected)))


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_place_of_the_most_probable_class_does_not_matter(n_classes):
    """Wherever it is, first or last, and whichever of two equals it is."""
    logits = np.random.default_rng(0).normal(size=(1, n_classes)) * 3
    for shift in range(n_classes):
        rolled = np.roll(logits, shift, axis=1)
        for z in (rolled, np.maximum(rolled, np.sort(rolled)[:, -2])):
            p = np.exp(z) / np.exp(z).sum()
            factor = Categorical().hessian_factor(tf.constant(z), None).numpy()[0]
            truth = np.diag(p[0]) - np.outer(p, p)
            np.testing.assert_allclose(factor @ factor.T, truth, atol=1e-15)


@pytest.mark.parametrize(
    ("likelihood", "n_outputs", "n_rows"),
    [
        (Categorical(), 10, 9),
        (Categorical(label_smoothing=0.1), 2, 1),
        (AtPositions(Categorical(), (3,)), 12, 9),
        (CustomLoss(lambda z, y: z[:, 0]), 10, 10),  # whose derivative may have any rank
    ],
)
def test_a_plain_softmax_alone_has_a_row_fewer_than_outputs(likelihood, n_outputs, n_rows):
    assert likelihood.n_rows(n_outputs) == n_rows
