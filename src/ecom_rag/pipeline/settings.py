"""What multi-route recall is asked to do: the settings, and their TOML file."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from ecom_rag import arguments
from ecom_rag.arguments import PathLike, flag, names_of, path_of, path_or_none, whole
from ecom_rag.errors import UsageError
from ecom_rag.files import readers
from ecom_rag.files.jobs import Cut
from ecom_rag.files.keys import parse_key
from ecom_rag.filters.parse import parse
from ecom_rag.idle import Needs, refuse_idle
from ecom_rag.retrieval import hybrid
from ecom_rag.retrieval.fusion import METHODS, RRF_CONSTANT, check_constant, fuse
from ecom_rag.retrieval.learned_fusion import LearnedFusion, load_fusion
from ecom_rag.retrieval.ranking import Ranking
from ecom_rag.retrieval.routes import ROUTES, check_routes, default_weights
from ecom_rag.retrieval.weights import check_weights
from ecom_rag.values import shown

FUSIONS = (*METHODS, "weighted", "auto")  # weighted: the usual name of the weighted sum, over min-max scores


@dataclass(frozen=True, slots=True)
class Recall:
    """What multi-route recall does; the keys of its TOML file are these names.

    Args:
        routes: Names from ``retrieval.routes.ROUTES``; empty for all of a bank, or ``bm25`` and ``dense`` over a file.
        fusion: ``auto`` (weights fitted on the labels of the seeds, see ``seed_fusion``), ``rrf``, ``weighted`` (which
            is ``minmax``), ``minmax``, ``zscore``, ``dbsf``, or the path of a fusion of ``evaluation.fit_fusion``
            (.json; ``str`` or ``Path``); by default ``auto``, or ``weighted`` where there are weights.
        weights: Weight of each route in fusion; by default 1, 0.5 for ``dense`` and 0.3 for ``variant``.
        hybrid_weights: Weights of dense, sparse and multivector within the route ``hybrid``.
        rrf_constant: Constant that the fusion ``rrf`` adds to each rank.
        depth: Candidates kept per route, and after fusion where a reranker follows.
        top_k: Results per query, at most ``depth``.
        filter: Condition on the seeds' metadata, e.g. ``label = "fraud" and price < 100``, or its dict form.
        exact_multivector: Score every seed by MaxSim, instead of the other routes' candidates.
        normalize: Give the reranker's relevance in 0..1 instead of logits.
        blend: Share of the reranker's relevance in the order, 0..1; ``rerank`` says how.
        exclude_self: Leave a seed out of the results of the query that it is: one of the query's id, or where one of
            them has no id, of its very text. The next best take its place, and no rank counts it.
        id_key: Metadata key of the ids of queries and seeds; by default the bank's, or ``id``.
        label_key: Metadata key of the seeds' labels, for the fusion ``auto``; by default the bank's, or ``label``.

    Raises:
        UsageError: Routes that are a single text, or a fusion that is not text; ``check`` finds the rest.
    """

    routes: tuple[str, ...] = ()
    fusion: str | os.PathLike[str] | None = None
    weights: Mapping[str, float] | None = None
    hybrid_weights: tuple[float, ...] = hybrid.EQUAL
    rrf_constant: float = RRF_CONSTANT
    depth: int = 100
    top_k: int = 10
    filter: Any = None
    exact_multivector: bool = False
    normalize: bool = False
    blend: float = 1.0
    exclude_self: bool = False
    id_key: str | None = None
    label_key: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", names_of(self.routes, "routes"))
        object.__setattr__(self, "fusion", path_or_none(self.fusion, "fusion"))
        weights = arguments.listed(self.hybrid_weights, "hybrid_weights", "three numbers")
        object.__setattr__(self, "hybrid_weights", tuple(weights))

    def check(self) -> "Recall":
        """The same, if it makes sense.

        Raises:
            UsageError: It does not.
        """
        whole(self.top_k, "top_k")
        whole(self.depth, "depth")
        arguments.number(self.blend, "blend", low=0, high=1, expected="0 to 1, the reranker's share")
        for name in ("exact_multivector", "normalize", "exclude_self"):
            flag(getattr(self, name), name)
        if self.filter is not None:
            parse(self.filter)
        if self.id_key is not None:
            parse_key(self.id_key, what="id_key")
        if self.label_key is not None:
            parse_key(self.label_key, what="label_key")
        if self.routes:
            check_routes(self.routes)
        check_constant(self.rrf_constant)
        hybrid.weights_of(self.hybrid_weights)
        self._check_fusion()
        self._check_depth(len(self.routes) > 1)
        return self

    @property
    def fused_by(self) -> str:
        """The fusion, given or by default."""
        return str(self.fusion or ("weighted" if self.weights else "auto"))

    def _check_fusion(self) -> None:
        if self.weights is not None and not isinstance(self.weights, Mapping):
            raise UsageError(f"`weights` is {shown(self.weights)}; expected a dict of routes and numbers")
        if self.fused_by not in FUSIONS and not self.fused_by.endswith(".json"):
            raise UsageError(f"fusion {self.fusion!r} is unknown; expected {', '.join(FUSIONS)} or a fitted .json file")
        if self.fused_by == "auto" and self.weights:
            raise UsageError("weights are given beside the fusion auto, which finds its own; leave them out")
        fitted = self.fitted()
        if fitted is not None:
            if self.weights:
                raise UsageError(f"weights are given beside {self.fusion}, which has its own; leave them out")
            if self.routes:
                fitted.check_routes(self.routes)
        named = self.routes or tuple(ROUTES)
        if unknown := set(self.weights or ()) - set(named):
            raise UsageError(
                f"weights for {', '.join(sorted(unknown))}, which is none of the routes {', '.join(named)}"
            )
        if self.weights is not None:
            self.weights_of(named)

    def _check_depth(self, counts: bool) -> None:
        if counts and self.depth < self.top_k:
            raise UsageError(f"depth {self.depth} is less than top-k {self.top_k}; keep at least as many candidates")

    def id_key_of(self, kept: str | None) -> str:
        """The key of ids.

        Args:
            kept: The key that the seeds are kept by, if there is one.

        Raises:
            UsageError: Another one is asked for.
        """
        if kept is not None and self.id_key not in (None, kept):
            raise UsageError(
                f"the id key is {self.id_key!r}, but the bank keeps its documents by {kept!r}; leave it out"
            )
        return kept or self.id_key or "id"

    def weights_of(self, routes: Iterable[str]) -> dict[str, float]:
        """The weight of each route, given or by default.

        Args:
            routes: Names of the routes that are fused.

        Raises:
            UsageError: No weighted mean can be formed with them.
        """
        given = default_weights(routes) | dict(self.weights or {})
        return check_weights(given, of="fusion weights")

    def fitted(self) -> LearnedFusion | None:
        """The fusion of a file, where it is one."""
        return load_fusion(self.fused_by) if self.fused_by.endswith(".json") else None

    def fuse(self, found: Mapping[str, Ranking], k: int, fitted: LearnedFusion | None) -> Ranking:
        """The k best of what the routes found.

        Args:
            found: By route.
            k: Results per query.
            fitted: What ``fitted`` gives.

        Raises:
            UsageError: Other routes than the fusion was fitted for.
        """
        if len(found) == 1:
            [ranking] = found.values()
            return ranking.first(k)
        if fitted is not None:
            return fitted.fuse(found, k=k)
        method = "minmax" if self.fused_by in ("weighted", "auto") else self.fused_by
        return fuse(found, k=k, method=method, weights=self.weights_of(found), rrf_constant=self.rrf_constant)

    def routes_of_file(self, *, encoder: bool) -> tuple[str, ...]:
        """The routes over seeds that are no bank.

        Args:
            encoder: Whether there is one.
        """
        return self.routes or (("bm25", "dense") if encoder else ("bm25",))

    def check_use(self, routes: Sequence[str], *, reranker: bool) -> None:
        """Whether all of it can be used.

        Args:
            routes: The routes that are searched.
            reranker: Whether there is one.

        Raises:
            UsageError: Fewer candidates than results, or something that only a reranker heeds where there is none.
        """
        defaults = {"blend": 1, "normalize": False, "hybrid_weights": hybrid.EQUAL}
        given = [name for name, default in defaults.items() if getattr(self, name) != default]
        refuse_idle(given, {"rerank": reranker or None, "routes": routes, "routes_shown": ",".join(routes)}, _IDLE)
        self._check_depth(reranker or len(routes) > 1)  # a route alone is searched to the results asked for


def cut_of(settings: Recall, *, reranked: bool) -> Cut:
    """The blocks that queries are searched in; a reranker reads each query once per candidate."""
    return Cut(max_size=Cut().max_size // settings.depth) if reranked else Cut()


_RERANKER = Needs(lambda values: values["rerank"] is not None, "without a reranker", "give one")
_HYBRID = Needs(lambda values: "hybrid" in values["routes"], "with the routes {routes_shown}", "search by hybrid")
_IDLE = {"blend": (_RERANKER,), "normalize": (_RERANKER,), "hybrid_weights": (_HYBRID,)}

_MODELS = ("model", "rerank")
_KINDS: Mapping[str, tuple[type, ...]] = {
    "routes": (list,),
    "fusion": (str,),
    "weights": (dict,),
    "hybrid_weights": (list,),
    "rrf_constant": (int, float),
    "depth": (int,),
    "top_k": (int,),
    "filter": (str, dict),
    "exact_multivector": (bool,),
    "normalize": (bool,),
    "blend": (int, float),
    "exclude_self": (bool,),
    "id_key": (str,),
    "label_key": (str,),
    "model": (str,),
    "rerank": (str,),
}
assert set(_KINDS) == {field.name for field in fields(Recall)} | set(_MODELS)


def read_settings(path: PathLike | None, options: Mapping[str, Any]) -> tuple[Recall, dict[str, str]]:
    """Settings of a TOML file, with those of ``options`` that are not ``None`` on top.

    Args:
        path: Of the file; ``None`` for none. Its keys are those of ``Recall``, ``model`` and ``rerank``.
        options: By the same names.

    Returns:
        The settings, and ``model`` and ``rerank`` where they are given.

    Raises:
        UsageError: No such file, no TOML, an unknown key, or a value of the wrong kind.
    """
    found: dict[str, Any] = {} if path is None else read_toml(path_of(path, "path"))
    found.update({key: value for key, value in options.items() if value is not None})
    models = {key: str(found.pop(key)) for key in _MODELS if key in found}
    if unknown := set(found) - {field.name for field in fields(Recall)}:
        raise UsageError(f"the settings {', '.join(map(str, unknown))} are unknown; expected those of Recall")
    return replace(Recall(), **found).check(), models


def read_toml(path: str) -> dict[str, Any]:
    """The settings of a TOML file, each of the right kind; raises as ``read_settings``."""
    found = readers.read_toml(path, remedy="check the path, and see docs/recall.md for an example")
    for key, value in found.items():
        if key not in _KINDS:
            near = get_close_matches(key, _KINDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(_KINDS)}"
            raise UsageError(f"{path}: key {key!r} is unknown; {hint}")
        if not isinstance(value, _KINDS[key]) or (isinstance(value, bool) and bool not in _KINDS[key]):
            raise UsageError(
                f"{path}: {key} is {value!r}; expected {' or '.join(kind.__name__ for kind in _KINDS[key])}"
            )
    return found
