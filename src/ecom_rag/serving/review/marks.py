"""What of a text the routes have matched, as spans of its characters."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ecom_rag.files.results import EVIDENCE
from ecom_rag.serving.review.hidden import Span
from ecom_rag.serving.review.spelled import Reading, readings
from ecom_rag.serving.review.units import letters_of
from ecom_rag.text.analysis import Analyzer
from ecom_rag.text.normalization import HAN

_CHAIN = re.compile(rf"[{HAN}]+|[^\W_{HAN}]+(?:[-/._][^\W_{HAN}]+)*")
_ALL_HAN = re.compile(f"[{HAN}]+")
_LONGEST = 8000  # characters of a text that are looked at


def marks_of(result: Mapping[str, Any]) -> tuple[list[Span], list[Reading]]:
    """Terms that the route ``bm25`` shares with its seeds, and what the route ``variant`` has read.

    Args:
        result: As ``recall`` gives it.

    Returns:
        Spans, in the order of the text, and the evasive spellings among them.
    """
    text, seeds = result["text"][:_LONGEST], result["topk_seed"]
    evidence = result.get(EVIDENCE) or [{"bm25": None} for _ in seeds]
    found = {
        route: [seed for seed, routes in zip(seeds, evidence, strict=True) if route in routes]
        for route in ("bm25", "variant")
    }
    read = readings(text, found["variant"])
    spans = [*shared_terms(text, found["bm25"]), *(Span(one.start, one.end, "variant") for one in read)]
    return sorted(spans), read


def shared_terms(text: str, seeds: Sequence[str], analyzer: Analyzer | None = None) -> list[Span]:
    """Where a text has search terms of seeds.

    Args:
        text: What a person looks at.
        seeds: That the route ``bm25`` has found for it.
        analyzer: Of the bank.

    Returns:
        Spans in the order of the text; neighbours are one.
    """
    if not seeds:
        return []
    analyzer = analyzer or Analyzer()
    letters = letters_of(text, simplify=analyzer.simplify)
    chains = list(_CHAIN.finditer(letters.text))
    terms = analyzer.tokens([*seeds, *(chain[0] for chain in chains)])
    known = set().union(*terms[: len(seeds)])
    places: set[int] = set()
    for chain, own in zip(chains, terms[len(seeds) :], strict=True):
        shared = known.intersection(own)
        if shared and not _ALL_HAN.fullmatch(chain[0]):
            places.update(range(*chain.span()))
        for term in shared:
            places.update(_occurrences(chain[0], term, chain.start()))
    return _spans(sorted({(letters.starts[place], letters.ends[place]) for place in places}))


def _occurrences(chain: str, term: str, start: int) -> set[int]:
    found: set[int] = set()
    at = chain.find(term)
    while at >= 0:
        found.update(range(start + at, start + at + len(term)))
        at = chain.find(term, at + 1)
    return found


def _spans(places: Sequence[tuple[int, int]]) -> list[Span]:
    found: list[Span] = []
    for start, end in places:
        if found and start <= found[-1].end:
            found[-1] = found[-1]._replace(end=max(end, found[-1].end))
        else:
            found.append(Span(start, end, "bm25"))
    return found
