"""Expensive steps of long work, whose results are kept on disk: what was interrupted goes on.

Work that is repeated with the same arguments asks for the same steps, one after the other, and the
results of those that were recorded come from the disk. Nothing else of its state has to be kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import safetensors

from deltauq.errors import (
    CheckpointWarning,
    InvalidInputError,
    WriteError,
    check_path,
    warn,
)
from deltauq.runtime.manifest import Work
from deltauq.runtime.one_at_a_time import LOCK, DirectoryLock
from deltauq.runtime.sealed_files import read_into, seal_of, write_sealed
from deltauq.runtime.steps import Steps
from deltauq.runtime.whole_files import left_behind, shown_bytes

__all__ = ["Checkpoint"]

Array = npt.NDArray[Any]

#: The manifest, the files of steps in their order, and all of these without their suffix.
_MANIFEST = "fit.safetensors"
_STEPS = re.compile(r"steps-\d{6}\.safetensors")
_STEMS = r"fit|steps-\d{6}"

#: The name in a header by which a file of a checkpoint is told from an artifact, and what stands
#: there in each kind of file: its layout.
_KEY, _OF_WORK, _OF_STEPS = "deltauq.checkpoint", "work 1", "steps 1"


#: Bytes that a disk writes in a second, roughly, checksums with them; and how many times as long
#: as that the computing of a large result must take to be worth it.
_BYTES_A_SECOND, _WORTH = 2**28, 3


class _Step(NamedTuple):
    """A step that was computed: by what it is known again, and its results, if they are kept."""

    digest: str
    results: Sequence[Array]


class _Recorded(NamedTuple):
    """A step on disk: by what it is known again, the number of its file and its own in there.

    Attributes:
        is_kept: whether its results are there too.
    """

    digest: str
    is_kept: bool
    file: int
    number: int
    content: Any


class Checkpoint(Steps):
    """A directory that records the steps of one piece of work while it goes on.

    A step is known again by its place in the order and by a SHA-256 of what it was given, so that
    no result is ever used for an input that is not its own. Files are written whole and sealed;
    the record ends before the first one that is not as it was written. Within a `with`, an error or
    an interruption leaves the record whole, and work that is done leaves the directory empty; who
    else begins there is refused. Large results that are as fast to compute as to write are computed
    again.

    Args:
        directory: made where it is missing; holds nothing but one record.

    Raises:
        InvalidInputError: it is no directory, or holds files of others.
        WriteError: it cannot be made.
    """

    #: Seconds of work whose results may be in memory alone, and bytes of them at most. A step that
    #: takes longer is written when it is done.
    interval: ClassVar[float] = 30.0
    buffer_bytes: ClassVar[int] = 2**26

    def __init__(self, directory: str | Path) -> None:
        self.directory = check_path("checkpoint", directory)
        self._tell: Callable[[str], object] = lambda text: None
        self._pending: list[_Step] = []
        self._files: list[Path] = []
        self._known: Iterator[_Recorded] = iter(())
        self._next: _Recorded | None = None
        self._written = time.monotonic()
        self._is_done = False
        self._make_directory()
        self._lock = DirectoryLock(self.directory)

    def begin(self, work: Work, tell: Callable[[str], object] = lambda text: None) -> Self:
        """Go on with the record that is there, if there is one; it must be of this work.

        Args:
            work: what is done.
            tell: is told how large the record is, after each file.

        Raises:
            InvalidInputError: the record is of other work, or somebody else is at it.
            WriteError: the disk is full, or the place cannot be written to.
        """
        self._tell = tell
        self._lock.take()
        try:
            self._open(work)
        except BaseException:
            self._lock.give_back()
            raise
        if self._files:
            tell(f"{self._size()}; this fit goes on from there")
        return self

    def _open(self, work: Work) -> None:
        """Find the record, or begin one."""
        paths = sorted(self.directory.iterdir())
        for path in paths:
            if left_behind(path, _STEMS):
                shutil.rmtree(path)
        self._files = [path for path in paths if _STEPS.fullmatch(path.name)]
        manifest = self.directory / _MANIFEST
        facts = _facts(manifest, _OF_WORK)
        if facts is None:
            self._drop_from(0, f"{_MANIFEST} is damaged or missing")
            _write(manifest, _OF_WORK, {}, work._asdict())
        else:
            work.check_same(Work(**facts), self.directory, goes_on=bool(self._files))
        self._known = self._recorded()
        self._next = next(self._known, None)

    def kept(
        self,
        what: str,
        given: Sequence[Array],
        results: Sequence[Array],
        compute: Callable[[], object],
    ) -> bool:
        """Fill the results from the record, or compute them and put them there; see `Steps`.

        Raises:
            WriteError: the disk is full; the record ends before this step.
        """
        if self._is_done:
            compute()
            return True
        digest = _digest(what, given, results)
        if self._next is not None and self._next.digest != digest:
            self._drop_rest(self._next)
        if self._next is not None:
            return self._replay(self._next, results, compute)
        started = time.monotonic()
        compute()
        self._add(_Step(digest, results), time.monotonic() - started)
        return True

    def mark(self, array: Array) -> Array:
        """The SHA-256 of an array, as 32 bytes."""
        return np.frombuffer(hashlib.sha256(array.tobytes()).digest(), np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_done = True  # operators of the fit live on
        try:
            self._end(error)
        finally:
            self._lock.give_back()

    def _end(self, error: BaseException | None) -> None:
        """Remove the record of work that is done, and leave that of other work whole."""
        if error is None:
            self._clear()
            return
        with suppress(WriteError):
            self._write()
        if self._files:
            error.add_note(f"{self._size()}, and the same call goes on from there.")

    def _replay(
        self, step: _Recorded, results: Sequence[Array], compute: Callable[[], object]
    ) -> bool:
        """Fill in the results of the next step of the record."""
        if step.is_kept:
            for k, out in enumerate(results):
                read_into(step.content, _name(step.number, k), out)
        else:
            compute()
        self._next = next(self._known, None)
        self._written = time.monotonic()
        return not step.is_kept

    def _recorded(self) -> Iterator[_Recorded]:
        """The steps on disk in their order, up to the first file that does not hold."""
        for place, path in enumerate(list(self._files)):
            facts = _facts(path, _OF_STEPS) if path.name == _file_name(place) else None
            if facts is None:
                self._drop_from(place, f"{path.name} is damaged, or one before it is missing")
                return
            with safetensors.safe_open(path, framework="numpy") as content:
                for number, (digest, is_kept) in enumerate(facts["steps"]):
                    yield _Recorded(digest, is_kept, place, number, content)

    def _drop_rest(self, step: _Recorded) -> None:
        """End the record before a step, of which something else was given now."""
        self._drop_from(step.file + 1, "")
        path, before = self._files[step.file], range(step.number)
        facts = _facts(path, _OF_STEPS)
        if before and facts is not None:
            names = [name for name in step.content.keys() if _number(name) in before]  # noqa: SIM118
            arrays = {name: step.content.get_tensor(name) for name in names}
            _write_steps(path, arrays, facts["steps"][: step.number])
        else:
            self._drop_from(step.file, "")
        self._known, self._next = iter(()), None
        _warn_of_end(self.directory, "other numbers came before it, as on another processor")

    def _drop_from(self, place: int, why: str) -> None:
        """Remove the files from some place on, the last one first."""
        dropped = self._files[place:]
        for path in reversed(dropped):
            path.unlink()
        del self._files[place:]
        if dropped and why:
            _warn_of_end(self.directory, why)

    def _add(self, step: _Step, seconds: float) -> None:
        """Take a step up that took so long, and write what is not on disk yet where it is time."""
        size = sum(out.nbytes for out in step.results)
        if size >= self.buffer_bytes and seconds < _WORTH * size / _BYTES_A_SECOND:
            step = step._replace(results=())
        waiting = sum(out.nbytes for each in (*self._pending, step) for out in each.results)
        late = time.monotonic() - self._written >= self.interval
        if late or waiting >= self.buffer_bytes:
            self._pending.append(step)
            self._write()
        else:  # the caller's arrays are the caller's
            self._pending.append(_Step(step.digest, [out.copy() for out in step.results]))

    def _write(self) -> None:
        """Write the steps that are not on disk yet to a file of their own."""
        if not self._pending:
            return
        path = self.directory / _file_name(len(self._files))
        arrays = {
            _name(number, k): out
            for number, step in enumerate(self._pending)
            for k, out in enumerate(step.results)
        }
        _write_steps(path, arrays, [(step.digest, bool(step.results)) for step in self._pending])
        self._files.append(path)
        self._pending = []
        self._written = time.monotonic()
        self._tell(f"{self._size()}; after an interruption the same call goes on from there")

    def _size(self) -> str:
        total = sum(path.stat().st_size for path in self._files)
        return f"checkpoint: {shown_bytes(total)} in {self.directory}"

    def _clear(self) -> None:
        """Remove the record, its manifest last; the directory stays."""
        self._known, self._next, self._pending = iter(()), None, []
        self._drop_from(0, "")
        (self.directory / _MANIFEST).unlink(missing_ok=True)

    def _make_directory(self) -> None:
        """See that there is a directory which holds nothing of others."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            paths = list(self.directory.iterdir())
        except FileExistsError as error:
            raise InvalidInputError(
                "checkpoint is not a directory",
                expected="a directory for this fit alone, which is made where it is missing",
                received=f"{self.directory}, a file",
                remedy="name another place",
            ) from error
        except OSError as error:
            raise WriteError(
                "the directory of the checkpoint cannot be made, or not be read",
                expected="a place that can be written to",
                received=f"{self.directory}: {error.strerror}",
                remedy="name another place, or change who may write there",
            ) from error
        own = {_MANIFEST, LOCK}
        foreign = sorted(
            path.name
            for path in paths
            if not (path.name in own or _STEPS.fullmatch(path.name) or left_behind(path, _STEMS))
        )
        if foreign:
            raise InvalidInputError(
                "the directory of the checkpoint holds other files",
                expected="an empty directory, or the checkpoint of an interrupted fit",
                received=f"{self.directory} with {', '.join(foreign[:3])}"
                + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""),
                remedy="name a directory for this fit alone; it is made where it is missing",
            )


def _digest(what: str, given: Sequence[Array], results: Sequence[Array]) -> str:
    """SHA-256 of a step: its name, what it was given, and the form of its results."""
    digest = hashlib.sha256(what.encode())
    for array in given:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    for out in results:
        digest.update(f"{out.dtype} {out.shape}".encode())
    return digest.hexdigest()


def _file_name(number: int) -> str:
    return f"steps-{number:06d}.safetensors"


def _name(number: int, result: int) -> str:
    """What an array in a file is called, of a step and a result of it by their numbers."""
    return f"{number}.{result}"


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _write_steps(
    path: Path, arrays: Mapping[str, Array], steps: Sequence[tuple[str, bool]]
) -> None:
    """Write some steps, each by its digest and whether its results are among the arrays."""
    _write(path, _OF_STEPS, arrays, {"steps": list(steps)})


def _write(path: Path, kind: str, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    write_sealed(path, arrays, {_KEY: kind, "deltauq.facts": json.dumps(facts)})


def _facts(path: Path, kind: str) -> Any:
    """The facts of a file of a kind; None where there is none, or it is not as it was written."""
    try:
        seal = seal_of(path)
        if seal is None or not seal.holds:
            return None
        with safetensors.safe_open(path, framework="numpy") as content:
            metadata = content.metadata()
    except (OSError, safetensors.SafetensorError):
        return None
    return json.loads(metadata["deltauq.facts"]) if metadata.get(_KEY) == kind else None


def _warn_of_end(directory: Path, why: str) -> None:
    warn(
        f"the checkpoint in {directory} does not go on where it should ({why}): what came after is "
        "dropped and computed anew.",
        CheckpointWarning,
    )
