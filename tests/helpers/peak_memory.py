"""The most memory that a process has held."""

from __future__ import annotations

import re
from pathlib import Path


def peak_memory() -> float:
    """GiB that this process has held at most.

    Not `ru_maxrss`, which a process takes over from the one that started it: that of a child of a
    worker of the tests is what the worker held.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 2**20
