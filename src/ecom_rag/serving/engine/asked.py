"""What a request asks of the search: over which bank, how, and whether it is reranked or decided."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import orjson

from ecom_rag.errors import UsageError
from ecom_rag.pipeline.settings import Recall


@dataclass(frozen=True, slots=True)
class Asked:
    """One way of searching; requests that ask for the same are searched as one block.

    Args:
        bank: Name of the bank.
        settings: How, with the routes named.
        reranked: Whether a reranker follows.
        decided: Whether the bank's policy decides.
        key: Equal for those that ask for the same.
    """

    bank: str
    settings: Recall = field(compare=False)
    reranked: bool = False
    decided: bool = False
    key: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, bank: str, settings: Recall, *, reranked: bool = False, decided: bool = False) -> "Asked":
        """With the key of the settings.

        Args:
            bank: Name of the bank.
            settings: How, with the routes named.
            reranked: Whether a reranker follows.
            decided: Whether the bank's policy decides.
        """
        key = orjson.dumps(asdict(settings), option=orjson.OPT_SORT_KEYS)
        return cls(bank, settings, reranked, decided, key)


def overridden(settings: Recall, asked: Mapping[str, Any], *, routes: tuple[str, ...], reranked: bool) -> Recall:
    """The service's settings with what a request says on top.

    Args:
        settings: Of the service.
        asked: By the names of ``Recall``; ``None`` for what the request does not say.
        routes: Of the bank.
        reranked: Whether a reranker follows.

    Raises:
        UsageError: Settings that make no sense, or routes that the bank does not have.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if "weights" in given and "fusion" not in given and settings.fused_by == "auto":
        given["fusion"] = "weighted"
    found = replace(settings, **given)
    if str(found.fusion or "").endswith(".json") and "fusion" in given:
        raise UsageError("fusion is a file; expected auto, weighted, rrf, zscore or dbsf")
    names = found.routes or routes
    if missing := [name for name in names if name not in routes and name != "hybrid"]:
        raise UsageError(f"the bank has no route {', '.join(missing)}; its routes are {', '.join(routes)}")
    found = replace(found, routes=names).check()
    if not reranked:  # what speaks of a reranker has no effect, and is refused only where the request says it
        default = Recall()
        idle = [name for name in ("normalize", "blend") if name in given and given[name] != getattr(default, name)]
        if idle:
            raise UsageError(f"{' and '.join(idle)} have no effect without a reranker; leave them out, or ask for one")
        found = replace(found, normalize=default.normalize, blend=default.blend)
    found.check_use(found.routes, reranker=reranked)
    return found


assert {"routes", "weights", "fusion", "normalize", "blend"} <= {field.name for field in fields(Recall)}
