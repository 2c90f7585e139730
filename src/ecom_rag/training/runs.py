"""The folder of an unfinished run, ``OUTPUT.partial``: what was asked, the dev measure before, checkpoints, a lock."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecom_rag import errors
from ecom_rag.errors import ResumeError
from ecom_rag.files import disk, workfolders
from ecom_rag.training.callbacks import complete_checkpoints
from ecom_rag.training.losses.distributed import rank

_ASKED = "run.json"
_KIND = "training"
_LARGEST_REPORT = 1 << 30  # bytes; it holds the log of all steps


@contextlib.contextmanager
def alone(work: Path) -> Iterator[None]:
    """Hold the folder of a run; the first rank does that for all.

    Raises:
        UsageError: Another process is at it.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    with workfolders.held(work, _KIND):
        try:
            yield
        except BaseException as error:
            if (work / _ASKED).exists():
                errors.mark_resumable(error)
            raise
        finally:
            if not (work / _ASKED).exists():  # nothing was begun, or all is done
                workfolders.discard(work)


def finished_report(output: Path, work: Path) -> dict[str, Any] | None:
    """The report of a run that was killed between naming its output and removing its folder, which is done here."""
    if not workfolders.is_ours(work, _KIND):
        return None
    try:
        report = disk.read_note(output / "train_report.json", limit=_LARGEST_REPORT)
        asked = disk.read_note(work / _ASKED)
        if report["recipe"] != asked["recipe"] or report["data"]["digest"] != asked["data"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    clear(work)
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
            raise ResumeError(f"{work}: holds an unfinished run; go on with `resume`, or remove that folder")
        try:
            kept = disk.read_note(settings)
            if not isinstance(kept.get("recipe"), dict):
                raise ValueError(f"{settings} holds no recipe")
        except ValueError as error:
            raise ResumeError(f"{error}; remove {work} to begin anew") from None
        different = [key for key in asked if asked[key] != kept.get(key)]
        if different:
            what = _difference(asked["recipe"], kept["recipe"]) if "recipe" in different else different[0]
            raise ResumeError(
                f"{work}: the unfinished run had another {what}; resume with what it began with, or"
                " remove that folder to begin anew"
            )
        done = complete_checkpoints(work)
        return done[-1] if done else None
    text = json.dumps(asked, indent=1, ensure_ascii=False)
    workfolders.empty(work)
    disk.keep(settings, lambda path: path.write_text(text, encoding="utf-8"))
    return None


def clear(work: Path) -> None:
    """Remove the folder of a run whose output has its name."""
    (work / _ASKED).unlink(missing_ok=True)  # first: what is left cannot be taken for an unfinished run
    workfolders.discard(work)


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
