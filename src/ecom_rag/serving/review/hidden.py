"""Characters that a text hides: what nobody sees, or what turns the text round, as boxes with a name.

A page never holds such a character itself: one that reorders text would reorder the page too.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from ecom_rag.text.normalization import INVISIBLE

_HIDDEN = re.compile(f"[{INVISIBLE}\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufff9-\ufffb\ud800-\udfff\ue000-\uf8ff]")
_SHORT = {
    "\u00ad": "SHY",
    "\u061c": "ALM",
    "\u200b": "ZWSP",
    "\u200c": "ZWNJ",
    "\u200d": "ZWJ",
    "\u200e": "LRM",
    "\u200f": "RLM",
    "\u202a": "LRE",
    "\u202b": "RLE",
    "\u202c": "PDF",
    "\u202d": "LRO",
    "\u202e": "RLO",
    "\u2060": "WJ",
    "\u2066": "LRI",
    "\u2067": "RLI",
    "\u2068": "FSI",
    "\u2069": "PDI",
    "\ufeff": "BOM",
}
_CONTROLS = "NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC"
_SHORT |= {chr(code): name for code, name in enumerate(_CONTROLS.split())}


class Span(NamedTuple):
    """A stretch of a text, its route or what it stands for.

    Args:
        start: First character.
        end: Behind the last one.
        route: That marks it.
    """

    start: int
    end: int
    route: str


class Piece(NamedTuple):
    """A stretch of a text that is shown in one way.

    Args:
        text: What is shown: the text itself, or the short name of a hidden character.
        name: Code point and name of a hidden character; ``None`` for text that shows itself.
        routes: That mark it.
    """

    text: str
    name: str | None
    routes: tuple[str, ...]


def pieces(text: str, spans: Sequence[Span] = ()) -> list[Piece]:
    """Cut a text where a mark begins or ends and around its hidden characters.

    Args:
        text: Any string.
        spans: Marks; they may overlap.

    Returns:
        Pieces that put together are the text, with names in place of hidden characters.
    """
    boxes = {match.start() for match in _HIDDEN.finditer(text) if not _joins_emoji(text, match.start())}
    cuts = sorted({0, len(text), *boxes, *(place + 1 for place in boxes), *_ends(text, spans)})
    found = []
    for start, end in pairwise(cuts):
        routes = tuple(sorted({one.route for one in spans if one.start <= start and end <= one.end}))
        if start in boxes:
            found.append(Piece(short_name(text[start]), name_of(text[start]), routes))
        else:
            found.append(Piece(text[start:end], None, routes))
    return found


def visible(text: str) -> str:
    """A text of one line with names in brackets in place of hidden characters, for attributes and lists."""
    shown = (f"[{piece.text}]" if piece.name else piece.text for piece in pieces(" ".join(text.split())))
    return "".join(shown)


def short_name(character: str) -> str:
    """What stands in the box of a hidden character."""
    return _SHORT.get(character) or f"U+{ord(character):04X}"


def name_of(character: str) -> str:
    """Code point and name of a character."""
    name = unicodedata.name(character, "") or _SHORT.get(character) or "without a name"
    return f"U+{ord(character):04X} {name}"


def _ends(text: str, spans: Sequence[Span]) -> Iterator[int]:
    for one in spans:
        yield from (min(max(one.start, 0), len(text)), min(max(one.end, 0), len(text)))


def _joins_emoji(text: str, place: int) -> bool:
    """Whether a variation selector or joiner belongs to an emoji, where it hides nothing."""
    if text[place] not in "\u200d\ufe0e\ufe0f" or not place:
        return False
    before = text[place - 1]
    if text[place] == "\u200d":
        after = text[place + 1 : place + 2]
        return (_is_symbol(before) or before == "\ufe0f") and bool(after) and _is_symbol(after)
    return _is_symbol(before) or before in "0123456789#*"


def _is_symbol(character: str) -> bool:
    return unicodedata.category(character) in ("So", "Sk")
