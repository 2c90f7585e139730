"""Whether a network's weights fit in memory: known before they are loaded, not when the system kills the program."""

import re
from pathlib import Path

from ecom_rag.errors import ModelError
from ecom_rag.models.runtimes.placement import Placement

_WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}  # bytes of a weight
_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def check_fits(folder: Path, parameters: int, placement: Placement) -> None:
    """Refuse weights that are larger than the memory that is free.

    Args:
        folder: The checkpoint, for the message.
        parameters: Its numbers.
        placement: Where they go, and in which precision.

    Raises:
        ModelError: They do not fit. What is needed beside them is not counted.
    """
    free = _free(placement.device)
    needed = parameters * _WIDTHS[placement.precision]
    if free is None or needed <= free:
        return
    halves = placement.precision == "fp32" and needed // 2 <= free
    remedy = f"`precision` bf16 ({_shown(needed // 2)}), " if halves else ""
    raise ModelError(
        f"{folder}: its weights take {_shown(needed)} in {placement.precision}, but {placement.device} has"
        f" {_shown(free)} of free memory; use {remedy}a smaller model, or a machine with more memory"
    )


def _free(device: str) -> int | None:
    """Bytes; ``None`` where the system does not tell."""
    if device != "cpu":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    found = [number for number in (_of_machine(), _of_group()) if number is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    """What Linux could give without swapping."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(_MEMINFO), re.M)
    return int(found[1]) * 1024 if found else None


def _of_group() -> int | None:
    """What is left of a container's limit (cgroup v2); files that it has read can be dropped."""
    limit, used = _text(_GROUP / "memory.max").strip(), _text(_GROUP / "memory.current").strip()
    if not limit.isdecimal() or not used.isdecimal():
        return None
    dropped = re.search(r"^inactive_file (\d+)$", _text(_GROUP / "memory.stat"), re.M)
    return max(0, int(limit) - int(used) + (int(dropped[1]) if dropped else 0))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _shown(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
