"""Multi-route recall in memory: routes -> fusion -> optional reranking, over seeds of any kind."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecom_rag import arguments
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.records import Record
from ecom_rag.files.results import results_of
from ecom_rag.models import CrossEncoder, Embeddings, Encoder
from ecom_rag.pipeline.provenance import Provenance, settings_of
from ecom_rag.pipeline.reranking import rerank_rows
from ecom_rag.pipeline.seed_fusion import fusion_of_seeds
from ecom_rag.pipeline.settings import Recall
from ecom_rag.retrieval import Ranking
from ecom_rag.retrieval.itself import Rows
from ecom_rag.retrieval.learned_fusion import LearnedFusion
from ecom_rag.retrieval.routes import Queries, outputs_of
from ecom_rag.seeds.source import SeedSource, SeedView, check_built, check_routes
from ecom_rag.values import type_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, before any reranking.

    Args:
        ranking: Of each query.
        seeds: The record of each row in it.
    """

    ranking: Ranking
    seeds: Mapping[int, Record]


class Pipeline:
    """Routes, fusion and reranker over seeds, ready for queries.

    Args:
        seeds: ``Seeds`` in memory, or an open ``SeedBank``.
        settings: What to search and how; by default all routes of the seeds.
        encoder: Encoder of the queries, for routes over embeddings; by default that of the seeds.
        cross_encoder: Reranker of the fused candidates; by default they keep their order.
        fitted: Weights for the fusion ``auto`` that are known already; by default they are fitted.

    Raises:
        UsageError: Settings that make no sense, or a route that the seeds do not have.
        BankError: The encoder is not of the seeds' model.

    Attributes:
        notes: What is wrong with the filter, one line each: no seed meets it, or no seed has one of its keys. Each is
            logged as a warning too.
        fitted: Weights of the routes, where they were fitted; ``None`` where they were not.
    """

    def __init__(
        self,
        seeds: SeedSource,
        settings: Recall | None = None,
        *,
        encoder: Encoder | None = None,
        cross_encoder: CrossEncoder | None = None,
        fitted: LearnedFusion | None = None,
    ) -> None:
        if not isinstance(seeds, SeedSource):
            raise UsageError(f"`seeds` is of type {type_name(seeds)}; expected Seeds(records, ...) or an open SeedBank")
        if not isinstance(settings, Recall | None):
            raise UsageError(f"`settings` is of type {type_name(settings)}; expected Recall(...)")
        arguments.model(encoder, "encoder", "check_outputs", "Encoder", optional=True)
        arguments.model(cross_encoder, "cross_encoder", "score", "CrossEncoder", optional=True)
        self.settings = (settings or Recall()).check()
        self.routes = self.settings.routes or tuple(seeds.routes)
        self.settings.check_use(self.routes, reranker=cross_encoder is not None)
        check_built(self.routes, seeds.routes)
        needed = outputs_of(self.routes)
        self._encoder = seeds.query_encoder(encoder) if needed else encoder
        self.outputs = check_routes(self.routes, self._encoder)
        self.notes = seeds.filter_notes(self.settings.filter)
        for note in self.notes:
            logger.warning(note)
        self.id_key = self.settings.id_key_of(seeds.id_key)
        self._seeds = seeds
        self._cross_encoder = cross_encoder
        auto = self.settings.fused_by == "auto"
        self.fitted = (fitted or self._fit()) if auto else self.settings.fitted()
        if self.fitted is not None:
            self.fitted.check_routes(self.routes)

    def __repr__(self) -> str:
        reranked = "" if self._cross_encoder is None else f", reranked by {self._cross_encoder!r}"
        return f"Pipeline({'+'.join(self.routes)} over {self._seeds!r}, top_k={self.settings.top_k}{reranked})"

    def recall(self, queries: Iterable[Record], *, progress: Callable[[int], None] | None = None) -> list[Record]:
        """The best seeds of each query.

        Args:
            queries: Any iterable of records; ``metadata`` may be left out.
            progress: Called with the number of queries encoded, or where nothing is encoded with those done.

        Returns:
            The queries with ``topk_sim`` (descending), ``topk_seed``, ``topk_metadata``, and where more than one score
            took part ``topk_evidence``: each route's own score and rank. They share nothing with ``queries`` and the
            seeds. Of no queries an empty list.

        Raises:
            RecordError: Something that is no record, or holds what JSON cannot hold; says which and why.
            BankError: The bank is closed or empty.
        """
        queries = list(records.cleaned(queries, "query"))
        if not queries:
            return []
        asked = self.asked([query["text"] for query in queries], progress=progress)
        with self._seeds.view() as view:
            keep = self.settings.top_k if self._cross_encoder is None else self.settings.depth
            found = self.find(view, queries, asked, keep)
        ranking, seeds = found.ranking, found.seeds
        if self._cross_encoder is not None:
            texts = {row: seed["text"] for row, seed in seeds.items()}
            ranking = rerank_rows(
                ranking,
                asked.texts,
                texts,
                self._cross_encoder,
                k=self.settings.top_k,
                normalize=self.settings.normalize,
                blend=self.settings.blend,
            )
        return results_of(queries, ranking, seeds)

    def find(self, view: SeedView, queries: Sequence[Record], asked: Queries, k: int) -> Found:
        """The k best seeds of each query by all routes together, and their records, before any reranking.

        Args:
            view: One state of the seeds.
            queries: Clean records.
            asked: The same, as ``asked`` gives them.
            k: Results per query, at most the depth of the settings.

        Raises:
            BankError: The bank is closed or empty.
        """
        own = view.own_rows(queries, self.id_key) if self.settings.exclude_self else None
        ranking = self.rank(view, asked, k, own=own)
        rows = np.unique(ranking.rows[ranking.rows >= 0]).tolist()
        return Found(ranking, dict(zip(rows, view.records(rows), strict=True)))

    def view(self) -> AbstractContextManager[SeedView]:
        """The seeds as they are now, for the length of a ``with`` block."""
        return self._seeds.view()

    @property
    def label_key(self) -> str:
        """Metadata key of the seeds' labels."""
        return str(self.settings.label_key or self._seeds.label_key)

    def rank(self, view: SeedView, queries: Queries, k: int, *, own: Rows | None = None) -> Ranking:
        """The k best seeds of each query by all routes together, before any reranking.

        Args:
            view: One state of the seeds.
            queries: As ``asked`` gives them.
            k: Results per query, at most the depth of the settings.
            own: For each query the rows that it is itself, and that are left out; by default none.

        Raises:
            BankError: The bank is closed or empty.
        """
        found = self.search(view, queries, where=self.settings.filter, own=own)
        return self.settings.fuse(found, k, self.fitted)

    def provenance(self, view: SeedView) -> Provenance:
        """How results are made over one state of the seeds.

        Args:
            view: That state.

        Raises:
            UsageError: The fusion is a file that cannot be read.
        """
        return Provenance(
            routes=self.routes,
            top_k=self.settings.top_k,
            settings=settings_of(self.settings, self.routes),
            encoder=None if self._encoder is None or not self.outputs else self._encoder.fingerprint,
            reranker=None if self._cross_encoder is None else self._cross_encoder.fingerprint,
            label_key=self.label_key,
            seeds=view.name,
            sequence=view.sequence,
            count=len(self._seeds),
        )

    def _fit(self) -> LearnedFusion | None:
        """Weights for these seeds, by their labels; ``None`` for one route."""
        if len(self.routes) < 2:
            return None
        asked, settings = self.settings.fusion is not None, self.settings
        with self._seeds.view() as view:
            try:
                fit = fusion_of_seeds(
                    view,
                    self.routes,
                    lambda routes, queries, own: self.search(view, queries, routes=routes, own=own),
                    label_key=self.label_key,
                    id_key=self.id_key,
                    depends_on=(settings.depth, settings.hybrid_weights, settings.exact_multivector),
                )
            except RecordError as error:  # a label that is none, which only a fusion needs that was asked for
                if asked:
                    raise
                logger.info("fusion: the default weights (%s)", error)
                return None
        logger.info(fit.note)
        if asked or fit.fusion.accepted:  # what nobody asked for, and is as ever, is no news
            self.notes.append(fit.note)
        return fit.fusion

    def search(
        self,
        view: SeedView,
        queries: Queries,
        *,
        routes: Sequence[str] | None = None,
        where: Any = None,
        own: Rows | None = None,
    ) -> dict[str, Ranking]:
        """What each route finds by itself, to the depth of the settings.

        Args:
            view: One state of the seeds.
            queries: With the embeddings that ``outputs`` names.
            routes: Some of the pipeline's; by default all.
            where: A filter over the seeds' metadata; by default all seeds.
            own: For each query the rows that it is itself, and that are left out.

        Returns:
            By route ``(queries, k)`` rows and scores, best first.

        Raises:
            BankError: The bank is closed or empty.
        """
        routes = self.routes if routes is None else routes
        alone = len(self.routes) == 1 and self._cross_encoder is None
        depth = self.settings.top_k if alone else max(self.settings.depth, self.settings.top_k)
        late = "multivector" in routes and len(routes) > 1 and not self.settings.exact_multivector
        found = {
            route: view.search(
                route,
                queries,
                depth,
                where=where,
                own=own,
                weights=self.settings.hybrid_weights if route == "hybrid" else None,
            )
            for route in routes
            if not (late and route == "multivector")
        }
        if late:
            offered = np.concatenate([ranking.rows for ranking in found.values()], axis=1)
            found["multivector"] = view.rescore("multivector", queries, offered, depth)
        return {route: found[route] for route in routes}

    def asked(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Queries:
        """Texts as queries, in the forms that the routes search by; one pass of the encoder for all of them.

        Args:
            texts: The texts.
            progress: Called with the number of texts encoded, or where nothing is encoded with all of them.

        Raises:
            EmbeddingError: The encoder gives NaN or infinity.
        """
        if self.outputs:
            assert self._encoder is not None
            found = self._encoder.encode(texts, side="query", outputs=self.outputs, progress=progress)
            return Queries(texts, found)
        if progress is not None:
            progress(len(texts))
        return Queries(texts, Embeddings())
