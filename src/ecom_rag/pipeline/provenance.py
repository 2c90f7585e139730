"""How results were made: what decisions on them depend on. ``recall`` writes it beside its output."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.files import publish, readers
from ecom_rag.pipeline.settings import Recall

KIND = "ecom_rag recall"


@dataclass(frozen=True, slots=True)
class Provenance:
    """How results were made.

    Args:
        routes: What was searched.
        top_k: Results per query.
        settings: Everything else that decides what is found for a text and in which order, by the names of ``Recall``.
        encoder: Fingerprint of the encoder; ``None`` where no route needs one.
        reranker: Fingerprint of the reranker; ``None`` for none.
        label_key: Metadata key of the seeds' labels.
        seeds: What tells the seeds from others; ``None`` where nothing does.
        sequence: Number of the bank's last change.
        count: Seeds.
    """

    routes: tuple[str, ...]
    top_k: int
    settings: Mapping[str, Any]
    encoder: str | None
    reranker: str | None
    label_key: str
    seeds: str | None
    sequence: int
    count: int

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "routes": list(self.routes)}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> "Provenance":
        """From what ``as_json`` gave; raises ``TypeError`` for anything else."""
        found = cls(**content)
        return replace(found, routes=tuple(found.routes))

    def differences(self, other: "Provenance") -> list[str]:
        """What makes the results of another recall incomparable, one phrase each; the seeds aside."""
        found = [
            f"{name} {_shown(getattr(other, name))} instead of {_shown(getattr(self, name))}"
            for name in ("routes", "top_k", "encoder", "reranker", "label_key")
            if getattr(other, name) != getattr(self, name)
        ]
        keys = dict.fromkeys((*self.settings, *other.settings))
        return found + [
            f"{key} {other.settings.get(key)} instead of {self.settings.get(key)}"
            for key in keys
            if other.settings.get(key) != self.settings.get(key)
        ]


def settings_of(settings: Recall, routes: Sequence[str]) -> dict[str, Any]:
    """What decides the results of a recall beside its routes and ``top_k``, as plain values.

    Args:
        settings: As asked for.
        routes: What is searched.
    """
    fitted, alone = settings.fitted(), len(routes) == 1
    summed = not alone and fitted is None and settings.fused_by != "auto"
    return {
        "fusion": None if alone else settings.fused_by if fitted is None else asdict(fitted),
        "weights": settings.weights_of(routes) if summed else None,
        "rrf_constant": settings.rrf_constant if settings.fused_by == "rrf" and not alone else None,
        "hybrid_weights": list(settings.hybrid_weights) if "hybrid" in routes else None,
        "depth": settings.top_k if alone else settings.depth,
        "filter": settings.filter,
        "exact_multivector": settings.exact_multivector,
    }


def recall_of(made: Provenance) -> Recall:
    """The settings that make results alike.

    Args:
        made: How they were made.

    Raises:
        UsageError: By a fusion of a file, whose path is not known any more.
    """
    given = {key: value for key, value in made.settings.items() if value is not None}
    if isinstance(given.get("fusion"), dict):
        raise UsageError(
            "the results were fused by a fitted fusion of a file; recall with the fusion auto or with weights"
        )
    if "hybrid_weights" in given:
        given["hybrid_weights"] = tuple(given["hybrid_weights"])
    return Recall(routes=made.routes, top_k=made.top_k, label_key=made.label_key, **given)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(value)
    return "none" if value is None else str(value)[:60]  # a fingerprint with all that it tells


def place_of(output: str) -> str:
    """Where the provenance of an output lies."""
    return f"{output}.about.json"


def write_beside(output: str, provenance: Provenance) -> list[str]:
    """Write the provenance of an output beside it.

    Args:
        output: Path of the results.
        provenance: Of them.

    Returns:
        A note where a file that is not ours has the name; it is left alone.
    """
    place = place_of(output)
    if Path(place).exists() and read(place) is None:
        return [f"{place}: is not a file of recall and was left as it is; nothing says how {output} was made"]
    content = {"kind": KIND, **provenance.as_json()}
    with publish.writing(place) as sink:
        sink.write(f"{json.dumps(content, ensure_ascii=False, indent=1)}\n".encode())
    return []


def read_beside(results: str) -> Provenance | None:
    """The provenance of results, where it lies beside them."""
    place = place_of(results)
    return read(place) if results != "-" and Path(place).is_file() else None


def read(place: str) -> Provenance | None:
    """The provenance of a file; ``None`` where it is none."""
    try:
        content = readers.read_json(place, remedy="recall again")
        if isinstance(content, dict) and content.pop("kind", None) == KIND:
            return Provenance.of_json(content)
    except (UsageError, TypeError):
        pass
    return None
