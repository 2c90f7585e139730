"""How an evasive spelling reads: which characters of a text sound or look like those of a seed.

The route ``variant`` tells that a text reads like a seed, not where. Here both are laid beside each other, character by
character, by the same tables (``text.spelling``): a stretch in which each character sounds or looks like the seed's,
and at least one is another or something stands between two, is an evasive spelling of the seed's stretch.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecom_rag.serving.review.units import Units, units_of
from ecom_rag.text.spelling import tables

_LONGEST = 2000  # characters of a text that are looked at
_SEED = 400
_CONTEXT = 2  # characters beside an evasive one that are shown with it
_HAN = 0x3400  # the first Chinese character
_APART = 4  # evasive characters that are nearer to each other are one spelling


class Reading(NamedTuple):
    """An evasive spelling and what it stands for.

    Args:
        start: First character of the text.
        end: Behind the last one.
        written: What the text says there.
        read: What the seed says.
    """

    start: int
    end: int
    written: str
    read: str


class _Run(NamedTuple):
    length: int
    start: int
    seed_start: int


def readings(text: str, seeds: Sequence[str]) -> list[Reading]:
    """Evasive spellings of seeds in a text.

    Args:
        text: What a person looks at.
        seeds: That the route ``variant`` has found for it, the best first.

    Returns:
        Readings that do not overlap, in the order of the text.
    """
    text = text[:_LONGEST]
    found: list[Reading] = []
    both = [units_of(text, as_words=False), units_of(text, as_words=True)] if seeds else []
    for seed in seeds:
        own = units_of(seed[:_SEED], as_words=False)
        options = [_of_seed(text, units, seed, own) for units in both]
        for one in max(options, key=_weight, default=[]):
            if all(one.end <= other.start or other.end <= one.start for other in found):
                found.append(one)
    return sorted(found)


def _weight(found: Sequence[Reading]) -> int:
    return sum(len(one.read) for one in found)


def _of_seed(text: str, units: Units, seed: str, own: Units) -> list[Reading]:
    """Spellings of one seed, the longest first; short ones only where there is none twice as long."""
    if not len(units) or not len(own):
        return []
    found = []
    for run in _runs(_alike(units, own)):
        for first, last in _evasive(text, units, seed, own, run):
            start, end = int(units.starts[run.start + first]), int(units.ends[run.start + last])
            own_start, own_end = int(own.starts[run.seed_start + first]), int(own.ends[run.seed_start + last])
            found.append((run.length, Reading(start, end, text[start:end], seed[own_start:own_end])))
    found.sort(key=lambda item: (-item[0], item[1]))
    kept: list[Reading] = []
    for length, one in found:
        apart = all(one.end <= other.start or other.end <= one.start for other in kept)
        if apart and 2 * length >= found[0][0]:
            kept.append(one)
    return kept


def _alike(units: Units, own: Units) -> NDArray[np.bool_]:
    """Which characters of a text sound or look like which of a seed, ``(text, seed)``."""
    found: NDArray[np.bool_] = units.sound[:, None] == own.sound[None, :]
    found |= units.shape[:, None] == own.shape[None, :]
    table = tables.load()
    for place in np.flatnonzero(units.initial >= 0).tolist():
        letter = int(units.initial[place])
        begun = table.readings[table.beginning[letter] : table.beginning[letter + 1]]
        found[place] |= np.isin(own.sound, begun)
    return found


def _runs(alike: NDArray[np.bool_]) -> Iterator[_Run]:
    """The longest stretches of two and more that are alike in both texts."""
    before = np.zeros(alike.shape[1], np.int64)
    for row in range(len(alike)):
        length = np.where(alike[row], np.concatenate([[0], before[:-1]]) + 1, 0)
        goes_on = np.zeros(len(length), bool)
        if row + 1 < len(alike):
            goes_on[:-1] = alike[row + 1, 1:]
        for column in np.flatnonzero((length >= 2) & ~goes_on).tolist():
            size = int(length[column])
            yield _Run(size, row - size + 1, column - size + 1)
        before = length


def _evasive(text: str, units: Units, seed: str, own: Units, run: _Run) -> Iterator[tuple[int, int]]:
    """First and last place within a run of each of its spellings."""
    places: list[int] = []
    for step in range(run.length):
        at, own_at = run.start + step, run.seed_start + step
        changed = units.plain[at] != own.plain[own_at] or units.plain[at] == 0
        if step:
            between = text[units.ends[at - 1] : units.starts[at]]
            own_between = seed[own.ends[own_at - 1] : own.starts[own_at]]
            if _hides(between) and not own_between.strip():
                places += [step - 1, step]
        if changed:
            places.append(step)
    groups: list[list[int]] = []
    for place in sorted(set(places)):
        if groups and place - groups[-1][-1] <= _APART:
            groups[-1].append(place)
        else:
            groups.append([place])
    for group in groups:
        first, last = group[0], group[-1]
        while first > 0 and group[0] - first < _CONTEXT and _are_beside(units, run.start + first - 1):
            first -= 1
        while last < run.length - 1 and last - group[-1] < _CONTEXT and _are_beside(units, run.start + last):
            last += 1
        if last > first or len(group) > 1:
            yield first, last


def _are_beside(units: Units, place: int) -> bool:
    """Whether two units are Chinese characters, or stand for some, with nothing between them."""
    is_word = all(units.plain[one] == 0 or units.plain[one] >= _HAN for one in (place, place + 1))
    return is_word and bool(units.ends[place] == units.starts[place + 1])


def _hides(between: str) -> bool:
    """Whether what stands between two characters is put there to part them: not mere punctuation of a sentence."""
    return any(unicodedata.category(one)[0] in "SC" or one in "._-*|/~·•" for one in between)
