"""Texts to search terms: Chinese segmentation, model numbers, English stems.

In: texts. Out: for each the list of its terms, in reading order. Everything runs over whole batches; the work that
Python does a term is done once for each *distinct* run of characters.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.normalization import HAN, normalize

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
_PIECE = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_CHUNK = 20_000  # texts normalised at once


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
        words: Own words, Chinese or Latin: Chinese ones are kept whole by the segmenter, Latin ones are found inside
            glued letters (with ``pro`` and ``max``, ``promax`` is also indexed as both).

    Raises:
        UsageError: An own word is empty or holds a space.
    """

    simplify: bool = True
    stem: bool = True
    stopwords: bool = True
    subwords: bool = True
    pieces: bool = True
    joined: bool = True
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in self.words:
            if not word or _SPACE.search(word):
                raise UsageError(f"own word {word!r} is empty or holds a space; expected one word a line")

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of each text, in reading order; a text of symbols alone has none.

        Args:
            texts: Any strings; lone surrogates count as symbols.
        """
        runs = [
            _CHAIN.findall(text)
            for start in range(0, len(texts), _CHUNK)
            for text in normalize(texts[start : start + _CHUNK], simplify=self.simplify, lower=False)
        ]
        expand = self._expander()
        terms = {run: expand(run) for run in set(chain.from_iterable(runs))}
        return [list(chain.from_iterable(map(terms.__getitem__, line))) for line in runs]

    def fingerprint(self) -> str:
        """Says whether two analyzers give the same terms."""
        return repr(self)

    def _expander(self) -> Callable[[str], tuple[str, ...]]:
        chinese, latin = _own_words(self.words, self.simplify)
        segmenter = _segmenter(chinese)
        cut = segmenter.cut_for_search if self.subwords else segmenter.cut
        stems = _stemmer() if self.stem else None

        def expand(chain_of_runs: str) -> tuple[str, ...]:
            if _HAN.match(chain_of_runs):
                return tuple(cut(chain_of_runs))
            found: list[str] = []
            for run in _RUN.findall(chain_of_runs):
                found += _glued(run, latin) if self.pieces else [run.lower()]
            if self.joined:
                found += _joined(chain_of_runs)
            if self.stopwords:
                found = [term for term in found if term not in STOPWORDS]
            return tuple(stems(found)) if stems else tuple(found)

        return expand


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
    found = [run.lower()]
    parts = _PIECE.findall(run)
    for part in parts:
        if part.isascii() and part.isalpha():
            camel = _CAMEL.findall(part)
            found.append(part.lower())
            if min(map(len, camel)) > 1:  # a single letter is no word: "iPhone" is not "i" and "phone"
                found += [piece.lower() for piece in camel]
            found += _covered(part.lower(), latin)
        else:
            found.append(part.lower())
    return list(dict.fromkeys(found))


def _covered(word: str, latin: frozenset[str]) -> list[str]:
    """The own words that make up a glued word, longest first from the left; none unless they cover it all."""
    longest = max(map(len, latin), default=0)
    found, start = [], 0
    while start < len(word):
        stop = next((s for s in range(min(len(word), start + longest), start, -1) if word[start:s] in latin), 0)
        if not stop:
            return []
        found.append(word[start:stop])
        start = stop
    return found


@lru_cache(maxsize=8)
def _own_words(words: tuple[str, ...], simplify: bool) -> tuple[tuple[str, ...], frozenset[str]]:
    plain = normalize(words, simplify=simplify)
    return tuple(word for word in plain if _HAN.match(word)), frozenset(w for w in plain if not _HAN.match(w))


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

    stemmer: Callable[[list[str]], list[str]] = Stemmer.Stemmer("english").stemWords
    return stemmer
