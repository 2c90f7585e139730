"""The two times of the journal: the wall clock, which people read, and ticks, which nobody can set back.

Ticks count from the start of the machine and are the same in all of its processes, so a lease outlives a restart of the
service. After a restart of the machine, which ``boot`` tells, only the wall clock is left.
"""

import contextlib
import os
import time
from functools import cache
from pathlib import Path

SECOND = 1_000_000  # all times of the journal are in microseconds

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def wall() -> int:
    """Microseconds since 1970, by a clock that may be set."""
    return time.time_ns() // 1000


def ticks() -> int:
    """Microseconds since the start of the machine."""
    return time.monotonic_ns() // 1000


@cache
def boot() -> str:
    """What tells this start of the machine from others; where no file does, what tells this process from others."""
    with contextlib.suppress(OSError):
        return _BOOT.read_text().strip()
    return os.urandom(16).hex()
