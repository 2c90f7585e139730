"""Multi-route recall: routes -> fusion -> optional reranking, over seeds in memory or over a bank."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecom_rag import arguments
from ecom_rag.arguments import flag, names_of, path_of, whole
from ecom_rag.errors import UsageError
from ecom_rag.files import records
from ecom_rag.files.keys import parse_key
from ecom_rag.files.records import Record
from ecom_rag.files.results import evidence_lists, result_of
from ecom_rag.files.values import shown, type_name
from ecom_rag.filters.parse import parse
from ecom_rag.idle import Needs, refuse_idle
from ecom_rag.models import CrossEncoder, Embeddings, Encoder
from ecom_rag.pipeline.reranking import rerank
from ecom_rag.retrieval import Ranking
from ecom_rag.retrieval.fusion import METHODS, RRF_CONSTANT, check_constant, fuse
from ecom_rag.retrieval.itself import Rows, search_others
from ecom_rag.retrieval.learned_fusion import LearnedFusion, load_fusion
from ecom_rag.retrieval.routes import ENCODED_ROUTES, INDEXED, default_weights
from ecom_rag.retrieval.weights import check_weights
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.seeds.memory import Seeds, SeedView, check_built, check_routes

logger = logging.getLogger(__name__)

FUSIONS = (*METHODS, "weighted")  # weighted: the usual name of the weighted sum, over min-max scores


@dataclass(frozen=True, slots=True)
class Recall:
    """What multi-route recall does; the keys of its TOML file are these names.

    Args:
        routes: Of ``retrieval.routes.INDEXED``; none for all that the bank has, or ``bm25`` and ``dense`` over a file.
        fusion: ``rrf``, ``weighted`` (that is ``minmax``), ``minmax``, ``zscore``, ``dbsf``, or the path of a fusion
            fitted by ``ecom-rag evaluate --fit-fusion`` (.json; ``str`` or ``Path``).
        weights: Of routes, in fusion; by default 1, and 0.3 for ``variant``.
        rrf_constant: Of ``rrf``.
        depth: Candidates kept of each route, and of the fusion where a reranker follows.
        top_k: Results per query, at most ``depth``.
        filter: Over the seeds' metadata, e.g. ``label = "fraud" and price < 100``, or its dict form.
        exact_multivector: Score every seed by MaxSim, instead of the other routes' candidates.
        normalize: Relevance of the reranker in 0..1.
        blend: Its share in the order, 0..1; see ``rerank``.
        exclude_self: Leave a seed out of the results of the query that it is: one of the query's id, or where one of
            them has no id, of its very text. The next best take its place, and no rank counts it.
        id_key: Metadata key of the ids of queries and seeds; by default the bank's, or ``id``.

    Raises:
        UsageError: Routes that are a single text, or a fusion that is no name and no path; ``check`` finds the rest.
    """

    routes: tuple[str, ...] = ()
    fusion: str | os.PathLike[str] = "weighted"
    weights: Mapping[str, float] | None = None
    rrf_constant: float = RRF_CONSTANT
    depth: int = 100
    top_k: int = 10
    filter: Any = None
    exact_multivector: bool = False
    normalize: bool = False
    blend: float = 1.0
    exclude_self: bool = False
    id_key: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", names_of(self.routes, "routes"))
        object.__setattr__(self, "fusion", path_of(self.fusion, "fusion"))

    def check(self) -> "Recall":
        """The same, if it makes sense.

        Raises:
            UsageError: It does not.
        """
        whole(self.top_k, "top-k")
        whole(self.depth, "depth")
        arguments.number(self.blend, "blend", low=0, high=1, expected="0 to 1, the reranker's share")
        for name in ("exact_multivector", "normalize", "exclude_self"):
            flag(getattr(self, name), name)
        if self.weights is not None and not isinstance(self.weights, Mapping):
            raise UsageError(f"weights is {shown(self.weights)}; expected a dict of routes and numbers")
        if self.fusion not in FUSIONS and not str(self.fusion).endswith(".json"):
            raise UsageError(f"fusion {self.fusion!r} is unknown; expected {', '.join(FUSIONS)} or a fitted .json file")
        if self.filter is not None:
            parse(self.filter)
        if self.id_key is not None:
            parse_key(self.id_key, what="id_key")
        fitted = self.fitted()
        if fitted is not None:
            if self.weights:
                raise UsageError(f"weights are given beside {self.fusion}, which has its own; leave them out")
            if self.routes:
                fitted.check_routes(self.routes)
        check_constant(self.rrf_constant)
        unknown = set(self.weights or ()) - set(self.routes or INDEXED)
        if unknown:
            raise UsageError(
                f"weights for {', '.join(sorted(unknown))}, which is none of the routes"
                f" {', '.join(self.routes or INDEXED)}"
            )
        if self.weights is not None:
            self.weights_of(self.routes or INDEXED)
        self._check_depth(len(self.routes) > 1)
        return self

    def id_key_of(self, seeds: Any) -> str:
        """The key of ids.

        Args:
            seeds: ``Seeds``, or a ``SeedBank``, which has a key of its own.

        Raises:
            UsageError: Another one than the bank's.
        """
        kept: str = seeds.id_key if isinstance(seeds, SeedBank) else self.id_key or "id"
        if self.id_key not in (None, kept):
            raise UsageError(
                f"the id key is {self.id_key!r}, but the bank keeps its documents by {kept!r}; leave it out"
            )
        return kept

    def _check_depth(self, counts: bool) -> None:
        if counts and self.depth < self.top_k:
            raise UsageError(f"depth {self.depth} is less than top-k {self.top_k}; keep at least as many candidates")

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
        return load_fusion(str(self.fusion)) if str(self.fusion).endswith(".json") else None

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
        given = [name for name, default in (("blend", 1), ("normalize", False)) if getattr(self, name) != default]
        refuse_idle(given, {"rerank": reranker or None}, _IDLE)
        self._check_depth(reranker or len(routes) > 1)  # a route alone is searched to the results asked for


_RERANKER = Needs(lambda values: values["rerank"] is not None, "without a reranker", "name one with --rerank")
_IDLE = {"blend": (_RERANKER,), "normalize": (_RERANKER,)}


class Pipeline:
    """Routes, fusion and reranker over seeds, ready for queries.

    Args:
        seeds: ``Seeds`` in memory, or an open ``SeedBank``.
        settings: See ``Recall``; by default all routes of the seeds.
        encoder: For routes over embeddings; a bank brings its own.
        cross_encoder: Re-sorts the fused candidates.

    Raises:
        UsageError: Settings that make no sense, or a route that the seeds do not have.
        BankError: The encoder is not of the bank's model.

    Attributes:
        notes: What is wrong with the filter, one line each: no seed meets it, or no seed has one of its keys. Each is
            logged as a warning too.
    """

    def __init__(
        self,
        seeds: Seeds | SeedBank,
        settings: Recall | None = None,
        *,
        encoder: Encoder | None = None,
        cross_encoder: CrossEncoder | None = None,
    ) -> None:
        if not isinstance(seeds, Seeds | SeedBank):
            raise UsageError(f"seeds is of type {type_name(seeds)}; expected Seeds(records, ...) or an open SeedBank")
        if not isinstance(settings, Recall | None):
            raise UsageError(f"settings is of type {type_name(settings)}; expected Recall(...)")
        arguments.model(cross_encoder, "cross_encoder", "score", "CrossEncoder", optional=True)
        self.settings = (settings or Recall()).check()
        self.routes = self.settings.routes or tuple(seeds.routes)
        self.settings.check_use(self.routes, reranker=cross_encoder is not None)
        check_built(self.routes, seeds.routes)
        needs = any(route in ENCODED_ROUTES for route in self.routes)
        if isinstance(seeds, SeedBank) and needs:
            if encoder is None:
                encoder = seeds.encoder
            elif seeds.model is not None:
                seeds.model.check(encoder, seeds.path)
        self.outputs = check_routes(self.routes, encoder)
        self.notes = seeds.filter_notes(self.settings.filter)
        for note in self.notes:
            logger.warning(note)
        self._seeds = seeds
        self._encoder = encoder
        self._cross_encoder = cross_encoder
        self.id_key = self.settings.id_key_of(seeds)
        self._fitted = self.settings.fitted()
        if self._fitted is not None:
            self._fitted.check_routes(self.routes)

    def __repr__(self) -> str:
        reranked = "" if self._cross_encoder is None else f", reranked by {self._cross_encoder!r}"
        return f"Pipeline({'+'.join(self.routes)} over {self._seeds!r}, top_k={self.settings.top_k}{reranked})"

    def recall(self, queries: Iterable[Record], *, progress: Callable[[int], None] | None = None) -> list[Record]:
        """The best seeds of each query.

        Args:
            queries: Any iterable of records; ``metadata`` may be left out.
            progress: Called with the number of queries done.

        Returns:
            The queries with ``topk_sim`` (descending), ``topk_seed``, ``topk_metadata``, and where more than one route
            or a reranker took part ``topk_evidence``: each route's own score and rank. They share nothing with
            ``queries`` and the seeds. Of no queries an empty list.

        Raises:
            RecordError: Something that is no record, or holds what JSON cannot hold; says which and why.
            BankError: The bank is closed or empty.
        """
        queries = list(records.cleaned(queries, "query"))
        if not queries:
            return []
        texts = [query["text"] for query in queries]
        keep = self.settings.top_k if self._cross_encoder is None else self.settings.depth
        embeddings = Embeddings()
        if self.outputs:
            assert self._encoder is not None
            embeddings = self._encoder.encode(texts, side="query", outputs=self.outputs)
        with self._seeds.view() as view:
            own = view.own_rows(queries, self.id_key) if self.settings.exclude_self else None
            found = self.search(view, texts, embeddings, own=own)
            results = _results(queries, view, self._fused(found, keep))
        if self._cross_encoder is not None:
            results = rerank(
                results,
                self._cross_encoder,
                top_k=self.settings.top_k,
                normalize=self.settings.normalize,
                blend=self.settings.blend,
            )
        if progress is not None:
            progress(len(queries))
        return results

    def search(
        self, view: SeedView, texts: Sequence[str], embeddings: Embeddings, *, own: Rows | None = None
    ) -> dict[str, Ranking]:
        """What each route finds by itself, to the depth of the settings.

        Args:
            view: One state of the seeds.
            texts: Of the queries.
            embeddings: Of the queries, as ``outputs`` names them.
            own: For each query the rows that it is itself, and that are left out.

        Returns:
            By route ``(queries, k)`` rows and scores, best first.
        """
        allowed = view.rows(self.settings.filter)
        depth = max(self.settings.depth, self.settings.top_k)
        found: dict[str, Ranking] = {}
        late = "multivector" in self.routes and len(self.routes) > 1 and not self.settings.exact_multivector
        for route in self.routes:
            if route == "multivector" and late:
                continue
            asked = texts if route not in ENCODED_ROUTES else getattr(embeddings, route)
            found[route] = search_others(view.index(route), asked, depth, own=own, allowed=allowed)
        if late:
            offered = np.concatenate([ranking.rows for ranking in found.values()], axis=1)
            index: Any = view.index("multivector")
            found["multivector"] = index.rescore(embeddings.multivector, offered, depth)
        return {route: found[route] for route in self.routes}

    def _fused(self, found: dict[str, Ranking], keep: int) -> Ranking:
        if len(found) == 1:
            [ranking] = found.values()
            return ranking.first(keep)
        if self._fitted is not None:
            return self._fitted.fuse(found, k=keep)
        weights = self.settings.weights_of(found)
        method = "minmax" if self.settings.fusion == "weighted" else str(self.settings.fusion)
        return fuse(found, k=keep, method=method, weights=weights, rrf_constant=self.settings.rrf_constant)


def _results(queries: Sequence[Record], view: SeedView, ranking: Ranking) -> list[Record]:
    """The queries with the found seeds' texts and metadata joined back by row number."""
    rows = np.unique(ranking.rows[ranking.rows >= 0])
    seeds = dict(zip(rows.tolist(), view.records(rows.tolist()), strict=True))
    evidence = evidence_lists(ranking) if ranking.evidence else None
    results = []
    for number, query in enumerate(queries):
        found = [seeds[row] for row in ranking.rows[number].tolist() if row >= 0]
        results.append(result_of(query, ranking.scores[number], found, evidence[number] if evidence else None))
    return results
