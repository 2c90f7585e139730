"""A file of records on its way into a bank, and what is told of it."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecom_rag.cli.console import tell, tell_notes
from ecom_rag.errors import UsageError
from ecom_rag.files import publish, records
from ecom_rag.files.identity import id_of
from ecom_rag.files.records import Record
from ecom_rag.seeds.address import Address, is_address
from ecom_rag.seeds.bank import Built


class Source:
    """A file of records on its way into a bank, and the lines that were refused."""

    def __init__(self, path: str, bank: str, id_key: str, on_bad_line: str) -> None:
        if path != "-" and not Path(path).is_file():
            raise UsageError(f"{path}: no such file; check the path, or pass - to read standard input")
        records.file_format(path)
        self.path = path
        self.report = records.ReadReport()
        self.notes: list[str] = []
        self._beside = Address.of(bank).name if is_address(bank) else bank.rstrip("/")
        self._id_key = id_key
        self._on_bad_line = str(on_bad_line)

    def records(self) -> Iterator[Record]:
        """The records; what is refused on the way is written down at the end, be it an early one."""
        with tempfile.TemporaryDirectory(prefix="ecom-rag-") as folder:
            refused = Path(folder) / "refused"
            with refused.open("wb") as sink:
                try:
                    for record in records.read(
                        self.path, on_bad_line=self._on_bad_line, check=self._check, report=self.report
                    ):
                        self._drain(sink)
                        yield record
                finally:
                    self._drain(sink)
                    sink.flush()
                    self.notes = publish.rejects_notes(refused, self._beside)

    def _check(self, record: Record) -> None:
        id_of(record["metadata"], self._id_key)

    def _drain(self, sink: Any) -> None:
        sink.writelines(map(records.dumps, self.report.rejections))
        self.report.rejections.clear()


def say(what: str, started: float, built: Built, source: Source) -> None:
    """The summary line at the end of a run, and its notes."""
    seconds = time.monotonic() - started
    resumed = f", {built.resumed} of them before the interruption" if built.resumed else ""
    replaced = f", {built.replaced} took another's place" if built.replaced else ""
    tell(f"{what}{resumed}{replaced} in {seconds:.1f} s")
    tell_notes([*built.notes, *source.notes])
    if source.report.surrogates_replaced:
        tell(f"note: {source.report.surrogates_replaced} records held lone surrogates, replaced by U+FFFD")
    if built.records == 0:
        why = "all lines of the input were refused" if source.report.rejected else "the input held no records"
        tell(f"note: {why}: the bank is as it was")
