"""An evasion benchmark's texts: clean ones in, the spellings that slip past a filter out.

Each kind changes a share of a text's letters, digits and Chinese characters, chosen at random:

=============  =====================================================================================================
homophone      another common character with a reading in common, tones aside (any of the readings that pypinyin has)
lookalike      a character whose drawing resembles it (``lookalikes.txt``: Noto Serif CJK SC, correlation above 0.6)
split          its two halves as two characters (``splits.txt``, written by hand)
symbol         a symbol or an emoji behind it
spacing        a space behind it: plain, full-width, thin, or of no width at all
traditional    its traditional form (OpenCC), for letters and digits the full-width one
leet           a digit, symbol or foreign letter that looks like it; Chinese numerals for digits
mixed          one of the above, anew for each character
pinyin         its reading in letters, now and then with a mark behind
initials       the initials of two to four neighbouring characters, as in ``wx`` for 微信
emoji          an emoji in place of a word (``evasion_spans``)
order          two neighbouring characters in each other's place
=============  =====================================================================================================

The tables are not those of the ``variant`` route (``ecom_rag.text.spelling``): look-alikes come from another typeface
and are pairs, not classes; splits are another list; homophones use every reading where the route knows the first one.
Facts are facts, though, and the lists overlap; ``lookalikes`` and ``splits`` let a benchmark hold parts of them out.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.evasion_spans import SPANS
from ecom_rag.files.records import Record

KINDS = ("homophone", "lookalike", "split", "symbol", "spacing", "traditional", "leet", "mixed", *SPANS)
STRENGTHS = {"light": 0.1, "middle": 0.3, "heavy": 0.6}

_SYMBOLS = "*·.-_~|^+=#%&/、。，！…★☆◆●♥❤🔥✨👉💰🍀➕"
_SPACES = " \u3000\u2009\u00a0\u200b\u200d\ufeff\u2060"
# A character and those that look like it.
_ALIKE = """
0oO〇 1lIi 2zZ二 3eE三 4aA四 5sS五 6b六 7T七 8B八 9g九 a@4а b68 cс( e3е g9 i1!| l1| o0о pр s5$ t7+ xх× yу z2
"""
_LEET = {one[0]: one[1:] for one in _ALIKE.split()}

Substitutes = Mapping[str, Sequence[str]]
"""For a character what may stand in its place, a string each."""


@dataclass(frozen=True, slots=True)
class _Tables:
    homophone: Substitutes
    lookalike: Substitutes
    split: Substitutes
    traditional: Substitutes


def variants(
    records: Iterable[Record],
    *,
    kinds: Sequence[str] = KINDS,
    strength: str = "middle",
    seed: int = 0,
    lookalikes: Substitutes | None = None,
    splits: Substitutes | None = None,
) -> list[Record]:
    """Evasive spellings of clean records, one of each kind; the same for the same seed, whatever else is asked for.

    Args:
        records: Clean records. Their id is ``metadata["id"]``, or else their place from 0.
        kinds: Of ``KINDS``.
        strength: ``light``, ``middle`` or ``heavy``: 10, 30 or 60 % of the letters, digits and characters are changed,
            or as many as the kind can change. At least one is.
        seed: Of the random choices.
        lookalikes: Instead of the built-in table.
        splits: Instead of the built-in table.

    Returns:
        Records whose metadata say ``kind``, ``strength``, ``source_id``, ``changed`` (how many characters) and
        ``of`` (how many there are). A text in which a kind can change nothing has none of it.

    Raises:
        UsageError: An unknown kind or strength.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"evasion: unknown kind {kind!r}; expected one of {', '.join(KINDS)}")
    if strength not in STRENGTHS:
        raise UsageError(f"evasion: unknown strength {strength!r}; expected one of {', '.join(STRENGTHS)}")
    built = _tables()
    tables = _Tables(
        built.homophone,
        built.lookalike if lookalikes is None else lookalikes,
        built.split if splits is None else splits,
        built.traditional,
    )
    found = []
    for place, record in enumerate(records):
        source = record["metadata"].get("id", place)
        for kind in kinds:
            chance = random.Random(f"{seed} {kind} {strength} {source} {record['text']}")
            text, changed, of = _changed(record["text"], kind, STRENGTHS[strength], tables, chance)
            if changed:
                about: dict[str, Any] = {"kind": kind, "strength": strength, "source_id": source}
                found.append({"text": text, "metadata": {**about, "changed": changed, "of": of}})
    return found


def builtin(kind: str) -> Substitutes:
    """The built-in table of ``homophone``, ``lookalike``, ``split`` or ``traditional``."""
    table: Substitutes = getattr(_tables(), kind)
    return table


def _changed(text: str, kind: str, share: float, tables: _Tables, chance: random.Random) -> tuple[str, int, int]:
    """The text with a share of its characters changed, how many were, and of how many."""
    places = [i for i, character in enumerate(text) if character.isalnum()]
    wanted = max(1, round(share * len(places)))
    if kind in SPANS:
        return *SPANS[kind](text, wanted, chance), len(places)
    chance.shuffle(places)
    out, changed = list(text), 0
    for place in places:
        if changed == wanted:
            break
        kinds = [kind]
        if kind == "mixed":
            kinds = chance.sample(list(_WAYS), len(_WAYS))
        for one in kinds:
            new = _WAYS[one](text[place], tables, chance)
            if new is not None and new != text[place]:
                out[place] = new
                changed += 1
                break
    return "".join(out), changed, len(places)


def _chosen(table: Substitutes, character: str, chance: random.Random) -> str | None:
    options = table.get(character)
    return chance.choice(options) if options else None


def _traditional(character: str, tables: _Tables, chance: random.Random) -> str | None:
    if "!" <= character <= "~":
        return chr(ord(character) + 0xFEE0)
    return _chosen(tables.traditional, character, chance)


_WAYS: dict[str, Callable[[str, _Tables, random.Random], str | None]] = {
    "homophone": lambda character, tables, chance: _chosen(tables.homophone, character, chance),
    "lookalike": lambda character, tables, chance: _chosen(tables.lookalike, character, chance),
    "split": lambda character, tables, chance: _chosen(tables.split, character, chance),
    "symbol": lambda character, tables, chance: character + chance.choice(_SYMBOLS),
    "spacing": lambda character, tables, chance: character + chance.choice(_SPACES),
    "traditional": _traditional,
    "leet": lambda character, tables, chance: _chosen(_LEET, character.lower(), chance),
}


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    import opencc

    common = _common()
    converted = opencc.OpenCC("s2t").convert("\n".join(common)).split("\n")
    traditional = {one: [other] for one, other in zip(common, converted, strict=True) if one != other}
    folder = files(__package__)
    lookalikes = {line[0]: list(line[1:]) for line in folder.joinpath("lookalikes.txt").read_text("utf-8").split()}
    splits = {line[0]: [line[1:]] for line in folder.joinpath("splits.txt").read_text("utf-8").split()}
    return _Tables(_homophones(common), lookalikes, splits, traditional)


def _common() -> list[str]:
    """The 3,755 characters of GB 2312's first level."""
    rows = (bytes([high, low]) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    return [decoded for row in rows if (decoded := row.decode("gb2312", "ignore"))]


def _homophones(common: list[str]) -> Substitutes:
    from pypinyin import Style, pinyin

    readings = [pinyin(character, style=Style.NORMAL, heteronym=True)[0] for character in common]
    by_reading: dict[str, list[str]] = {}
    for character, own in zip(common, readings, strict=True):
        for reading in dict.fromkeys(own):
            by_reading.setdefault(reading, []).append(character)
    found = {
        character: [other for reading in dict.fromkeys(own) for other in by_reading[reading] if other != character]
        for character, own in zip(common, readings, strict=True)
    }
    return {character: others for character, others in found.items() if others}
