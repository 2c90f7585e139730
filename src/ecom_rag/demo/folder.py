"""The demo's folder: which files it writes, and that it writes over nobody else's."""

from importlib import resources
from pathlib import Path

from ecom_rag.errors import UsageError
from ecom_rag.files import disk, publish

SAMPLES = ("seeds.jsonl", "bank.jsonl", "labelled.jsonl", "listings.jsonl")
RESULTS = ("recalled.jsonl", "recalled.jsonl.about.json", "policy.json", "decided.jsonl", "demo.html")
_BANK = ("seeds.jsonl", "judged.jsonl")  # packaged files that make the bank


def sample(name: str) -> bytes:
    """What a file of ``SAMPLES`` holds."""
    parts = _BANK if name == "bank.jsonl" else (name,)
    return b"".join((resources.files("ecom_rag") / "sample_data" / part).read_bytes() for part in parts)


def check_folder(target: Path) -> None:
    """Raise ``UsageError`` unless the folder is new, empty, or one that the demo made: it begins with its samples."""
    if disk.anything_at(target) and not target.is_dir():
        raise UsageError(f"{target}: is not a folder; name one with `folder`")
    there = [name for name in (*SAMPLES, *RESULTS) if disk.anything_at(target / name)]
    own = [name for name in SAMPLES if _is_sample(target / name, name)]
    made_here = SAMPLES[0] in own and (len(own) == len(SAMPLES) or there == own)
    if made_here and not any((target / name).is_symlink() for name in there):
        return
    if target.exists() and any(target.iterdir()):
        raise UsageError(
            f"{target}: holds files that the demo did not make, or made in another version; name a new"
            " folder with `folder`"
        )


def write_samples(target: Path) -> None:
    """Write the samples that are not there.

    Args:
        target: The folder, checked.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in SAMPLES:
        if not (target / name).exists():
            with publish.writing(target / name) as sink:
                sink.write(sample(name))


def _is_sample(path: Path, name: str) -> bool:
    return path.is_file() and path.read_bytes() == sample(name)
