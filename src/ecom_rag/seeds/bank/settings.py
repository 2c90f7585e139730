"""What a bank is made with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ecom_rag.arguments import names_of, text_of
from ecom_rag.errors import UsageError
from ecom_rag.files.keys import parse_key, written
from ecom_rag.filters.sql import indexable
from ecom_rag.retrieval.routes import INDEXED, check_routes, outputs_of
from ecom_rag.text.analysis import Analyzer
from ecom_rag.values import type_name


@dataclass(frozen=True, slots=True)
class BankSettings:
    """What a bank is made with, and keeps as long as it lives. Keys are written as in a filter: ``seller.level``.

    Args:
        routes: Names of the indexes to keep, of ``retrieval.routes.INDEXED``.
        id_key: Key of the metadata that holds a document's id.
        label_key: Key of the metadata whose labels ``SeedBank.stats`` counts.
        index_keys: Keys of the metadata on which filters are made fast.
        analyzer: How texts become terms.

    Raises:
        UsageError: No route, an unknown one or one twice; something that is not a key, or a key that cannot be indexed.
    """

    routes: tuple[str, ...] = ("bm25", "dense")
    id_key: str = "id"
    label_key: str = "label"
    index_keys: tuple[str, ...] = ()
    analyzer: Analyzer = field(default_factory=Analyzer)

    def __post_init__(self) -> None:
        for name in ("routes", "index_keys"):
            object.__setattr__(self, name, names_of(getattr(self, name), name))
        for name in ("id_key", "label_key"):
            object.__setattr__(self, name, text_of(getattr(self, name), name))
            parse_key(getattr(self, name), what=name)
        if not isinstance(self.analyzer, Analyzer):
            raise UsageError(f"`analyzer` is of type {type_name(self.analyzer)}; expected Analyzer(...)")
        check_routes(self.routes, INDEXED)
        for key in self.index_keys:
            if not indexable(parse_key(key)):
                raise UsageError(
                    f"index key {key!r} holds quotes, backslashes or control characters; filters find it,"
                    " but it cannot be indexed"
                )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The encoder outputs that the routes search; none where no model is needed."""
        return outputs_of(self.routes)

    def shown(self) -> dict[str, Any]:
        """The settings as JSON for people; equal where the banks would be equal."""
        return {
            **asdict(self),
            "routes": list(self.routes),
            "index_keys": sorted(self.index_keys),
            "analyzer": self.analyzer.fingerprint(),
        }


def to_meta(settings: BankSettings) -> dict[str, Any]:
    """Settings as a bank's record notes them, in JSON."""
    return {**asdict(settings), "id_key_is_path": True}


def from_meta(meta: Mapping[str, Any]) -> BankSettings:
    """The settings that a bank's record notes."""
    analyzer: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in meta["analyzer"].items()
    }
    if analyzer.get("reader"):
        from ecom_rag.models.deobfuscation import Deobfuscator

        analyzer["reader"] = Deobfuscator(**analyzer["reader"])
    return BankSettings(
        routes=meta["routes"],
        id_key=meta["id_key"] if meta.get("id_key_is_path") else written(meta["id_key"]),  # an older bank's: a name
        label_key=meta["label_key"],
        index_keys=meta["index_keys"],
        analyzer=Analyzer(**analyzer),
    )


def settings_of(value: Any) -> BankSettings:
    """The settings that a caller gives, by default the usual ones.

    Raises:
        UsageError: Something else.
    """
    if not isinstance(value, BankSettings | None):
        raise UsageError(f"`settings` is of type {type_name(value)}; expected BankSettings(...)")
    return value or BankSettings()
