"""Labels become class numbers in one place, whatever form they have."""

from __future__ import annotations

import numpy as np
import pytest

from deltauq import prediction
from deltauq.errors import InvalidInputError
from deltauq.likelihoods.class_numbers import class_numbers

NUMBERS = np.array([2, 0, 1, 2])


@pytest.mark.parametrize(
    "y",
    [
        NUMBERS,
        NUMBERS.astype(np.uint8),
        NUMBERS.astype(np.float32),
        NUMBERS[:, None],
        np.eye(3)[NUMBERS],
        0.7 * np.eye(3)[NUMBERS] + 0.1,
    ],
    ids=["int", "uint8", "float32", "column", "one-hot", "soft"],
)
def test_every_form_of_labels_has_the_same_class_numbers(y):
    found = class_numbers(y)
    np.testing.assert_array_equal(found, NUMBERS)
    assert found.dtype == np.intp


def test_a_probability_of_class_one_counts_from_above_one_half():
    np.testing.assert_array_equal(class_numbers(np.array([[0.2], [0.5], [0.8]])), [0, 0, 1])


@pytest.mark.parametrize("names", [["ant", "bee", "cow"], [30, 10, 20]])
def test_names_are_numbered_in_the_order_that_is_given(names):
    np.testing.assert_array_equal(class_numbers(np.array(names)[NUMBERS], names), NUMBERS)


def test_names_without_their_order_are_refused():
    with pytest.raises(InvalidInputError, match=r"class numbers.*Categorical\(classes="):
        class_numbers(np.array(["ant", "bee"]))


def test_predictions_show_the_same_function():
    assert prediction.class_numbers is class_numbers
