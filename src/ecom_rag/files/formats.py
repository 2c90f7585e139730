"""The file formats of records, one line each. To add one, write its two functions and its line.

A reader gives what lies in the file, in order and with its place; ``records`` checks it. What is written are finished
JSON lines, as ``json_text.dumps`` makes them.
"""

import contextlib
import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import csv_files, json_files, parquet

DAMAGED_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)


@dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    Args:
        endings: Of file names; what ends in ``.gz`` is unpacked before reading and packed after writing.
        read: From a name for errors and an open file to places and items, one at a time. An item is bytes of JSON, an
            object, or ``values.Refused``. A place is e.g. ``seeds.jsonl:7``.
        write: From a file of JSON lines to an open file; the same lines give the same bytes.
    """

    endings: tuple[str, ...]
    read: Callable[[str, IO[bytes]], Iterator[tuple[str, Any]]]
    write: Callable[[Path, IO[bytes]], None]


FORMATS = (
    Format((".jsonl", ".jsonl.gz"), json_files.lines, json_files.write_lines),
    Format((".json",), json_files.array, json_files.write_array),
    Format((".csv", ".csv.gz"), csv_files.read, csv_files.write),
    Format((".tsv", ".tsv.gz"), partial(csv_files.read, delimiter="\t"), partial(csv_files.write, delimiter="\t")),
    Format((".parquet",), parquet.read, parquet.write),
)
ENDINGS = tuple(ending for one in FORMATS for ending in one.endings)
_BY_ENDING = {ending: one for one in FORMATS for ending in one.endings}


def file_format(path: PathLike) -> str:
    """The format of a path, as the ending that names it; ``-`` (a pipe) is ``.jsonl``.

    Raises:
        UsageError: The ending is none of the known ones.
    """
    path = path_of(path, "path")
    if path == "-":
        return ".jsonl"
    ending = max((ending for ending in ENDINGS if path.endswith(ending)), key=len, default=None)
    if ending is None:
        raise UsageError(f"{path}: unknown file type; expected one of {', '.join(ENDINGS)}, or - for a pipe")
    return ending


def output_format(name: str, *, stream: bool) -> str:
    """The format of an output, as the ending that names it.

    Args:
        name: Of the output.
        stream: Whether it is a pipe or a device: these need no known ending to be JSON lines.

    Raises:
        UsageError: The ending is none of the known ones.
    """
    return ".jsonl" if stream and not name.endswith(ENDINGS) else file_format(name)


def items(path: str, ending: str) -> Iterator[tuple[str, Any]]:
    """Place and item of everything that a file holds, as its format reads it.

    Args:
        path: The file; ``-`` is standard input.
        ending: Of its format.

    Raises:
        RecordError: It is damaged, so that nothing behind the place can be read.
        UsageError: It is not there, or may not be read.
    """
    name = "stdin" if path == "-" else path
    try:
        with contextlib.ExitStack() as stack:
            source = sys.stdin.buffer if path == "-" else stack.enter_context(Path(path).open("rb"))
            unpacked: Any = gzip.open(source) if ending.endswith(".gz") else source
            yield from _BY_ENDING[ending].read(name, unpacked)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; check the path, or pass - to read standard input") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; expected a file ({', '.join(ENDINGS)})") from None
    except PermissionError:
        raise UsageError(f"{path}: may not be read; check its permissions") from None
    except DAMAGED_GZIP as error:
        raise RecordError(path, f"damaged gzip file ({error}); expected a complete {ending}, copy it again") from None
    except OSError as error:  # a disk that fails, a descriptor that is not for reading
        raise UsageError(f"{name}: cannot be read ({error.strerror or error}); check the file and its disk") from None


def convert(jsonl: Path, target: Path, ending: str) -> None:
    """Write finished JSON lines as another format, with the same bytes for the same input.

    Args:
        jsonl: File of JSON lines that this toolkit wrote.
        target: File to write.
        ending: Of its format; ``.gz`` is compressed.
    """
    with contextlib.ExitStack() as stack:
        sink: Any = stack.enter_context(target.open("wb"))
        if ending.endswith(".gz"):
            zipped = gzip.GzipFile(filename="", mode="wb", fileobj=sink, mtime=0, compresslevel=6)
            sink = stack.enter_context(zipped)
        _BY_ENDING[ending].write(jsonl, sink)
