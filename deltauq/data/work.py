"""Work that passes over data: it is shown while it goes on, and its faults are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deltauq.data.batch_reader import PassListener
from deltauq.runtime.faults import faults_told
from deltauq.runtime.progress import ProgressDisplay, progress_bar
from deltauq.runtime.stages import Stages

__all__ = ["at_work"]


@contextmanager
def at_work(
    doing: str, *, total: float | None = None, enabled: bool = True
) -> Iterator[tuple[ProgressDisplay, PassListener]]:
    """Show a progress bar around work, and tell what goes wrong with the batch in which it did.

    Args:
        doing: what is going on.
        total: examples in all; None where that is not known beforehand.
        enabled: False shows nothing.

    Yields:
        The display, and what is to listen to the passes over the data.

    Raises:
        MemoryLimitError: memory runs out.
        InvalidInputError: TensorFlow fails on a batch.
    """
    stages = Stages()
    with (
        faults_told(doing) as work,
        progress_bar(doing, total=total, enabled=enabled, stages=stages) as shown,
    ):
        told = PassListener(
            on_batch=shown.advance, on_step=shown.describe, on_given=work.is_at, stages=stages
        )
        yield shown, told
        stages.end()
