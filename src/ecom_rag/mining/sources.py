"""What is mined: queries with their positives, and the corpus that negatives come from.

Queries are FlagEmbedding's JSON lines (``query``, ``pos``), a BEIR folder, or labelled records, whose positives are
other texts of their label. All become the same plain objects::

    {"query": str, "pos": [str], "labels": [str], "known": [int], "grades": [int] | None, "rest": {...}}

``known`` are the groups of the corpus that are no negatives: the query and whatever any line with the same query has
as a positive; ``labels`` are those of all its lines; ``grades`` are those of ``pos``, where asked for; ``rest`` are
keys that pass through, e.g. ``prompt`` and ``type``.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.beir import Beir, read_beir
from ecom_rag.files.identity import label_at
from ecom_rag.files.records import Record
from ecom_rag.mining.rules import random_of
from ecom_rag.mining.triples import JSON_LINES, read_triples
from ecom_rag.text.normalization import canonical

KINDS = {"labelled": "labelled records", "triples": "queries with pos and neg", "beir": "BEIR folder"}
_BLOCK = 1024  # queries whose forms are made at once
_REPLACED = ("query", "pos", "neg", "pos_scores", "neg_scores")


class Corpus:
    """Distinct texts with their labels.

    Attributes:
        texts: Each once.
        blank: How many were left out because they hold nothing.
        groups: ``(texts,)``: those that are the same text (``ecom_rag.text.normalization.canonical``) have one number.
    """

    def __init__(self, items: Sequence[tuple[str, str | None]]) -> None:
        self.rows: dict[str, int] = {}
        self.blank = sum(1 for text, _ in items if not text.strip())
        members: dict[str, set[int]] = defaultdict(set)
        for text, label in items:
            if not text.strip():
                continue
            row = self.rows.setdefault(text, len(self.rows))
            if label is not None:
                members[label].add(row)
        self.texts = list(self.rows)
        self._members = {label: np.array(sorted(rows), np.int64) for label, rows in members.items()}
        self._first: dict[str, int] = {}
        first = [self._first.setdefault(form, row) for row, form in enumerate(canonical(self.texts))]
        self.groups = np.unique(np.array(first, np.int64), return_inverse=True)[1]

    def __len__(self) -> int:
        return len(self.texts)

    def of_labels(self, labels: Iterable[str]) -> NDArray[np.int64]:
        """Rows of some labels."""
        found = [self._members[label] for label in labels if label in self._members]
        return np.concatenate([np.empty(0, np.int64), *found])

    def rows_of(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Rows of texts: where the corpus lacks a text its first copy, and where it has none of these either -1."""
        others = [text for text in texts if text not in self.rows]
        copies = dict(zip(others, map(self._first.get, canonical(others)), strict=True))
        found = (self.rows.get(text, copies.get(text)) for text in texts)
        return np.array([-1 if row is None else row for row in found], np.int64)

    def groups_of(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Groups of texts; those of which the corpus has no copy are left out."""
        rows = self.rows_of(texts)
        return self.groups[rows[rows >= 0]]


@dataclass(frozen=True, slots=True)
class Source:
    """Queries of one kind.

    Args:
        path: File or folder.
        kind: A key of ``KINDS``.
        split: Of a BEIR folder.
        min_grade: From which a judged document is a positive; a lower one above 0 is neither positive nor negative.
        label: Key of the label in the metadata of records.
        positives: Of labelled records, texts of the same label put into ``pos``.
        seed: Of their choice.
        judged_only: Of a BEIR folder, negatives only from documents that are judged for some query of the split. A
            document that is always a negative is learned as never relevant, and those that are judged for validation
            and test queries alone are just such documents.
        grades: Of a BEIR folder, say the grade of each positive.
        items: The queries or records themselves, checked, where they do not lie in a file.
    """

    path: str
    kind: str
    split: str = "train"
    min_grade: int = 1
    label: str = "label"
    positives: int = 4
    seed: int = 42
    judged_only: bool = False
    grades: bool = False
    items: Sequence[Record] | None = None


def kind_of(path: str, *, use: str = "mine for") -> str:
    """What a path holds: ``beir``, ``triples`` or ``labelled``, told by the first line of a file.

    Args:
        path: File or folder.
        use: What its texts are wanted for, for the message about a file that has none.

    Raises:
        UsageError: None of the three.
    """
    if Path(path).is_dir():
        return "beir"
    if not Path(path).is_file():
        raise UsageError(
            f"{path}: no such file or folder; expected labelled records, queries with pos and neg, or a BEIR folder"
        )
    if not path.endswith(JSON_LINES):
        return "labelled"
    where, first = next(records.objects(path), ("", None))
    if first is None:
        raise UsageError(f"{path}: is empty; there is nothing to {use}")
    if "query" in first:
        return "triples"
    if "text" in first:
        return "labelled"
    raise UsageError(
        f"{where}: found keys {', '.join(list(first)[:8])}; expected a query with pos and neg, or a record with text"
    )


def read_corpus(source: Source, seeds: str | Sequence[Record] | None) -> Corpus:
    """The texts that negatives come from: ``seeds`` (a file, or checked records), or what the queries' source holds.

    Raises:
        UsageError: There are none.
        RecordError: A line that does not fit.
    """
    if seeds is not None:
        items = _labelled(records.placed(seeds) if isinstance(seeds, str) else _numbered(seeds, "seed"), source.label)
    elif source.kind == "beir":
        beir = read_beir(source.path, source.split)
        kept = beir.judged(least=0) if source.judged_only else None
        items = [(item["text"], None) for item in beir.documents() if kept is None or item["metadata"]["id"] in kept]
    elif source.kind == "labelled":
        items = _labelled(_records(source), source.label)
    else:
        items = [(text, None) for item in _triples(source) for text in (*item["pos"], *item["neg"])]
    corpus = Corpus(items)
    if not len(corpus):
        where = seeds if isinstance(seeds, str) else source.path or "corpus"
        raise UsageError(f"{where}: holds no texts; there is nothing to mine from")
    return corpus


def _numbered(items: Iterable[Record], what: str) -> Iterator[tuple[str, Record]]:
    """Records from Python with a name each, for errors."""
    return ((f"{what} {number}", item) for number, item in enumerate(items))


def _labelled(items_by_place: Iterable[tuple[str, Record]], key: str) -> list[tuple[str, str | None]]:
    """Texts with their labels, ``None`` where a record has none."""
    return [(item["text"], label_at(where, item["metadata"], key)) for where, item in items_by_place]


class Queries:
    """The queries of a source as plain objects, in file order; all lines are checked before the first is given.

    A query or copies of it (``ecom_rag.text.normalization.canonical``) may stand on several lines: what one of them
    has as a positive is no negative of the others.

    Attributes:
        left_out: What had no text, and how many of it.

    Raises:
        UsageError: A part of the source is missing.
        RecordError: A line that does not fit.
    """

    def __init__(self, source: Source, corpus: Corpus) -> None:
        self._source, self._corpus = source, corpus
        self.left_out: Counter[str] = Counter()
        self._lines = 0
        self._known: dict[str, dict[int, None]] = {}
        self._labels: dict[str, dict[str, None]] = {}
        for asked, item in self._with_forms(self.left_out):
            self._lines += 1
            groups = corpus.groups_of([item["query"], *item["pos"], *item["known"]])
            self._known.setdefault(asked, {}).update(dict.fromkeys(groups.tolist()))
            self._labels.setdefault(asked, {}).update(dict.fromkeys(item["labels"]))

    def __len__(self) -> int:
        return self._lines

    def __iter__(self) -> Iterator[Record]:
        for asked, item in self._with_forms(Counter()):
            yield {**item, "known": list(self._known[asked]), "labels": list(self._labels[asked])}

    def _with_forms(self, left_out: Counter[str]) -> Iterator[tuple[str, Record]]:
        """Lines with the canonical forms of their queries."""
        lines = self._read(left_out)
        while block := list(islice(lines, _BLOCK)):
            yield from zip(canonical([item["query"] for item in block]), block, strict=True)

    def _read(self, left_out: Counter[str]) -> Iterator[Record]:
        """One line at a time, with further texts that are no negatives as ``known``."""
        if self._source.kind == "beir":
            yield from _of_beir(self._source, read_beir(self._source.path, self._source.split), left_out)
        elif self._source.kind == "labelled":
            yield from _of_records(self._source, self._corpus)
        else:
            for item in _triples(self._source):
                rest = {key: value for key, value in item.items() if key not in _REPLACED}
                yield _object(item["query"], item["pos"], rest=rest)


def _of_beir(source: Source, beir: Beir, left_out: Counter[str]) -> Iterator[Record]:
    texts = beir.texts(beir.judged(least=1))
    blank = [key for key, text in texts.items() if not text]
    left_out.update({"relevant documents": len(blank)})
    for key in blank:
        del texts[key]
    for query in beir.queries:
        if not query["text"]:
            left_out.update(["queries"])
            continue
        grades = {
            key: grade for key, grade in beir.qrels[query["metadata"]["id"]].items() if grade > 0 and key in texts
        }
        positives: dict[str, int] = {}
        for key, grade in grades.items():
            if grade >= source.min_grade:
                positives[texts[key]] = max(grade, positives.get(texts[key], 0))
        known = [texts[key] for key, grade in grades.items() if grade < source.min_grade]
        found = list(positives.values()) if source.grades else None
        yield _object(query["text"], list(positives), known=known, grades=found)


def _triples(source: Source) -> Iterator[Record]:
    return read_triples(source.path) if source.items is None else iter(source.items)


def _records(source: Source) -> Iterator[tuple[str, Record]]:
    """The records of a labelled source, with the place of each."""
    return records.placed(source.path) if source.items is None else _numbered(source.items, "query")


def _of_records(source: Source, corpus: Corpus) -> Iterator[Record]:
    for where, item in _records(source):
        label = label_at(where, item["metadata"], source.label)
        if label is None:
            raise RecordError(
                where,
                f'"metadata.{source.label}" is missing; mining with labels needs that of every record'
                " (name another key with `label`)",
            )
        rows = corpus.of_labels([label])
        rows = rows[~np.isin(corpus.groups[rows], corpus.groups_of([item["text"]]))]
        rows = random_of(source.seed, item["text"]).permutation(rows)
        _, first = np.unique(corpus.groups[rows], return_index=True)  # of a text and its copies one is enough
        positives = [corpus.texts[row] for row in rows[np.sort(first)[: source.positives]].tolist()]
        yield _object(item["text"], positives, labels=[label])


def _object(
    query: str,
    positives: list[str],
    *,
    labels: Sequence[str] = (),
    known: Sequence[str] = (),
    grades: list[int] | None = None,
    rest: Record | None = None,
) -> Record:
    return {"query": query, "pos": positives, "labels": labels, "known": known, "grades": grades, "rest": rest or {}}
