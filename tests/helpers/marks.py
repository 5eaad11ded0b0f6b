"""Parameters that `make test` leaves to `make test-wide` or to `make test-all`.

Both are further cases of what `make test` proves on others: `wide` ones take seconds, `slow` ones
minutes or whole data sets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import Any

import pytest


def slow(*values, **options):
    """A `pytest.param` that is marked slow."""
    return pytest.param(*values, marks=pytest.mark.slow, **options)


def wide(*values, **options):
    """A `pytest.param` that is marked wide."""
    return pytest.param(*values, marks=pytest.mark.wide, **options)


def wide_but(shown: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """All values, those that are not shown marked wide; one that has marks already keeps them."""
    values = list(values)
    absent = [value for value in shown if value not in values]
    assert not absent, f"shown, and not among the values: {absent}"
    return [v if v in shown or hasattr(v, "marks") else wide(v) for v in values]


def covering(**axes: Any) -> pytest.MarkDecorator:
    """All combinations of some parameters, in `make test` just enough for every value to be there.

    These are the k-th value of each axis for k = 0, 1, ...; an axis that has come to its end begins
    anew. What is costly on one axis is best put beside what is cheap on another. An axis is a list,
    or a dict whose keys name its values.
    """
    options = [
        list(axis.items())
        if isinstance(axis, Mapping)
        else [(_id(value, f"{name}{k}"), value) for k, value in enumerate(axis)]
        for name, axis in axes.items()
    ]
    length = max(map(len, options))
    shown = {tuple(k % len(axis) for axis in options) for k in range(length)}
    cases = []
    for places in product(*(range(len(axis)) for axis in options)):
        ids, values = zip(*(axis[k] for axis, k in zip(options, places, strict=True)), strict=True)
        marks = () if places in shown else pytest.mark.wide
        cases.append(pytest.param(*values, id="-".join(ids), marks=marks))
    return pytest.mark.parametrize(tuple(axes), cases)


def _id(value: Any, name: str) -> str:
    """As pytest names it, but for the place of a value that has no name."""
    plain = isinstance(value, str | int | float | type(None))
    return str(value) if plain else getattr(value, "__name__", name)


def asked_for(request: pytest.FixtureRequest, name: str) -> list[Any]:
    """Values of a parameter in those tests of a fixture's file that are to run."""
    here = [item for item in request.session.items if item.path == request.path]
    params = [item.callspec.params for item in here if hasattr(item, "callspec")]
    return list(dict.fromkeys(values[name] for values in params if name in values))
