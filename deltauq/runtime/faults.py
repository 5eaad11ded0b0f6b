"""What goes wrong while work goes on, told with what to do: memory runs out, a batch fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import tensorflow as tf

from deltauq.errors import (
    DeltaUQError,
    InvalidInputError,
    MemoryLimitError,
    NumericalError,
    what_it_says,
)

__all__ = ["AtWork", "Place", "faults_told"]


class Place(NamedTuple):
    """Where a batch stands in a pass over the data; everything is counted from 0.

    Attributes:
        batch: its number.
        first_row: the number of its first row.
        n_rows: how many rows it has.
    """

    batch: int
    first_row: int
    n_rows: int

    def __str__(self) -> str:
        last = self.first_row + self.n_rows - 1
        rows = f"row {last}" if self.n_rows == 1 else f"rows {self.first_row} to {last}"
        return f"{rows} (batch {self.batch}; counted from 0)"


class AtWork:
    """What is known of work that goes on.

    Attributes:
        place: of the batch that is dealt with; None between two passes.
    """

    def __init__(self) -> None:
        self.place: Place | None = None

    def is_at(self, place: Place | None) -> None:
        """Note the batch that is dealt with from now on."""
        self.place = place


@contextmanager
def faults_told(doing: str) -> Iterator[AtWork]:
    """Tell what goes wrong in some work in the package's words; a decorator too.

    An interruption (Ctrl-C) goes through, and so do the package's own errors: those about numbers
    that are not finite, with the batch in which they are.

    Args:
        doing: what the work is, in a few words.

    Raises:
        MemoryLimitError: memory runs out.
        InvalidInputError: TensorFlow fails on a batch.
    """
    work = AtWork()
    try:
        yield work
    except NumericalError as error:
        if work.place is not None:
            error.add_received(f"at work on {work.place}")
        raise
    except DeltaUQError:
        raise
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise MemoryLimitError(
            f"memory ran out ({doing})",
            expected="memory that the system gives when it is asked for",
            received=what_it_says(error) + ("" if work.place is None else f"; at {work.place}"),
            remedy="pass a smaller batch_size or rank; or a memory_limit, under which batches and "
            "buffers are planned to stay",
        ) from error
    except tf.errors.OpError as error:
        if work.place is None:
            raise
        raise InvalidInputError(
            f"the model fails on a batch of the data ({doing})",
            expected="a model that computes every row",
            received=f"{work.place}, of which TensorFlow says: {what_it_says(error)}",
            remedy="call the model on those rows: it fails too. Mend them, or leave them out",
        ) from error
