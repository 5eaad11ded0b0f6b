"""Where in the data something goes wrong that shows only in a sum over all of them."""

from __future__ import annotations

from collections.abc import Callable

from deltauq.data.batches import Batches
from deltauq.runtime.faults import Place

__all__ = ["first_faulty"]

#: Parts into which what has the fault is cut.
_PARTS = 8


def first_faulty(data: Batches, is_good: Callable[[Batches], bool]) -> str:
    """Find the first row, or else batch, at which something is wrong; in words, "" for none.

    Takes one pass over the data up to there, and a few over that batch.

    Args:
        data: the training set.
        is_good: says of some rows, a training set of their own, whether they are in order.
    """
    found = _first(data, data.batch_size, is_good)
    if found is None:
        return ""
    batch, rows = found
    row = _narrowed(rows, batch, is_good)
    return str(batch) if row is None or batch.n_rows == 1 else f"row {row}, among {batch}"


def _first(
    data: Batches, n_rows: int, is_good: Callable[[Batches], bool]
) -> tuple[Place, Batches] | None:
    """The first piece of so many rows that is not in order."""
    return next(((p, rows) for p, rows in data.pieces(n_rows) if not is_good(rows)), None)


def _narrowed(rows: Batches, place: Place, is_good: Callable[[Batches], bool]) -> int | None:
    """The number of the row that is not in order, among some; None where no row is by itself."""
    if place.n_rows == 1:
        return place.first_row
    found = _first(rows, -(-place.n_rows // _PARTS), is_good)
    if found is None:
        return None
    inner, some = found
    return _narrowed(some, inner._replace(first_row=place.first_row + inner.first_row), is_good)
