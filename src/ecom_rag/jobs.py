"""Long jobs that survive being killed: blocks of results, a journal, and a final name only for a complete file.

While a run is under way its state lies in ``OUT.partial/``::

    settings.json    what the run was asked to do; a resumed run must be asked the same
    journal.json     how far it is: blocks, input records, a digest of them, bytes written (replaced atomically)
    results.jsonl    finished blocks, synced to disk before the journal names them
    rejected.jsonl   refused input lines, noted anew by a resumed run, since it reads its input from the start
    cache/           whatever the run wants to keep, e.g. the seeds' embeddings

A ``kill -9`` at any moment leaves a journal that describes a prefix of the work; ``--resume`` cuts the files back to
that prefix and goes on. Blocks are cut by the input alone, so the final bytes do not depend on when
the run was killed.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ecom_rag import disk, records
from ecom_rag.errors import ResumeError, UsageError
from ecom_rag.records import Record


@dataclass
class _Journal:
    blocks: int = 0
    records: int = 0
    digest: str = ""
    result_bytes: int = 0
    complete: bool = False  # the final file is ready to take its name, or has taken it


def blocks_of(
    items: Iterable[Record], *, max_records: int, max_size: int, size: Callable[[Record], int]
) -> Iterator[list[Record]]:
    """Cut a stream of records into blocks bounded in number and in size; depends on nothing but the stream.

    Args:
        items: The records.
        max_records: Most records a block.
        max_size: Most summed size a block; a single larger record is a block of its own.
        size: Size of a record, e.g. the length of its text.
    """
    block: list[Record] = []
    total = 0
    for record in items:
        weight = size(record)
        if block and (len(block) == max_records or total + weight > max_size):
            yield block
            block, total = [], 0
        block.append(record)
        total += weight
    if block:
        yield block


def check_output(output: str) -> None:
    """Raise ``UsageError`` if ``output`` could not be written, before any work is done for it."""
    records.file_format(output)
    if output == "-":
        return
    target = Path(output)
    if not target.parent.is_dir():
        raise UsageError(f"{output}: the folder {target.parent} does not exist; create it first")
    if target.is_dir():
        raise UsageError(f"{output}: is a folder; expected a file name")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"{output}: the folder {target.parent} may not be written; check its permissions")


def check_not_read(output: str, inputs: Iterable[str | Path | None]) -> None:
    """Raise ``UsageError`` if ``output`` is one of the files that the run reads."""
    for path in inputs:
        if path is not None and Path(output).exists() and Path(path).exists() and Path(path).samefile(output):
            raise UsageError(f"{output}: is also an input of this run; name another output")


class ResumableOutput:
    """A results file that appears under its name only when complete, and can be continued before that.

    Args:
        output: Path of a known record format, or ``-`` for standard output (which cannot be resumed).
        settings: Everything that decides the output's content; compared on resuming.
        resume: Continue an unfinished run of the same settings, where there is one.

    Raises:
        UsageError: The folder does not exist, another run is writing there, or ``resume`` with ``-``.
        ResumeError: The unfinished run had other settings.
    """

    def __init__(self, output: str, *, settings: Mapping[str, Any], resume: bool = False) -> None:
        check_output(output)
        self.output = output
        self.format = records.file_format(output)
        self.resumed_records = 0
        self.already_complete = False
        self._abandoned = False
        self._journal = _Journal()
        self._hash = hashlib.blake2b(digest_size=16)
        self._results: IO[bytes] = sys.stdout.buffer
        self._rejected: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._folder: Path | None = None
        if output == "-":
            if resume:
                raise UsageError("--resume needs a file to continue; give --output a path instead of -")
            return
        self._folder = Path(f"{output}.partial")
        try:
            self._open(json.dumps(settings, sort_keys=True, default=str, indent=1), resume)
        except BaseException:
            self._unlock()  # at once, not when the error is forgotten: the caller may try again
            raise

    @property
    def cache(self) -> Path | None:
        """A folder that lives as long as the unfinished run; ``None`` for standard output."""
        return self._folder / "cache" if self._folder else None

    @property
    def records(self) -> int:
        """Input records whose results are written."""
        return self._journal.records

    @property
    def rejected_path(self) -> str:
        """Where refused lines end up."""
        return f"{self.output}.rejected.jsonl"

    def skip_done(self, items: Iterator[Record]) -> None:
        """Move a freshly opened input past the records that are already in the results.

        Raises:
            ResumeError: The input no longer begins with the records that were read before.
        """
        for _ in range(self._journal.records):
            record = next(items, None)
            if record is None:
                break
            self._hash.update(records.dumps(record))
            self.resumed_records += 1
        if self._journal.records and self._hash.hexdigest() != self._journal.digest:
            raise ResumeError(
                f"{self.output}.partial: the input changed since the run was interrupted (its first"
                f" {self._journal.records} records differ); run again without --resume"
            )

    def write_block(self, block: Iterable[Record], results: Iterable[Record], rejections: list[dict[str, Any]]) -> None:
        """Write one block's results and make them durable.

        Args:
            block: The input records of the block.
            results: What to write for them.
            rejections: Lines refused since the last block; drained.
        """
        for record in block:
            self._hash.update(records.dumps(record))
            self._journal.records += 1
        self._results.write(b"".join(records.dumps(result) for result in results))
        self.write_rejections(rejections)
        if self._folder is None:
            self._results.flush()
            return
        _sync(self._results)
        self._journal.blocks += 1
        self._journal.digest = self._hash.hexdigest()
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
        if self._folder is None:
            self._results.flush()
            return
        if not self.already_complete:
            self._close()
            results, final = self._folder / "results.jsonl", self._final_source()
            if final != results:
                records.convert(results, final, self.format)
                disk.sync_file(final)
            rejected = self._folder / "rejected.jsonl"
            if rejected.stat().st_size:
                shutil.copyfile(rejected, f"{rejected}.copy")
                disk.sync_file(Path(f"{rejected}.copy"))
                Path(f"{rejected}.copy").replace(self.rejected_path)
            else:
                Path(self.rejected_path).unlink(missing_ok=True)  # an earlier run's; this one refused nothing
            self._journal.complete = True
            self._save_journal()
        if self._final_source().exists():
            self._final_source().replace(self.output)
            disk.sync_folder(Path(self.output).parent)
        _discard(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._folder is None:
            return
        self._close()
        # A run that failed before it had anything to keep leaves nothing behind.
        empty = self._journal.blocks == 0 and not any((self._folder / "cache").glob("*"))
        if error is not None and (empty or self._abandoned):
            _discard(self._folder)
        self._unlock()  # last: another run may take the folder from here on

    def _close(self) -> None:
        for handle in (self._results, self._rejected):
            if handle is not None and handle is not sys.stdout.buffer:
                handle.close()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _final_source(self) -> Path:
        assert self._folder is not None
        return self._folder / ("results.jsonl" if self.format == ".jsonl" else f"final{self.format}")

    def _open(self, settings: str, resume: bool) -> None:
        folder = self._folder
        assert folder is not None
        journal_path = folder / "journal.json"
        if resume and not (journal_path.exists() and (folder / "settings.json").exists()):
            resume = False  # nothing to continue: a first run
        if folder.exists():
            self._take_lock(folder)
        if resume:
            before = (folder / "settings.json").read_text()
            if before != settings:
                changed = _differences(before, settings)
                raise ResumeError(f"{folder}: the interrupted run had other settings ({changed}); give the same ones,"
                                  " or run again without --resume")  # fmt: skip
            self._journal = _Journal(**json.loads(journal_path.read_text()))
            self.already_complete = self._journal.complete
        else:
            if folder.exists():
                _forget(folder)
                for item in folder.iterdir():
                    if item.name != "lock":
                        shutil.rmtree(item) if item.is_dir() else item.unlink()
            folder.mkdir(exist_ok=True)
            self._take_lock(folder)
            (folder / "settings.json").write_text(settings)
            self._save_journal()
        (folder / "cache").mkdir(exist_ok=True)
        if not self.already_complete:
            written = (folder / "results.jsonl").stat().st_size if (folder / "results.jsonl").exists() else 0
            if written < self._journal.result_bytes:
                raise ResumeError(f"{folder}: results.jsonl holds {written} bytes instead of"
                                  f" {self._journal.result_bytes}; run again without --resume")  # fmt: skip
            self._results = _open_at(folder / "results.jsonl", self._journal.result_bytes)
            self._rejected = _open_at(folder / "rejected.jsonl", 0)

    def _take_lock(self, folder: Path) -> None:
        if self._lock is not None:
            return
        self._lock = disk.locked(folder / "lock")
        if self._lock is None:
            raise UsageError(f"{folder}: another run is writing {self.output}; wait for it or name another output")

    def _save_journal(self) -> None:
        assert self._folder is not None
        fresh = self._folder / "journal.json.new"
        with fresh.open("w") as handle:
            json.dump(asdict(self._journal), handle)
            handle.flush()
            os.fsync(handle.fileno())
        fresh.replace(self._folder / "journal.json")
        disk.sync_folder(self._folder)


def _forget(folder: Path) -> None:
    """Remove the journal before what it speaks of: a kill in between leaves nothing that could be continued wrongly."""
    (folder / "journal.json").unlink(missing_ok=True)
    disk.sync_folder(folder)


def _discard(folder: Path) -> None:
    """Remove the folder of a run."""
    with contextlib.suppress(OSError):
        _forget(folder)
    shutil.rmtree(folder, ignore_errors=True)


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
