"""Threads that work side by side, each on one thread of BLAS, and how they share a process.

The number of BLAS threads is one of the whole process (`threadpoolctl`), and sums come out with
other last digits for another number. So no product of a prediction runs while others form rows, and
the other way round: what a thread predicts does not depend on what the others do, and whoever stops
last leaves the number as it was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import joblib
import threadpoolctl
from tensorflow.python.eager import context as tf_context

from deltauq.errors import ForkedProcessError

__all__ = ["refuse_lost_runtime", "side_by_side", "start", "stop"]


class _Workers:
    """One pool of threads, and the two kinds of work that must not meet.

    Attributes:
        pool: as many threads as the process may use processors, by its affinity and its container.
        lost_runtime: TensorFlow ran when this process was forked off: its threads are not here.
    """

    def __init__(self, lost_runtime: bool = False) -> None:
        self.pool = ThreadPoolExecutor(joblib.cpu_count(), thread_name_prefix="deltauq")
        self.lost_runtime = lost_runtime
        # threadpoolctl lets one thread set limits at a time, and passes over the others in silence.
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="deltauq-blas")
        self._limit: Any = None
        self._turn = threading.Condition()
        self._forming: set[int] = set()
        self._multiplying: set[int] = set()
        self._waiting = 0

    @cached_property
    def _blas(self) -> threadpoolctl.ThreadpoolController:
        """The libraries that are loaded when rows are first formed."""
        return threadpoolctl.ThreadpoolController()

    def start(self) -> None:
        """Wait until no thread forms rows; from then until `stop` this one may multiply.

        It has all threads of BLAS.
        """
        with self._turn:
            self._turn.wait_for(lambda: not self._forming and not self._waiting)
            self._multiplying.add(threading.get_ident())

    def stop(self) -> None:
        """This thread has done with multiplying, if it was; others may form rows."""
        with self._turn:
            self._multiplying.discard(threading.get_ident())
            self._turn.notify_all()

    @contextmanager
    def one_thread_of_blas(self) -> Iterator[None]:
        """Form rows, once no other thread multiplies; a product of this one is interrupted."""
        me = threading.get_ident()
        with self._turn:
            interrupted = me in self._multiplying
        self.stop()
        try:
            with self._turn:
                self._waiting += 1
                try:
                    self._turn.wait_for(lambda: not self._multiplying)
                finally:
                    self._waiting -= 1
                if not self._forming:
                    limited = self._keeper.submit(self._blas.limit, limits=1, user_api="blas")
                    self._limit = limited.result()
                self._forming.add(me)
            yield
        finally:
            with self._turn:
                self._forming.discard(me)
                if not self._forming:
                    self._keeper.submit(self.restore).result()
                self._turn.notify_all()
            if interrupted:
                self.start()

    def restore(self) -> None:
        """Give BLAS the number of threads back that it had, for others to use."""
        if self._limit is not None:
            self._limit.__exit__(None, None, None)
            self._limit = None


_workers = _Workers()


def _after_fork() -> None:
    """A new pool, as threads are not forked; and whether TensorFlow's were among the lost ones."""
    global _workers
    _workers.restore()
    running = tf_context.context_safe()
    lost = running is not None and getattr(running, "_context_handle", None) is not None
    _workers = _Workers(lost or _workers.lost_runtime)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def side_by_side(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function for each of some arguments, on several threads with one of BLAS each.

    A thread that waits for another one within a small product waits long, because TensorFlow's own
    keep busy after each call.

    Args:
        function: called for its effect; what it returns is dropped, what it raises is raised here.
        *arguments: as for `map`.
    """
    with _workers.one_thread_of_blas():
        list(_workers.pool.map(function, *arguments))


def start() -> None:
    """Begin to multiply on this thread, once no other one forms rows.

    Until `stop`, products come out to the bit as where there are no other threads.
    """
    _workers.start()


def stop() -> None:
    """End what `start` began on this thread; nothing happens where it has not."""
    _workers.stop()


def refuse_lost_runtime() -> None:
    """Refuse to go on in a forked process in which every call of TensorFlow would hang.

    Raises:
        ForkedProcessError: TensorFlow ran in the process that this one was forked from.
    """
    if _workers.lost_runtime:
        raise ForkedProcessError(
            "this process was forked from one in which TensorFlow was running",
            expected="a process with TensorFlow's threads, which a fork does not copy: every call "
            "of it would wait for them forever",
            received=f"process {os.getpid()}, forked from {os.getppid()}",
            remedy="start processes by multiprocessing.get_context('spawn') or 'forkserver' "
            "(joblib's 'loky' does), or fork before TensorFlow's first operation and load the "
            "model in the child",
        )
