"""The folder of an unfinished run, ``OUTPUT.partial``: what was asked, the dev measure before, checkpoints, a lock."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecom_rag import disk
from ecom_rag.errors import ResumeError, UsageError
from ecom_rag.training.callbacks import complete_checkpoints
from ecom_rag.training.losses.distributed import rank

_ASKED = "run.json"
_LARGEST_REPORT = 1 << 30  # bytes; it holds the log of all steps


def check_output(output: Path) -> None:
    """Raise ``UsageError`` if the finished folder could not be put there."""
    if not output.name:
        raise UsageError(f"output is {str(output)!r}; name a folder that is not there yet")
    if output.exists():
        raise UsageError(f"{output}: already exists; name another output in the recipe, or remove it")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output}: the folder {output.absolute().parent} does not exist; create it first")


def work_folder(output: Path) -> Path:
    """Where the run of an output lies until it is finished."""
    return output.with_name(f"{output.name}.partial")


@contextlib.contextmanager
def alone(work: Path) -> Iterator[None]:
    """Hold the folder of a run; the first rank does that for all.

    Raises:
        UsageError: Another process is at it.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    new = not work.exists()
    work.mkdir(parents=True, exist_ok=True)
    lock = disk.locked(work / "lock")
    if lock is None:
        raise UsageError(f"{work}: another process is training into it; wait for it or name another output")
    with lock:
        try:
            yield
        finally:
            if new and not (work / _ASKED).exists():  # nothing was begun
                shutil.rmtree(work, ignore_errors=True)


def finished_report(output: Path, work: Path) -> dict[str, Any] | None:
    """The report of a run that was killed between naming its output and removing its folder, which is done here."""
    try:
        report = disk.read_note(output / "train_report.json", limit=_LARGEST_REPORT)
        asked = disk.read_note(work / _ASKED)
        if report["recipe"] != asked["recipe"] or report["data"]["digest"] != asked["data"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    shutil.rmtree(work)
    return report


def open_run(work: Path, asked: dict[str, Any], resume: bool) -> Path | None:
    """The checkpoint to go on from, after making sure that it is of this very run; the first rank does that for all."""
    if int(os.environ.get("RANK", "0")) > 0:
        done = complete_checkpoints(work) if resume else []
        return done[-1] if done else None
    asked = json.loads(json.dumps(asked))
    settings = work / _ASKED
    if settings.exists():
        if not resume:
            raise ResumeError(f"{work}: holds an unfinished run; go on with --resume, or remove that folder")
        try:
            kept = disk.read_note(settings)
            if not isinstance(kept.get("recipe"), dict):
                raise ValueError(f"{settings} holds no recipe")
        except ValueError as error:
            raise ResumeError(f"{error}; remove {work} to begin anew") from None
        different = [key for key in asked if asked[key] != kept.get(key)]
        if different:
            what = _difference(asked["recipe"], kept["recipe"]) if "recipe" in different else different[0]
            raise ResumeError(f"{work}: the unfinished run had another {what}; resume with what it began with, or"
                              " remove that folder to begin anew")  # fmt: skip
        done = complete_checkpoints(work)
        return done[-1] if done else None
    fresh = settings.with_suffix(".new")
    fresh.write_text(json.dumps(asked, indent=1, ensure_ascii=False), encoding="utf-8")
    fresh.replace(settings)
    return None


def _difference(asked: dict[str, Any], kept: dict[str, Any]) -> str:
    for key, value in asked.items():
        other = kept.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            if value != other:
                return f"{key}.{_difference(value, other)}"
        elif value != other:
            return f"{key} ({other!r}, now {value!r})"
    return "recipe"


def baseline(work: Path, dev: Any, model: Any, resume_from: Path | None) -> float | None:
    """The dev measure before training, kept for a resumed run."""
    if dev is None or rank() > 0:
        return None
    kept = work / "before.json"
    if not (resume_from and kept.exists()):
        kept.write_text(json.dumps(dev(model)), encoding="utf-8")
    try:
        return float(disk.read_note(kept)[dev.primary_metric])
    except (ValueError, KeyError, TypeError):
        raise ResumeError(f"{kept}: does not hold the measure before training; remove {work} to begin anew") from None
