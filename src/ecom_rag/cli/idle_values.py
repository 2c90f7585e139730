"""What the conditions of ``idle`` look at beside the options: routes by default, the kind of a file, a bank."""

from collections.abc import Callable, Mapping
from typing import Any


def _named(routes: Any) -> tuple[str, ...]:
    parts = routes.split(",") if isinstance(routes, str) else routes
    return tuple(str(part).strip() for part in parts)


def _with_routes(routes: tuple[str, ...]) -> dict[str, Any]:
    return {"routes": routes, "routes_shown": ",".join(routes)}


def _recalled(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The routes that will be searched, given or by default, and the fusion."""
    from ecom_rag.pipeline import Recall

    if (values["seeds"] is None) == (values["bank"] is None):
        return None
    if values["routes"]:
        routes = _named(values["routes"])
    elif values["bank"] is not None:
        routes = _opened(values["bank"]).routes
    else:
        routes = Recall().routes_of_file(encoder=values["model"] is not None)
    return {**_with_routes(routes), "fusion": values["fusion"] or ("weighted" if values.get("weights") else "auto")}


def _evaluated(values: Mapping[str, Any]) -> dict[str, Any]:
    """The routes of a search of a BEIR folder, whether there is one, and whether any RESULTS are no TREC run."""
    from ecom_rag.files.trec import RUN_ENDINGS
    from ecom_rag.pipeline import Recall

    routes = _named(values["routes"]) if values["routes"] else Recall().routes_of_file(encoder=bool(values["model"]))
    searches = any(values[key] is not None for key in ("model", "routes", "fusion", "rerank"))
    records = any(not name.endswith(RUN_ENDINGS) for name in values["results"] or ())
    return {**_with_routes(routes), "searches": searches, "records": records}


def _mined(values: Mapping[str, Any]) -> dict[str, Any]:
    from ecom_rag.mining.sources import kind_of

    return {"kind": kind_of(values["queries"])}


def _added_to(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"loads": _opened(values["bank"]).model is not None}


def _opened(path: str) -> Any:
    """A bank, closed again; its routes and its model are known."""
    from ecom_rag.seeds.opening import open_bank

    with open_bank(path) as bank:
        return bank


MORE: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any] | None]] = {
    "recall": _recalled,
    "evaluate": _evaluated,
    "mine": _mined,
    "bank build": lambda values: _with_routes(_named(values["routes"])),
    "bank add": _added_to,
    "scan": _added_to,
}
