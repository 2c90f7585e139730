"""Messages of the library without what a request has said, for answers and logs.

The library words its errors for the person whose files they are about, so they quote: ids, keys, labels, parts of a
filter. Over HTTP what they quote is the client's own content, or another's, and both answers and logs are kept by
programs that must not hold it. What remains is the sentence around the quotes.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

WITHHELD = "..."
_MOST = 20_000  # strings that are looked for; a message about a request of more is withheld, as looking takes time
_LONGEST = 500  # characters of a message
_SHORTEST = 3  # characters of a string that is looked for by itself
_BEGINNING = 12  # characters by which a longer string is found, since the library cuts what it shows

# From an opening quote to a closing one, or to the end where the message was cut.
_QUOTED = re.compile(r"(?<!\w)'(.*?)(?:'(?!\w)|$)|\"(.*?)(?:\"(?!\w)|$)", re.DOTALL)
_PATH = re.compile(r"(?<![\w/])/(?:[^\s/:;,]+/)+[^\s/:;,]*")
_WORD = re.compile(r"\w+")
_PLAIN = re.compile(r"[a-z_]+")

# Words of the interface, which tell nothing of a request.
KNOWN = frozenset(
    (
        "id",
        "text",
        "metadata",
        "label",
        "query",
        "passage",
        "documents",
        "document",
        "records",
        "record",
        "seeds",
        "input",
        "model",
        "bank",
        "routes",
        "fusion",
        "weights",
        "depth",
        "top_k",
        "filter",
        "rerank",
        "normalize",
        "blend",
        "policy",
        "deadline_ms",
        "bm25",
        "dense",
        "sparse",
        "multivector",
        "variant",
        "hybrid",
        "auto",
        "rrf",
        "weighted",
        "minmax",
        "zscore",
        "dbsf",
        "and",
        "or",
        "not",
        "true",
        "false",
        "null",
        "float",
        "base64",
        "dimensions",
        "outputs",
        "side",
        "truncate",
    )
)


def redacted(message: str, sent: Iterable[str] = ()) -> str:
    """A message in which quoted parts, paths, and what a request has sent are replaced by ``...``.

    Args:
        message: Of the library.
        sent: The strings of the request.

    Returns:
        At most 500 characters on one line; of a request with very many strings nothing of the message.
    """
    text = " ".join(message.split())[:_LONGEST]
    sent = [one for one in islice(sent, _MOST) if len(one) >= _SHORTEST and one not in KNOWN]
    if len(sent) == _MOST:
        return "the request cannot be served as it is; send fewer texts at once to see why"
    found = {part for one in sent for part in _parts(one) if part in text}
    for part in sorted(found, key=len, reverse=True):
        text = text.replace(part, WITHHELD)
    text = _QUOTED.sub(lambda match: match[0] if (match[1] or match[2]) in KNOWN else f"'{WITHHELD}'", text)
    text = _PATH.sub(WITHHELD, text)
    odd = {word for word in _WORD.findall(text) if not _PLAIN.fullmatch(word) and len(word) >= _SHORTEST}
    for word in sorted(odd - KNOWN, key=len, reverse=True):
        if any(word in one for one in sent):
            text = re.sub(rf"\b{re.escape(word)}\b", WITHHELD, text)
    return text


def strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value, keys too."""
    level = [value]
    while level:
        one = level.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            level.extend(one)
            level.extend(one.values())
        elif isinstance(one, list):
            level.extend(one)


def _parts(text: str) -> tuple[str, ...]:
    one_line = " ".join(text[:_LONGEST].split())
    if len(one_line) < _SHORTEST:
        return ()
    return (one_line,) if len(one_line) <= _BEGINNING else (one_line, one_line[:_BEGINNING])
