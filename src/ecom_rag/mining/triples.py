"""FlagEmbedding's JSON lines (``query``, ``pos``, ``neg``, ...) as they are: checked, every key kept."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecom_rag.arguments import listed
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.text.normalization import canonical
from ecom_rag.values import plain, shown, type_name

JSON_LINES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Example:
    """A query with what answers it and what does not."""

    query: str
    positives: list[str]
    negatives: list[str]


class KnownPositives:
    """What answers each query on any line, by what the texts say: a copy of a positive is a positive.

    Args:
        items: Objects with a ``query``, its ``positives`` and its ``negatives``.

    Attributes:
        forms: The canonical form of each of their texts.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        every = (text for item in items for text in (item.query, *item.positives, *item.negatives))
        texts = list(dict.fromkeys(every))
        self.forms = dict(zip(texts, canonical(texts), strict=True))
        self._known: dict[str, set[str]] = {}
        for item in items:
            known = self._known.setdefault(self.forms[item.query], set())
            known.update(self.forms[text] for text in item.positives)

    def of(self, query: str) -> set[str]:
        """The forms of all that answers a query: none of them is a negative of any line of it."""
        return self._known[self.forms[query]]

    def negatives(self, item: Any) -> list[int]:
        """The places of the item's negatives that answer its query on no line."""
        known = self.of(item.query)
        return [place for place, text in enumerate(item.negatives) if self.forms[text] not in known]


def read_triples(path: str, *, needs_negatives: bool = False) -> Iterator[dict[str, Any]]:
    """Stream the objects of a file; each has a text ``query``, at least one ``pos`` and a list ``neg``.

    Args:
        path: ``.jsonl`` or ``.jsonl.gz``.
        needs_negatives: Refuse an empty ``neg``.

    Raises:
        UsageError: No such file, or another kind.
        RecordError: A line that does not fit, with its number.
    """
    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file; expected JSON lines with query, pos and neg")
    if not path.endswith(JSON_LINES):
        raise UsageError(f"{path}: unknown file type; queries with pos and neg are read from .jsonl and .jsonl.gz")
    for where, item in records.objects(path):
        check_triple(where, item, needs_negatives=needs_negatives)
        yield item


def cleaned_triples(items: Iterable[Any], *, needs_negatives: bool = False) -> Iterator[dict[str, Any]]:
    """Objects from Python as a file would give them; see ``records.cleaned`` for what becomes of their values.

    Args:
        items: Any iterable of dicts with ``query``, ``pos`` and ``neg``.
        needs_negatives: Refuse an empty ``neg``.

    Yields:
        New dicts; the given ones stay as they are.

    Raises:
        UsageError: A single dict or text in place of several.
        RecordError: Something that does not fit, with its number (from 0).
    """
    for number, item in enumerate(listed(items, "queries", 'a list of {"query": "...", "pos": [...], "neg": [...]}')):
        where = f"query {number}"
        if not isinstance(item, Mapping):
            raise RecordError(where, f"is of type {type_name(item)}; expected a dict with query, pos and neg")
        try:
            own = dict(plain(item))
        except ValueError as error:
            raise RecordError(where, str(error)) from None
        check_triple(where, own, needs_negatives=needs_negatives)
        yield own


def check_triple(where: str, item: dict[str, Any], *, needs_negatives: bool, remedy: str = "") -> None:
    """Raise ``RecordError`` where one object does not fit; afterwards ``neg`` is a list in any case.

    Args:
        where: Its place.
        item: The object.
        needs_negatives: Refuse an empty ``neg``.
        remedy: What else can be done about that, e.g. ``, or leave it``.
    """
    _check_text(where, item.get("query"), "query")
    for side in ("pos", "neg"):
        item[side] = _texts(where, item, side)
    if not item["pos"]:
        raise RecordError(where, '"pos" is missing or empty; every query needs a positive')
    if needs_negatives and not item["neg"]:
        raise RecordError(where, f'"neg" is missing or empty; mine hard negatives with ecom-rag mine{remedy}')
    for side in ("pos", "neg"):
        _check_scores(where, item.get(f"{side}_scores"), side, len(item[side]))


def read_examples(path: str) -> list[Example]:
    """The queries, positives and negatives of a file.

    Raises:
        UsageError: No such file, or it is empty.
        RecordError: A line that does not fit.
    """
    found = [Example(item["query"], item["pos"], item["neg"]) for item in read_triples(path, needs_negatives=True)]
    if not found:
        raise UsageError(f"{path}: holds no examples; expected JSON lines with query, pos and neg")
    return found


def _texts(where: str, item: dict[str, Any], side: str) -> list[str]:
    texts = item.get(side)
    if texts is None:
        texts = []
    if not isinstance(texts, list):
        raise RecordError(where, f'"{side}" is {shown(texts)}; expected a list of texts')
    for number, text in enumerate(texts):
        _check_text(where, text, f"{side}[{number}]")
    return texts


def _check_scores(where: str, scores: Any, side: str, texts: int) -> None:
    if scores is None:
        return
    if not isinstance(scores, list) or len(scores) != texts:
        found = f"has {len(scores)} entries" if isinstance(scores, list) else f"is {shown(scores)}"
        raise RecordError(
            where,
            f'"{side}_scores" {found}; expected a number for each of the {texts} texts in "{side}", or leave it out',
        )
    for number, score in enumerate(scores):
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise RecordError(where, f'"{side}_scores[{number}]" is {shown(score)}; expected a finite number')


def _check_text(where: str, value: Any, name: str) -> None:
    if not isinstance(value, str) or not value.strip():
        found = "is missing" if value is None else "is empty" if isinstance(value, str) else f"is {shown(value)}"
        raise RecordError(where, f'"{name}" {found}; expected a text')
