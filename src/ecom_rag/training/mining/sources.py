"""What is mined: queries with their positives, and the corpus that negatives come from.

Queries are FlagEmbedding's JSON lines (``query``, ``pos``), a BEIR folder, or labelled records, whose positives are
other texts of their label. All become the same plain objects::

    {"query": str, "pos": [str], "labels": [str], "known": [int], "grades": [int] | None, "rest": {...}}

``known`` are the groups of the corpus that are no negatives: the query and whatever any line with the same query has
as a positive; ``labels`` are those of all its lines; ``grades`` are those of ``pos``, where asked for; ``rest`` are
keys that pass through, e.g. ``prompt`` and ``type``.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecom_rag import records
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.evaluation.formats import Beir, read_beir
from ecom_rag.records import Record
from ecom_rag.training.data import label_of
from ecom_rag.training.mining.rules import random_of
from ecom_rag.training.triples import JSON_LINES, read_triples

_REPLACED = ("query", "pos", "neg", "pos_scores", "neg_scores")


class Corpus:
    """Distinct texts with their labels.

    Attributes:
        texts: Each once.
        blank: How many were left out because they hold nothing.
        groups: ``(texts,)``: texts that differ in case, width or white space alone have the same number.
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
        self._groups: dict[str, int] = {}
        self.groups = np.array(
            [self._groups.setdefault(plain(text), len(self._groups)) for text in self.texts], np.int64
        )

    def __len__(self) -> int:
        return len(self.texts)

    def of_labels(self, labels: Iterable[str]) -> NDArray[np.int64]:
        """Rows of some labels."""
        found = [self._members[label] for label in labels if label in self._members]
        return np.concatenate([np.empty(0, np.int64), *found])

    def groups_of(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Groups of texts; those that are not in the corpus are left out."""
        found = (self._groups.get(plain(text)) for text in texts)
        return np.array([group for group in found if group is not None], np.int64)


def plain(text: str) -> str:
    """The text without what makes no difference: NFKC, case folded, white space as single blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True, slots=True)
class Source:
    """Queries of one kind.

    Args:
        path: File or folder.
        kind: ``beir``, ``triples`` or ``labelled``.
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


def kind_of(path: str) -> str:
    """What a path holds.

    Raises:
        UsageError: Nothing that can be mined for.
    """
    if Path(path).is_dir():
        return "beir"
    if not Path(path).is_file():
        raise UsageError(
            f"{path}: no such file or folder; expected queries with pos, labelled records or a BEIR folder"
        )
    if not path.endswith(JSON_LINES):
        return "labelled"
    where, first = next(records.objects(path), ("", None))
    if first is None:
        raise UsageError(f"{path}: is empty; there is nothing to mine for")
    if "query" in first:
        return "triples"
    if "text" in first:
        return "labelled"
    raise UsageError(
        f"{where}: found keys {', '.join(list(first)[:8])}; expected a query with pos, or a record with text"
    )


def read_corpus(source: Source, seeds: str | Sequence[Record] | None) -> Corpus:
    """The texts that negatives come from: ``seeds`` (a file, or checked records), or what the queries' source holds.

    Raises:
        UsageError: There are none.
        RecordError: A line that does not fit.
    """
    if seeds is not None:
        found = records.read(seeds) if isinstance(seeds, str) else seeds
        items = [(item["text"], label_of(item, source.label)) for item in found]
    elif source.kind == "beir":
        beir = read_beir(source.path, source.split)
        kept = _judged(beir, least=0) if source.judged_only else None
        items = [(item["text"], None) for item in beir.documents() if kept is None or item["metadata"]["id"] in kept]
    elif source.kind == "labelled":
        items = [(item["text"], label_of(item, source.label)) for item in _records(source)]
    else:
        items = [(text, None) for item in _triples(source) for text in (*item["pos"], *item["neg"])]
    corpus = Corpus(items)
    if not len(corpus):
        where = seeds if isinstance(seeds, str) else source.path or "corpus"
        raise UsageError(f"{where}: holds no texts; there is nothing to mine from")
    return corpus


class Queries:
    """The queries of a source as plain objects, in file order; all lines are checked before the first is given.

    A query may stand on several lines, or differ from another in case, width or white space alone: what one of them has
    as a positive is no negative of the others.

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
        for item in self._read(self.left_out):
            self._lines += 1
            asked = plain(item["query"])
            groups = corpus.groups_of([item["query"], *item["pos"], *item["known"]])
            self._known.setdefault(asked, {}).update(dict.fromkeys(groups.tolist()))
            self._labels.setdefault(asked, {}).update(dict.fromkeys(item["labels"]))

    def __len__(self) -> int:
        return self._lines

    def __iter__(self) -> Iterator[Record]:
        for item in self._read(Counter()):
            asked = plain(item["query"])
            yield {**item, "known": list(self._known[asked]), "labels": list(self._labels[asked])}

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


def _judged(beir: Beir, *, least: int) -> set[str]:
    """Ids of the documents that have at least this grade for some query."""
    return {document for grades in beir.qrels.values() for document, grade in grades.items() if grade >= least}


def _of_beir(source: Source, beir: Beir, left_out: Counter[str]) -> Iterator[Record]:
    wanted = _judged(beir, least=1)
    texts = {item["metadata"]["id"]: item["text"] for item in beir.documents() if item["metadata"]["id"] in wanted}
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


def _records(source: Source) -> Iterator[Record]:
    """Records that all have a label."""

    def labelled(record: Record) -> None:
        if label_of(record, source.label) is None:
            raise ValueError(f'"metadata.{source.label}" is missing; mining with labels needs that of every record'
                             " (name another key with --label)")  # fmt: skip

    if source.items is None:
        yield from records.read(source.path, check=labelled)
        return
    for number, item in enumerate(source.items):
        try:
            labelled(item)
        except ValueError as error:
            raise RecordError(f"query {number}", str(error)) from None
        yield item


def _of_records(source: Source, corpus: Corpus) -> Iterator[Record]:
    for item in _records(source):
        labels = [str(label_of(item, source.label))]
        rows = corpus.of_labels(labels)
        rows = rows[~np.isin(corpus.groups[rows], corpus.groups_of([item["text"]]))]
        chosen = random_of(source.seed, item["text"]).permutation(rows)[: source.positives]
        positives = [corpus.texts[row] for row in chosen.tolist()]
        yield _object(item["text"], positives, labels=labels)


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
