"""Texts to search terms: Chinese segmentation, model numbers, English stems.

In: texts. Out: for each the list of its terms, in reading order. Everything runs over whole batches; the work that
Python does a term is done once for each *distinct* run of characters.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.text.normalization import HAN, normalize
from ecom_rag.values import type_name

# The stop words of Lucene's EnglishAnalyzer.
_STOPWORDS = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was
will with
"""
STOPWORDS = frozenset(_STOPWORDS.split())

_SPACE = re.compile(r"\s")
# A run is Chinese, or letters and digits glued together, decimals included: "3.5mm", "iPhone15ProMax". A chain is runs
# of the second kind with marks between them: "KX-TG1032S", "1/2-in".
_GLUED = rf"(?:\d+(?:\.\d+)*|[^\W\d_{HAN}])+"  # one way to read each digit: else long numbers take quadratic time
_RUN = re.compile(_GLUED)
_CHAIN = re.compile(rf"[{HAN}]+|{_GLUED}(?:[-/._]{_GLUED})*")
_MARK = re.compile(r"[-/._]")
_DIGIT = re.compile(r"\d")
_MEASURE = re.compile(r"\d[/.]\d|^\d+[-/][^\W\d_]+$")  # "1/2-in", "12-gauge": joined they would say something else
_ARTICLE_NUMBER = 6  # digits and a hyphen: from so many on no date, size or range
_HAN = re.compile(f"[{HAN}]")
_ALL_HAN = re.compile(f"[{HAN}]+")
_ALONE = re.compile(rf"[^\W_{HAN}]")  # a letter or digit that is not Chinese
_PIECE = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_CHUNK = 20_000  # texts normalised at once


class Reader(Protocol):
    """Reads texts in another way before they become terms; two that are equal read alike."""

    def read(self, texts: Sequence[str]) -> list[str]:
        """Texts of the same number."""


class Runs(NamedTuple):
    """Texts as runs of characters, which are what becomes terms.

    Args:
        terms: Of each distinct run, in the order in which the runs appear.
        numbers: int64, the runs of all texts one after the other, by their place in ``terms``.
        counts: ``(texts,)`` int64, runs of each text.
    """

    terms: Sequence[Sequence[str]]
    numbers: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Analyzer:
    """How texts become terms; the same for seeds and queries.

    Args:
        simplify: Fold traditional Chinese to simplified (OpenCC's phrases, so that 乾隆 stays and 頭髮 becomes 头发).
        stem: Stem English words (Snowball's English, also called Porter2).
        stopwords: Leave out Lucene's 33 English stop words.
        subwords: Index the words inside long Chinese words too (手机壳 also as 手机), jieba's search mode.
        pieces: Index the letters, digits and capitalised parts of glued runs beside the whole
            (``iPhone15ProMax`` also as iphone, 15, promax, pro, max).
        joined: Index model and article numbers without their marks too (``KX-TG1032S`` also as kxtg1032s).
        words: Own words. Chinese ones are kept whole by the segmenter, Latin ones are found inside glued letters (with
            ``pro`` and ``max``, ``promax`` is also indexed as both). Those of both (``T恤``, ``双11``) are kept whole
            where their letters and digits stand alone; with ``subwords``, their parts are indexed too.
        reader: Reads texts before all that, such as ``models.deobfuscation.Deobfuscator``; by default they are taken as
            they are written.

    Raises:
        UsageError: An own word is empty or holds a space; a reader that does not read.
    """

    simplify: bool = True
    stem: bool = True
    stopwords: bool = True
    subwords: bool = True
    pieces: bool = True
    joined: bool = True
    words: tuple[str, ...] = ()
    reader: Reader | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for word in self.words:
            if not word or _SPACE.search(word):
                raise UsageError(f"own word {word!r} is empty or holds a space; expected one word per line")
        if self.reader is not None and not hasattr(self.reader, "read"):
            raise UsageError(f"`reader` is of type {type_name(self.reader)}; expected one that reads, or None")

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of each text, in reading order; a text of symbols alone has none.

        Args:
            texts: Any strings; lone surrogates count as symbols.
        """
        runs = self.runs(texts)
        terms = map(runs.terms.__getitem__, runs.numbers.tolist())
        return [list(chain.from_iterable(islice(terms, count))) for count in runs.counts.tolist()]

    def runs(self, texts: Sequence[str]) -> "Runs":
        """The terms of texts, each distinct run of characters once.

        Args:
            texts: As of ``tokens``.
        """
        if self.reader is not None:
            texts = self.reader.read(texts)
        own = _own_words(self.words, self.simplify)
        chains = _chains(own.mixed)
        found = [
            chains.findall(text)
            for start in range(0, len(texts), _CHUNK)
            for text in normalize(texts[start : start + _CHUNK], simplify=self.simplify, lower=False)
        ]
        counts = np.fromiter(map(len, found), np.int64, len(found))
        places = {run: place for place, run in enumerate(dict.fromkeys(chain.from_iterable(found)))}
        terms = self._terms(places, own)
        numbers = np.fromiter(map(places.__getitem__, chain.from_iterable(found)), np.int64, int(counts.sum()))
        return Runs(list(map(terms.__getitem__, places)), numbers, counts)

    def fingerprint(self) -> str:
        """Says whether two analyzers give the same terms."""
        return repr(self) if self.reader is None else f"{self!r} {self.reader!r}"

    def _terms(self, runs: Iterable[str], own: "_OwnWords") -> dict[str, Sequence[str]]:
        """The terms of each run."""
        chinese, latin, mixed = [], [], []
        for run in runs:
            if not _HAN.search(run):
                latin.append(run)
            elif not own.mixed or _ALL_HAN.fullmatch(run):
                chinese.append(run)
            else:
                mixed.append(run)
        segmenter = _segmenter(own.chinese)
        cut = segmenter.cut_for_search if self.subwords else segmenter.cut
        terms: dict[str, Sequence[str]] = {run: tuple(cut(run)) for run in chinese}
        terms |= zip(latin, self._latin_terms(latin, own.latin), strict=True)
        inside = {run: _CHAIN.findall(run) if self.subwords else [] for run in mixed}
        parts = self._terms(set(chain.from_iterable(inside.values())), own._replace(mixed=frozenset())) if mixed else {}
        for run in mixed:
            terms[run] = [run.lower(), *chain.from_iterable(map(parts.__getitem__, inside[run]))]
        return terms

    def _latin_terms(self, chains: Sequence[str], latin: frozenset[str]) -> list[tuple[str, ...]]:
        """The terms of each chain of letters and digits; runs inside chains are taken apart once each."""
        parts: dict[str, list[str]] = {}
        flat: list[str] = []
        sizes: list[int] = []
        for one in chains:
            if _MARK.search(one):
                found = []
                for run in _RUN.findall(one):
                    found += parts.get(run) or parts.setdefault(run, self._pieces(run, latin))
                if self.joined:
                    found += _joined(one)
            else:
                found = self._pieces(one, latin)
            if self.stopwords and not STOPWORDS.isdisjoint(found):
                found = [term for term in found if term not in STOPWORDS]
            flat += found
            sizes.append(len(found))
        terms = iter(_stemmer()(flat) if self.stem else flat)
        return [tuple(islice(terms, size)) for size in sizes]

    def _pieces(self, run: str, latin: frozenset[str]) -> list[str]:
        return _glued(run, latin) if self.pieces else [run.lower()]


class _OwnWords(NamedTuple):
    """Own words as they are found, in one spelling.

    Args:
        chinese: Kept whole by the segmenter.
        latin: Found inside glued letters.
        mixed: Of Chinese characters and others; found before a text is cut where these meet.
    """

    chinese: tuple[str, ...]
    latin: frozenset[str]
    mixed: frozenset[str]


def _joined(chain_of_runs: str) -> list[str]:
    """A model or article number without its marks, where that is what the chain may be."""
    if not _MARK.search(chain_of_runs) or not _DIGIT.search(chain_of_runs) or _MEASURE.search(chain_of_runs):
        return []
    joined = _MARK.sub("", chain_of_runs).lower()
    if joined.isdigit() and (len(joined) < _ARTICLE_NUMBER or "-" not in chain_of_runs):
        return []
    return [joined]


def _glued(run: str, latin: frozenset[str]) -> list[str]:
    """A run of letters and digits as the whole and its pieces, each once."""
    if run.isdecimal():
        return [run]
    found = [run.lower()]
    for part in dict.fromkeys(_PIECE.findall(run)):
        found.append(part.lower())
        if part.isascii() and part.isalpha():
            if not (part.islower() or part.isupper()):
                camel = _CAMEL.findall(part)
                if min(map(len, camel)) > 1:  # a single letter is no word: "iPhone" is not "i" and "phone"
                    found += [piece.lower() for piece in camel]
            found += _covered(part.lower(), latin)
    return list(dict.fromkeys(found))


def _covered(word: str, latin: frozenset[str]) -> list[str]:
    """The own words that make up a glued word, longest first from the left; none unless they cover it all."""
    if not latin:
        return []
    longest = max(map(len, latin))
    found, start = [], 0
    while start < len(word):
        stop = next((s for s in range(min(len(word), start + longest), start, -1) if word[start:s] in latin), 0)
        if not stop:
            return []
        found.append(word[start:stop])
        start = stop
    return found


@lru_cache(maxsize=8)
def _own_words(words: tuple[str, ...], simplify: bool) -> _OwnWords:
    plain = normalize(words, simplify=simplify)
    chinese = tuple(word for word in plain if _ALL_HAN.fullmatch(word))
    latin = frozenset(word for word in plain if not _HAN.search(word))
    return _OwnWords(chinese, latin, frozenset(plain).difference(chinese, latin))


@lru_cache(maxsize=8)
def _chains(mixed: frozenset[str]) -> re.Pattern[str]:
    """Runs of a text, own words of Chinese and other characters among them; the longest of several that fit."""
    if not mixed:
        return _CHAIN
    word = "|".join(_bounded(word) for word in sorted(mixed, key=lambda word: (-len(word), word)))
    no_word = f"(?!(?i:{word}))"
    return re.compile(rf"(?i:{word})|(?:{no_word}[{HAN}])+|{_GLUED}(?:[-/._]{no_word}{_GLUED})*")


def _bounded(word: str) -> str:
    """A pattern for an own word that does not begin or end inside other letters or digits."""
    before, after = (rf"(?{sign}[^\W_{HAN}])" for sign in ("<!", "!"))
    return ((_ALONE.match(word) and before) or "") + re.escape(word) + ((_ALONE.match(word[-1]) and after) or "")


@lru_cache(maxsize=8)
def _segmenter(words: tuple[str, ...]) -> Any:
    import rjieba

    segmenter = rjieba.Jieba()
    for word in words:
        segmenter.add_word(word, segmenter.suggest_freq(word), "n")  # just frequent enough to stay whole
    return segmenter


@lru_cache(maxsize=1)
def _stemmer() -> Callable[[list[str]], list[str]]:
    import Stemmer  # type: ignore[import-not-found]

    stemmer = Stemmer.Stemmer("english", 0)  # without its cache, whose upkeep costs more than stemming distinct words
    stem: Callable[[list[str]], list[str]] = stemmer.stemWords
    return stem
