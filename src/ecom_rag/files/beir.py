"""BEIR folders: a corpus, queries and the judgements of a split, as records."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecom_rag.arguments import PathLike, path_of, text_of
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.identity import as_id
from ecom_rag.files.records import Record
from ecom_rag.files.trec import Qrels, read_qrels, writing


@dataclass(frozen=True)
class Beir:
    """One split of a BEIR folder.

    Args:
        queries: ``{"text", "metadata": {"id", ...}}`` of the split's judged queries, in file order.
        qrels: The split's judgements.
        corpus: File with the documents.
    """

    queries: list[Record]
    qrels: Qrels
    corpus: Path

    def documents(self) -> Iterator[Record]:
        """The corpus as seeds: title and text, and ``metadata.id``; other keys go into the metadata."""
        for where, item in records.objects(str(self.corpus)):
            yield _beir_record(where, item, title=True)

    def judged(self, *, least: int) -> set[str]:
        """Ids of the documents that have at least this grade for some query."""
        return {document for grades in self.qrels.values() for document, grade in grades.items() if grade >= least}

    def texts(self, wanted: set[str]) -> dict[str, str]:
        """The texts of some documents by their ids; ids that the corpus does not hold are left out."""
        found = ((document["metadata"]["id"], document["text"]) for document in self.documents())
        return {name: text for name, text in found if name in wanted}


def read_beir(folder: PathLike, split: str = "test") -> Beir:
    """Open a BEIR folder: ``corpus.jsonl[.gz]``, ``queries.jsonl[.gz]``, ``qrels/<split>.tsv``.

    Raises:
        UsageError: A part of it is missing.
        RecordError: A line that does not fit.
    """
    folder, split = path_of(folder, "folder"), text_of(split, "split")
    if not Path(folder).is_dir():
        raise UsageError(
            f"{folder}: no such folder; expected a BEIR folder with corpus.jsonl, queries.jsonl and qrels/"
        )
    corpus, queries = (_either(folder, name) for name in ("corpus.jsonl", "queries.jsonl"))
    judged = Path(folder) / "qrels" / f"{split}.tsv"
    if not judged.is_file():
        there = ", ".join(sorted(path.stem for path in judged.parent.glob("*.tsv"))) or "none"
        raise UsageError(f"{judged}: no such file; splits found: {there}; name one with `split`")
    qrels = read_qrels(str(judged))
    asked: dict[str, Record] = {}
    for where, item in records.objects(str(queries)):
        if "_id" not in item or _beir_id(where, item) not in qrels:
            continue
        query = _beir_record(where, item)
        known = asked.setdefault(query["metadata"]["id"], query)
        if known != query:
            raise RecordError(
                where,
                f"the query id {query['metadata']['id']!r} stands on an earlier line with another"
                " text; remove one line",
            )
    lost = next((query for query in qrels if query not in asked), None)
    if lost is not None:
        raise UsageError(f"{judged}: judges query {lost!r}, which {queries.name} does not hold; are they of one set?")
    return Beir(list(asked.values()), qrels, corpus)


def write_records(items: Iterable[Record], path: str) -> int:
    """Write records as JSON lines, plain or ``.gz``; returns how many."""
    if not path.endswith((".jsonl", ".jsonl.gz")):
        raise UsageError(f"{path}: unknown file type; expected .jsonl or .jsonl.gz")
    count = 0
    with writing(path) as sink:
        for item in items:
            sink.write(records.dumps(item))
            count += 1
    return count


def _beir_record(where: str, item: dict[str, Any], *, title: bool = False) -> Record:
    if "_id" not in item or not isinstance(item.get("text"), str):
        raise RecordError(where, f'found keys {", ".join(list(item)[:8])}; expected "_id" and a string "text"')
    parts = [item.get("title") or "", item["text"]] if title else [item["text"]]
    text = " ".join(part.strip() for part in parts if part.strip())
    inside = item.get("metadata")
    extra = {key: item[key] for key in item if key not in ("_id", "text", "title", "metadata")}
    own = {"id": _beir_id(where, item)}
    return {"text": text, "metadata": {**extra, **(inside if isinstance(inside, dict) else {}), **own}}


def _beir_id(where: str, item: dict[str, Any]) -> str:
    try:
        return as_id(item["_id"])
    except ValueError as error:
        raise RecordError(where, f'"_id" {error}') from None


def _either(folder: str, name: str) -> Path:
    for path in (Path(folder) / name, Path(folder) / f"{name}.gz"):
        if path.is_file():
            return path
    raise UsageError(f"{Path(folder) / name}[.gz]: no such file; expected a BEIR folder")
