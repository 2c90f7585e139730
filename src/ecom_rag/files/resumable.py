"""Long jobs that survive being killed: blocks of results, a journal, and a final name only for a complete file.

While a run is under way its state lies in ``OUT.partial/``::

    settings.json    what the run was asked to do; a resumed run must be asked the same
    journal.json     how far it is: blocks, input records, a digest of them, bytes written, what was counted in them
                     (replaced atomically)
    lock             the mark of a work folder, and the lock of the process that writes there
    results.jsonl    finished blocks, synced to disk before the journal names them
    rejected.jsonl   refused input lines, noted anew by a resumed run, since it reads its input from the start
    cache/           whatever the run wants to keep, e.g. the seeds' embeddings

A ``kill -9`` at any moment leaves a journal that describes a prefix of the work; a resumed run cuts the files back to
that prefix and goes on. ``jobs`` cuts blocks by the input alone, so the final bytes do not depend on when the run was
killed. How names are given, and to what, is in ``publish``; whose a work folder is, in ``workfolders``.
"""

import contextlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ecom_rag import errors
from ecom_rag.errors import ResumeError
from ecom_rag.files import digest, disk, json_text, publish, records, workfolders
from ecom_rag.files.records import Record

logger = logging.getLogger(__name__)
_KIND = "results"


@dataclass
class _Journal:
    blocks: int = 0
    records: int = 0
    digest: str = ""
    result_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    complete: bool = False  # the final file is ready to take its name, or has taken it


class ResumableOutput:
    """A results file that appears under its name only when complete, and can be continued before that.

    Args:
        target: The file.
        format: Of the records in it.
        settings: Everything that decides the output's content; compared on resuming.
        resume: Continue an unfinished run of the same settings, where there is one.

    Attributes:
        notes: What a user should know of the files, one line each; complete after ``finish``.

    Raises:
        UsageError: Another run is writing there.
        ResumeError: The unfinished run had other settings.
    """

    def __init__(self, target: publish.Target, format: str, *, settings: Mapping[str, Any], resume: bool) -> None:
        self._target = target
        self.format = format
        self.notes: list[str] = []
        self.resumed_records = 0
        self.already_complete = False
        self._abandoned = False
        self._journal = _Journal()
        self._digest = digest.Digest()
        self._results: IO[bytes] | None = None
        self._rejected: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._folder = workfolders.partial(self._target.path)
        try:
            with disk.writing(self._folder):
                self._open(json.dumps(settings, sort_keys=True, default=str, indent=1), resume)
        except BaseException as error:
            self._give_up(nothing_begun=isinstance(error, OSError) and not resume)
            raise

    @property
    def cache(self) -> Path:
        """A folder that lives as long as the unfinished run."""
        return self._folder / "cache"

    @property
    def records(self) -> int:
        """Input records whose results are written."""
        return self._journal.records

    @property
    def counts(self) -> Counter[str]:
        """What was counted in all blocks that are written, those of an interrupted run included."""
        return Counter(self._journal.counts)

    def written(self) -> Iterator[Record]:
        """The results of the blocks that are written, from the first on."""
        with (self._folder / "results.jsonl").open("rb") as source:
            while source.tell() < self._journal.result_bytes:
                yield json_text.loads(source.readline().rstrip(b"\n"))

    def skip_done(self, items: Iterator[Record]) -> None:
        """Move a freshly opened input past the records that are already in the results.

        Raises:
            ResumeError: The input no longer begins with the records that were read before.
        """
        for _ in range(self._journal.records):
            record = next(items, None)
            if record is None:
                break
            self._digest.record(record)
            self.resumed_records += 1
        if self._journal.records and self._digest.value != self._journal.digest:
            raise ResumeError(
                f"{self._folder}: the input changed since the run was interrupted (its first"
                f" {self._journal.records} records differ); run again without `resume`"
            )

    def write_block(
        self,
        block: Iterable[Record],
        results: bytes,
        rejections: list[dict[str, Any]],
        counts: Mapping[str, int],
    ) -> None:
        """Write one block's results and make them durable.

        Args:
            block: The input records of the block.
            results: What to write for them, as lines.
            rejections: Lines refused since the last block; drained.
            counts: Added to ``counts``.
        """
        for record in block:
            self._digest.record(record)
            self._journal.records += 1
        self._journal.counts = dict(self.counts + Counter(counts))
        assert self._results is not None
        with disk.writing(self._folder):
            self._results.write(results)
            self.write_rejections(rejections)
            _sync(self._results)
            self._journal.blocks += 1
            self._journal.digest = self._digest.value
            self._journal.result_bytes = self._results.tell()
            self._save_journal()

    def write_rejections(self, rejections: list[dict[str, Any]]) -> None:
        """Note refused lines and empty the list."""
        if self._rejected is not None:
            self._rejected.writelines(records.dumps(item) for item in rejections)
            self._rejected.flush()
        rejections.clear()

    def abandon(self) -> None:
        """Nothing of this run is worth keeping: the error that ends it leaves nothing to resume."""
        self._abandoned = True

    def finish(self) -> None:
        """Give the complete file its name and remove the state."""
        if not self.already_complete:
            self._close()
            results, final = self._folder / "results.jsonl", self._final_source()
            if final != results:
                records.convert(results, final, self.format)
                disk.sync_file(final)
            self.notes += publish.rejects_notes(self._folder / "rejected.jsonl", self._target.name)
            self._journal.complete = True
            self._save_journal()
        if self._final_source().exists():
            publish.replace(self._final_source(), self._target.path)
        _discard(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._close()
        # A run that failed before it had anything to keep leaves nothing behind.
        empty = self._journal.blocks == 0 and not any((self._folder / "cache").glob("*"))
        if error is not None and (empty or self._abandoned):
            _discard(self._folder)
        elif error is not None:
            errors.mark_resumable(error)
        self._unlock()  # last: another run may take the folder from here on

    def _give_up(self, *, nothing_begun: bool) -> None:
        if self._lock is not None:
            if nothing_begun:  # on a full disk
                _discard(self._folder)
            self._unlock()  # at once, not when the error is forgotten: the caller may try again

    def _close(self) -> None:
        for handle in (self._results, self._rejected):
            if handle is not None:
                handle.close()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _final_source(self) -> Path:
        return self._folder / ("results.jsonl" if self.format == ".jsonl" else f"final{self.format}")

    def _open(self, settings: str, resume: bool) -> None:
        folder = self._folder
        self._lock = workfolders.take(folder, _KIND)
        before = _read_state(folder, damaged_is_none=not resume)
        if resume and before is not None:  # else there is nothing to continue: a first run
            asked, self._journal = before
            if asked != settings:
                raise ResumeError(
                    f"{folder}: the interrupted run had other settings ({_differences(asked, settings)});"
                    " give the same ones, or run again without `resume`"
                )
            self.already_complete = self._journal.complete
        else:
            if before is not None:
                self._tell_discarded(before[1].records)
            _forget(folder)
            workfolders.empty(folder)
            (folder / "settings.json").write_text(settings)
            self._save_journal()
        (folder / "cache").mkdir(exist_ok=True)
        if not self.already_complete:
            written = (folder / "results.jsonl").stat().st_size if (folder / "results.jsonl").exists() else 0
            if written < self._journal.result_bytes:
                raise ResumeError(
                    f"{folder}: results.jsonl holds {written} bytes instead of"
                    f" {self._journal.result_bytes}; run again without `resume`"
                )
            self._results = _open_at(folder / "results.jsonl", self._journal.result_bytes)
            self._rejected = _open_at(folder / "rejected.jsonl", 0)

    def _tell_discarded(self, finished: int) -> None:
        if finished:
            note = f"{finished} finished records of an interrupted run were discarded; `resume` would have continued it"
            logger.warning("note: %s", note)
            self.notes.append(note)

    def _save_journal(self) -> None:
        state = json.dumps(asdict(self._journal))
        disk.keep(self._folder / "journal.json", lambda path: path.write_text(state))
        disk.sync_folder(self._folder)


def _forget(folder: Path) -> None:
    """Remove the journal before what it speaks of: a kill in between leaves nothing that could be continued wrongly."""
    (folder / "journal.json").unlink(missing_ok=True)
    disk.sync_folder(folder)


def _discard(folder: Path) -> None:
    """Remove the folder of a run."""
    with contextlib.suppress(OSError):
        _forget(folder)
    workfolders.discard(folder)


def _read_state(folder: Path, *, damaged_is_none: bool) -> tuple[str, _Journal] | None:
    """What an interrupted run was asked and how far it is; ``None`` where one of the two is missing."""
    try:
        return (folder / "settings.json").read_text(), _Journal(**json.loads((folder / "journal.json").read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        if damaged_is_none:
            return None
        raise ResumeError(f"{folder}: the journal is damaged ({error}); remove the folder and run again") from None


def _open_at(path: Path, size: int) -> IO[bytes]:
    handle = path.open("r+b" if path.exists() else "w+b")
    handle.truncate(size)
    handle.seek(size)
    return handle


def _sync(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def _differences(before: str, now: str) -> str:
    old, new = json.loads(before), json.loads(now)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key}: {old.get(key)!r}, now {new.get(key)!r}" for key in changed[:3])
