"""The processor: its cores, and what it is good at by the flags that Linux lists; elsewhere nothing is assumed."""

import os
from functools import cache
from pathlib import Path

_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8")


@cache
def info() -> str:
    """What Linux says of the processor; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def has_amx() -> bool:
    """Whether it multiplies tiles of bf16."""
    return "amx_bf16" in info()


def prefers_bf16() -> bool:
    """Whether it multiplies bf16 faster than float32: with AMX, or with AVX512-BF16 on AMD.

    Intel's AVX512-BF16 without AMX has half the throughput of its float32 products.
    """
    return has_amx() or ("avx512_bf16" in info() and "AuthenticAMD" in info())


def multiplies_int8() -> bool:
    """Whether it has dot products of int8: VNNI or AMX."""
    return any(flag in info() for flag in _INT8)


def cores() -> int:
    """Cores that this process may use; fewer where ``OMP_NUM_THREADS`` says so."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(found, int(asked))) if asked.isdecimal() else found


def streams() -> int:
    """Batches that run at a time."""
    count = cores()
    return count if count <= 4 else max(4, count // 2)
