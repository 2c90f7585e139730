"""Records into an output of any format: under its name only when complete, or streamed into a pipe."""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ecom_rag.files import disk, formats, publish, records
from ecom_rag.files.records import Record


def write(output: str, items: Iterable[Record]) -> int:
    """Write records; memory holds one at a time.

    Args:
        output: Path of a known record format; a pipe, a device or ``-`` (standard output) is written as the records
            come, as JSON lines where its name has no known ending.
        items: The records; read once.

    Returns:
        How many there were.

    Raises:
        UsageError: The output cannot be written, or its extension is not a known one.
    """
    target = publish.target_of(output)
    kind = formats.output_format(output, stream=target.stream)
    if kind == ".jsonl":
        with _sink(output) as sink:
            return _write_lines(sink, items)
    beside = None if target.stream else target.path.parent  # where the output will need the space as well
    with disk.writing(target.path), tempfile.TemporaryDirectory(prefix=".ecom-rag-", dir=beside) as folder:
        lines, whole = Path(folder) / "lines.jsonl", Path(folder) / f"whole{kind}"
        with lines.open("wb") as spool:
            count = _write_lines(spool, items)
        records.convert(lines, whole, kind)
        with whole.open("rb") as source, _sink(output) as sink:
            shutil.copyfileobj(source, sink)
    return count


def _write_lines(sink: IO[bytes], items: Iterable[Any]) -> int:
    count = 0
    for item in items:
        sink.write(records.dumps(item))
        count += 1
    return count


@contextlib.contextmanager
def _sink(output: str) -> Iterator[IO[bytes]]:
    if output == "-":
        with publish.leaving_reader():
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    with publish.writing(output) as sink:
        yield sink
