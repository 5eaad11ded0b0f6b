"""What the process may take of the machine: a container may leave it less than there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["available_memory"]

#: Where Linux shows the control groups, and those of this process.
_MOUNT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")

#: Files of a memory group, of cgroup v2 and v1: its limit, what it takes, and the entry of
#: `memory.stat` that says how much of it are files that are given back when memory is short.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


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
