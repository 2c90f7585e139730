"""Judgements and runs as files: TREC's forms, and results of this toolkit.

A file is read whole: an evaluation needs all of it. Every line that does not fit is an error with its place.
"""

import contextlib
import gzip
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import publish, records
from ecom_rag.files.formats import DAMAGED_GZIP
from ecom_rag.files.records import Record
from ecom_rag.files.results import check_result

Run = dict[str, list[str]]
"""Query id -> ids of the documents found, best first."""

Qrels = dict[str, dict[str, int]]
"""Query id -> document id -> grade; 1 and above is relevant."""

_HIGHEST = 100_000  # grade; trec_eval's code takes memory in proportion
RUN_ENDINGS = (".trec", ".run", ".txt", ".trec.gz", ".run.gz", ".txt.gz")


def read_qrels(path: PathLike) -> Qrels:
    """Judgements: TREC (query, iteration, document, grade) or BEIR (header, then query, document, grade).

    A judgement that stands twice with one grade is one judgement. Grades are whole numbers, also written ``2.0``.

    Raises:
        UsageError: No such file, or it judges nothing.
        RecordError: A line that does not fit, or that judges otherwise than an earlier one.
    """
    path = path_of(path, "path")
    qrels: Qrels = {}
    lines: dict[tuple[str, str], int] = {}
    for number, where, line in _text_lines(path):
        fields = line.split("\t") if line.count("\t") == 2 else line.split()
        if number == 1 and len(fields) == 3 and not _is_number(fields[2]):
            continue  # BEIR's header
        if len(fields) not in (3, 4):
            raise RecordError(
                where,
                f"{len(fields)} fields; expected query, document, grade (BEIR) or query, 0, document, grade (TREC)",
            )
        query, document, grade = fields[0].strip(), fields[-2].strip(), _grade(where, fields[-1].strip())
        first = lines.setdefault((query, document), number)
        known = qrels.setdefault(query, {}).setdefault(document, grade)
        if known != grade:
            raise RecordError(
                where,
                f"query {query!r} and document {document!r} are judged twice, {known} on line"
                f" {first} and {grade} here; remove one line",
            )
    if not qrels:
        raise UsageError(f"{path}: holds no judgements; expected lines of query, document, grade")
    return qrels


def write_qrels(qrels: Qrels, path: str) -> None:
    """Write judgements in TREC's form; ids must hold no white space.

    Raises:
        UsageError: An id that the form cannot hold.
    """
    with writing(path) as sink:
        for query, judged in qrels.items():
            for document, grade in judged.items():
                sink.write(f"{_plain(query, path)} 0 {_plain(document, path)} {grade}\n".encode())


def read_run(path: PathLike) -> Run:
    """A TREC run: query, Q0, document, rank, score, tag. As for trec_eval the score decides, not the rank.

    Equal scores are ordered by document id, descending, as trec_eval does.

    Raises:
        UsageError: No such file, or it holds nothing.
        RecordError: A line that does not fit.
    """
    path = path_of(path, "path")
    found: dict[str, dict[str, float]] = {}
    for _, where, line in _text_lines(path):
        fields = line.split()
        if len(fields) != 6:
            raise RecordError(where, f"{len(fields)} fields; expected query, Q0, document, rank, score, tag")
        query, _, document, _, text, _ = fields
        try:
            score = float(text)
        except ValueError:
            score = float("nan")
        if not np.isfinite(score):
            raise RecordError(where, f"the score is {text!r}; expected a number")
        if document in found.setdefault(query, {}):
            raise RecordError(where, f"document {document!r} stands twice under query {query!r}; remove one line")
        found[query][document] = score
    if not found:
        raise UsageError(f"{path}: the run is empty; expected lines of query, Q0, document, rank, score, tag")
    return {
        query: [
            document for document, _ in sorted(scored.items(), key=lambda d: (np.float32(d[1]), d[0]), reverse=True)
        ]
        for query, scored in found.items()
    }


def write_run(results: Iterable[tuple[str, list[str], list[float]]], path: str, *, tag: str = "ecom_rag") -> None:
    """Write a TREC run that trec_eval ranks as the results stand.

    trec_eval sorts by score in float32 and breaks ties by id, so equal scores are written a float32 step apart.

    Args:
        results: Query id, document ids best first, and their scores.
        path: File to write; ``.gz`` is compressed.
        tag: The run's name, last in each line.

    Raises:
        UsageError: An id that the form cannot hold.
    """
    with writing(path) as sink:
        for query, documents, scores in results:
            last = np.float32(np.inf)
            for rank, (document, score) in enumerate(zip(documents, scores, strict=True), start=1):
                last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
                line = f"{_plain(query, path)} Q0 {_plain(document, path)} {rank} {last!s} {_plain(tag, path)}\n"
                sink.write(line.encode())


def read_results(path: PathLike, *, check: Callable[[Record], None] | None = None) -> list[Record]:
    """Results of ``ecom-rag score``, ``recall`` or ``rerank``.

    Args:
        path: File of records with ``topk_sim``, ``topk_seed``, ``topk_metadata``; ``-`` is standard input.
        check: A further check; raises ``ValueError`` with the reason, which becomes an error with the line's place.

    Raises:
        UsageError: No such file, or it holds nothing.
        RecordError: A line that does not fit.
    """
    return [result for _, result in placed_results(path, check=check)]


def placed_results(path: PathLike, *, check: Callable[[Record], None] | None = None) -> Iterator[tuple[str, Record]]:
    """As ``read_results``, one at a time, each with its place."""

    def whole(record: Record) -> None:
        check_result(record)
        if check is not None:
            check(record)

    where = None
    for where, result in records.placed(path, check=whole):
        yield where, result
    if where is None:
        raise UsageError(f"{path}: the run is empty; expected results of ecom-rag score, recall or rerank")


# --- files ------------------------------------------------------------------------------------------------------------


def _text_lines(path: str) -> Iterator[tuple[int, str, str]]:
    """Number, place and text of the lines that hold something."""
    if not Path(path).is_file():
        raise UsageError(f"{path}: {'is a folder' if Path(path).is_dir() else 'no such file'}; expected a file")
    try:
        with gzip.open(path) if path.endswith(".gz") else Path(path).open("rb") as source:
            for number, line in enumerate(source, start=1):
                text = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).decode().strip("\r\n ")
                if text:
                    yield number, f"{path}:{number}", text
    except DAMAGED_GZIP as error:
        raise RecordError(path, f"damaged gzip file ({error}); copy it again") from None
    except UnicodeDecodeError as error:
        raise RecordError(path, f"not UTF-8 ({error.reason}); convert the file to UTF-8") from None


@contextlib.contextmanager
def writing(path: str) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is complete; ``.gz`` is compressed.

    Raises:
        UsageError: It cannot be written.
    """
    with publish.writing(path) as sink:
        if path.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", fileobj=sink, mtime=0) as zipped:
                yield zipped  # type: ignore[misc]
        else:
            yield sink


def _plain(name: str, path: str) -> str:
    if not name or any(character.isspace() for character in name):
        raise UsageError(f"{path}: the id {name!r} holds white space or nothing, which TREC's form cannot hold")
    return name


def _grade(where: str, text: str) -> int:
    whole = re.fullmatch(r"([+-]?[0-9]{1,300})(?:\.0*)?", text)
    if whole is None or abs(int(whole[1])) > _HIGHEST:
        raise RecordError(
            where, f"the grade is {text!r:.40}; expected a whole number of at most {_HIGHEST}, 0 for not relevant"
        )
    return int(whole[1])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
