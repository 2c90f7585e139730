"""What may be done with the results of a recall over files before they are written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ecom_rag.files.records import Record
from ecom_rag.pipeline.provenance import Provenance


class After(Protocol):
    """What a recall over files does with its results before they are written.

    Attributes:
        settings: What decides the bytes that it adds.
    """

    settings: Mapping[str, Any]

    def begin(self, made: Provenance, cache: Path | None) -> None:
        """Called once, before the first block, with how the results are made and where a run may keep things."""

    def block(self, results: list[Record]) -> tuple[list[Record], Mapping[str, int]]:
        """The results of a block as they are written, and what was counted in them; blocks come in order."""

    def replay(self, written: Iterator[Record]) -> None:
        """Called before the first block of a resumed run, with what the interrupted one had written."""

    def end(self) -> list[str]:
        """Called when all is written, before the output gets its name; notes for the user."""

    def close(self) -> None:
        """Called last, whether the run is complete or not."""
