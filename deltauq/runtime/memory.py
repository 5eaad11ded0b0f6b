"""How much memory the process may take: a container may leave it less than the machine has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from deltauq.errors import InvalidInputError

__all__ = ["available_memory", "free_memory", "gib"]

#: Where Linux shows the control groups, and those of this process.
_MOUNT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")

#: Files of a memory group, of cgroup v2 and v1: its limit, what it takes, and the entry of
#: `memory.stat` that says how much of it are files that are given back when memory is short.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}

#: Share of the machine's free memory that is used when no limit is given.
_SAFE_SHARE = 0.8


def free_memory(memory_limit: int | str | None) -> int:
    """Bytes that may be taken: what a limit on the process leaves, or a safe share of what is free.

    Args:
        memory_limit: of the whole process: bytes, or text such as "8GiB"; None for no limit.

    Raises:
        InvalidInputError: a limit that is not understood.
    """
    if memory_limit is None:
        return int(_SAFE_SHARE * available_memory())
    return max(0, _bytes(memory_limit) - psutil.Process().memory_info().rss)


def available_memory() -> int:
    """Bytes that can be taken: what the machine has free, or the tightest limit on a group leaves.

    psutil sees the machine only. A limit of a control group (of Docker, Kubernetes, Slurm, systemd)
    on the process or on a group around it leaves it less: limit - usage, files in memory that can
    be given back not counted.
    """
    left = [_left(group, *names) for group, names in _memory_groups()]
    return min([psutil.virtual_memory().available, *(n for n in left if n is not None)])


def _memory_groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The directory of the process's memory group and of all around it, and how files are named.

    Inside of a container its own group may be what is mounted: a path that is not there is passed
    over, the mount itself is not.
    """
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, names = (_MOUNT / "memory", _V1) if controllers else (_MOUNT, _V2)
        group = mount / path.lstrip("/")
        while group != mount:
            yield group, names
            group = group.parent
        yield mount, names


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """What the limit of a group leaves; None where there is none, or it cannot be read."""
    try:
        most = int((group / limit).read_text())  # "max" is no number
        taken = int((group / usage).read_text())
    except (OSError, ValueError):
        return None
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        taken -= int(stat.get(reclaimable, 0))
    except (OSError, ValueError):
        pass  # then files count as taken
    return max(0, most - taken)


def _bytes(limit: int | str) -> int:
    """A limit given as a number or as text with a unit, in bytes."""
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        return limit
    match = (
        re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([A-Za-z]*)\s*", limit)
        if isinstance(limit, str)
        else None
    )
    if match and match[2] in _UNITS and float(match[1]) > 0:
        return int(float(match[1]) * _UNITS[match[2]])
    raise InvalidInputError(
        "memory_limit is not understood",
        expected=f"a positive number of bytes, or text with a unit out of {list(_UNITS)[1:]}",
        received=repr(limit),
        remedy='pass for example "8GiB", or None to use what is free',
    )


def gib(n_bytes: int) -> str:
    """A number of bytes as text in GiB, such as "1.50 GiB", for messages."""
    return f"{n_bytes / 2**30:.2f} GiB"
