"""Iterations that ask for products with a matrix, run side by side so that they share its passes.

Such an iteration is a generator: it yields columns V `[P, m]`, is sent A V, and returns what it
found. Where a product is a pass over data, one for the columns of several costs little more than
one for those of one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Asking", "alone", "mapped", "together"]

Array = npt.NDArray[Any]
Result = TypeVar("Result")

#: An iteration that yields V, is sent A V, and returns a result.
Asking = Generator[Array, Array, Result]


def together(matmat: Callable[[Array], Array], *iterations: Asking[Any]) -> list[Any]:
    """Run some iterations to their ends, one product for the columns of all at a time.

    Args:
        matmat: V `[P, m]` -> A V.
        *iterations: each with columns of the same P and precision.

    Returns:
        The result of each.
    """
    results: list[Any] = [None] * len(iterations)
    asked: dict[int, Array] = {}

    def go_on(number: int, image: Array | None) -> None:
        try:
            asked[number] = iterations[number].send(image)  # type: ignore[arg-type]  # None starts it
        except StopIteration as end:
            asked.pop(number, None)
            results[number] = end.value

    for number in range(len(iterations)):
        go_on(number, None)
    while asked:
        columns = list(asked.values())
        image = matmat(columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1))
        stops = np.cumsum([each.shape[1] for each in columns])
        for number, part in zip(list(asked), np.split(image, stops[:-1], axis=1), strict=True):
            go_on(number, part)
    return results


def alone(matmat: Callable[[Array], Array], iteration: Asking[Result]) -> Result:
    """Run one iteration to its end."""
    result: Result = together(matmat, iteration)[0]
    return result


def mapped(
    iteration: Asking[Result],
    before: Callable[[Array], Array],
    after: Callable[[Array, Array], Array],
) -> Asking[Result]:
    """An iteration with a matrix that is made of another one, as one that asks for the other's.

    Args:
        iteration: asks for products with B.
        before: V -> W, what is to be multiplied by A.
        after: W and A W -> B V.
    """
    try:
        columns = next(iteration)
        while True:
            inner = before(columns)
            columns = iteration.send(after(inner, (yield inner)))
    except StopIteration as end:
        found: Result = end.value
        return found
