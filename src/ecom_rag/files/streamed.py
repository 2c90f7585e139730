"""Results into a pipe or a device: written as they come, never continued."""

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ecom_rag.files import publish, records
from ecom_rag.files.records import Record


class StreamOutput:
    """What ``ResumableOutput`` is for a file, for a pipe, a device or ``-`` (standard output).

    Args:
        target: The stream.
        format: Of the records; one that cannot be written line by line is made in a temporary file first.
    """

    cache = None
    already_complete = False
    resumed_records = 0

    def __init__(self, target: publish.Target, format: str) -> None:
        self.format = format
        self.notes: list[str] = []
        self.records = 0
        self.counts: Counter[str] = Counter()
        self._target = target
        self._results: IO[bytes] = sys.stdout.buffer
        self._spool: tempfile.TemporaryDirectory[str] | None = None
        if format != ".jsonl":
            self._spool = tempfile.TemporaryDirectory(prefix="ecom-rag-")
            self._results = (Path(self._spool.name) / "results.jsonl").open("wb")
        elif target.name != "-":
            self._results = publish.open_stream(target)

    def skip_done(self, items: Iterator[Record]) -> None:
        """Nothing is done yet."""

    def written(self) -> Iterator[Record]:
        """Nothing is written yet."""
        return iter(())

    def write_block(
        self,
        block: Iterable[Record],
        results: bytes,
        rejections: list[dict[str, Any]],
        counts: Mapping[str, int],
    ) -> None:
        """Write one block's results; see ``ResumableOutput.write_block``."""
        self.records += sum(1 for _ in block)
        self.counts.update(counts)
        rejections.clear()
        self._results.write(results)
        self._results.flush()

    def write_rejections(self, rejections: list[dict[str, Any]]) -> None:
        """There is no place for refused lines."""
        rejections.clear()

    def abandon(self) -> None:
        """What was written cannot be taken back."""

    def finish(self) -> None:
        """Everything is written."""
        self._results.flush()
        if self._spool is None:
            return
        final = Path(self._spool.name) / "final"
        records.convert(Path(self._spool.name) / "results.jsonl", final, self.format)
        with final.open("rb") as source, publish.open_stream(self._target) as sink:
            shutil.copyfileobj(source, sink)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with publish.leaving_reader():
            try:
                self._close()
            except OSError:
                if error is None:
                    raise
            if isinstance(error, BrokenPipeError):
                raise error
        if isinstance(error, OSError) and not error.filename:
            error.filename = "standard output" if self._target.name == "-" else self._target.name

    def _close(self) -> None:
        if self._results is not sys.stdout.buffer:
            self._results.close()
        if self._spool is not None:
            self._spool.cleanup()
