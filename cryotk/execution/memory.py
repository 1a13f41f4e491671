"""How much memory a process may still take."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

__all__ = ["available_memory", "give_back"]


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """What returns free memory of the allocator to the system; glibc has it."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def give_back() -> None:
    """Return freed memory to the system: blocks of several threads leave gaps that the allocator would keep."""
    trim = _trim()
    if trim is not None:
        trim(0)


def available_memory() -> int:
    """Bytes that can be taken without swapping: of the machine, and of the control group where one has a limit.

    Where the system does not tell, 8 GB.
    """
    found = [v for v in (_machine(), _group()) if v is not None]
    return max(min(found), 0) if found else 8_000_000_000


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the limit of the control group leaves (version 2, and version 1 below memory/)."""
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            allowed = (root / limit).read_text().strip()
            if allowed != "max" and int(allowed) < 1 << 60:
                return int(allowed) - int((root / used).read_text())
        except (OSError, ValueError):
            continue
    return None
