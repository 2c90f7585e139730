"""Runs as they come in, from results of this toolkit or TREC files, under one roof."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files.identity import known_id, required_id, required_label
from ecom_rag.files.records import Record
from ecom_rag.files.trec import RUN_ENDINGS, Run, placed_results, read_run


@dataclass(frozen=True)
class NamedRun:
    """A run with what is known of it.

    Args:
        name: Shown in tables; file names without their endings.
        run: Query id -> document ids, best first.
        results: Query id -> the result record; empty for a TREC run.
        notes: What a reader of its figures should know, one line each.
    """

    name: str
    run: Run
    results: dict[str, Record] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """The most documents that a query has."""
        return max((len(documents) for documents in self.run.values()), default=0)


def load_runs(paths: Sequence[str], *, id_key: str = "id") -> list[NamedRun]:
    """Read runs: TREC files (``.trec``, ``.run``, ``.txt``) or results whose metadata name query and seeds.

    Args:
        paths: Files; ``-`` is results on standard input.
        id_key: Metadata key of the ids, ``a.b`` for nested ones.

    Raises:
        EcomRagError: A file that is not there, is empty or has a line that does not fit.
    """
    return [_load(path, name, id_key) for path, name in zip(paths, run_names(paths), strict=True)]


def load_labelled(paths: Sequence[str], *, id_key: str = "id", label_key: str = "label") -> list[NamedRun]:
    """Read results for an evaluation by labels; a query's id is its place where it has none.

    Documents are named by their place in the result, since seeds need no id here.

    Raises:
        EcomRagError: As ``load_runs``, and where a query or seed has no label.
    """
    loaded = []
    for path, name in zip(paths, run_names(paths), strict=True):
        if path.endswith(RUN_ENDINGS):
            raise UsageError(f"{path}: a TREC run has no labels; give results of ecom-rag score, recall or rerank")
        results, notes = _by_query(path, id_key, _each_has(required_label, label_key))
        run = {query: [str(place) for place in range(len(one["topk_sim"]))] for query, one in results.items()}
        loaded.append(NamedRun(name, run, results, notes))
    for other in loaded[1:]:
        _check_same(loaded[0], other)
    return loaded


def run_names(paths: Iterable[str]) -> list[str]:
    """A short name for each path, all different."""
    names: list[str] = []
    for path in paths:
        base = "stdin" if path == "-" else Path(path).name.removesuffix(".gz")
        stem = base.rpartition(".")[0] or base
        name, number = stem, 2
        while name in names:
            name, number = f"{stem} ({number})", number + 1
        names.append(name)
    return names


def _load(path: str, name: str, id_key: str) -> NamedRun:
    if path.endswith(RUN_ENDINGS):
        return NamedRun(name, read_run(path))
    results, notes = _by_query(path, id_key, _each_has(required_id, id_key))
    run = {
        query: [required_id(metadata, id_key, "candidate") for metadata in one["topk_metadata"]]
        for query, one in results.items()
    }
    return NamedRun(name, run, results, notes)


def _each_has(required: Callable[[Any, str, str], str], key: str) -> Callable[[Record], None]:
    """A check that query and candidates have what ``required`` asks of their metadata."""

    def check(record: Record) -> None:
        required(record["metadata"], key, "the query")
        for place, metadata in enumerate(record["topk_metadata"], start=1):
            required(metadata, key, f"candidate {place}")

    return check


def _by_query(path: str, id_key: str, check: Callable[[Record], None]) -> tuple[dict[str, Record], list[str]]:
    """The results by their query's id, or ``#`` and its place where it has none; equal copies count once, as noted.

    Raises:
        RecordError: A query id that stands on two lines with different results.
    """
    found: dict[str, Record] = {}
    places: dict[str, str] = {}
    copies = 0
    for number, (where, result) in enumerate(placed_results(path, check=check), start=1):
        query = known_id(result["metadata"], id_key) or f"#{number}"
        if query not in found:
            found[query], places[query] = result, where
        elif found[query] == result:
            copies += 1
        else:
            raise RecordError(
                where,
                f"the query id {query!r} was there before, with another result ({places[query]});"
                " every query needs its own, and `id_key` names their key",
            )
    return found, [f"{copies} results stand in the file twice; each counts once"] if copies else []


def _check_same(first: NamedRun, other: NamedRun) -> None:
    if list(first.run) != list(other.run):
        lost = next(iter(set(first.run) ^ set(other.run)), "another order")
        raise UsageError(
            f"{first.name} and {other.name} hold different queries ({len(first.run)} and {len(other.run)},"
            f" e.g. {lost}); compare results of the same query file"
        )
    for query, result in first.results.items():
        if other.results[query]["text"] != result["text"]:
            raise UsageError(
                f"{first.name} and {other.name} differ in the text of query {query};"
                " compare results of the same query file"
            )
