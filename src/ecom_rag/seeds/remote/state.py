"""Where a bank in a server stands: the numbers that every search and every change need."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Texts:
    """Statistics of a route over texts.

    Args:
        terms: Of all live documents.
        slope: Of the saturation that the server's values were made with; 0 as long as there are none.
        numbers: Terms that were ever given a number.
    """

    terms: int = 0
    slope: float = 0.0
    numbers: int = 0


@dataclass(slots=True)
class Statistics:
    """What a search must know of the rows as a whole.

    Args:
        norm: The largest length of a dense vector that was ever there.
        largest: The largest learned weight that was ever there.
        texts: By route.
    """

    norm: float = 0.0
    largest: float = 0.0
    texts: dict[str, Texts] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> "Statistics":
        """What gave a text."""
        found: dict[str, Any] = json.loads(text)
        texts = {route: Texts(**own) for route, own in found.pop("texts", {}).items()}
        return cls(**found, texts=texts)


@dataclass(slots=True)
class State:
    """Where a bank stands.

    Args:
        sequence: Number of the last change.
        next_row: Number that the next row gets; numbers are never used twice.
        live: Documents.
        statistics: Of them.
    """

    sequence: int
    next_row: int
    live: int
    statistics: Statistics
