"""Scoring records against a seed bank by one model's output."""

import time
from collections.abc import Callable, Iterable, Sequence

from ecom_rag import arguments
from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, path_of, whole
from ecom_rag.errors import UsageError
from ecom_rag.files import jobs, records
from ecom_rag.files.keys import parse_key
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import ReadReport, Record
from ecom_rag.files.results import evidence_lists, result_of
from ecom_rag.models import Embeddings, Encoder
from ecom_rag.models.embeddings import OUTPUTS
from ecom_rag.pipeline.files import (
    BLOCK_CHARS,
    OwnIds,
    Summary,
    bank_notes,
    check_files,
    count,
    digest,
    encode_seeds,
    read_seeds,
    run_blocks,
    summary_of,
)
from ecom_rag.retrieval import routes
from ecom_rag.retrieval.hybrid import weights_of
from ecom_rag.retrieval.itself import OwnRows

MODES = (*OUTPUTS, "hybrid")


class Scorer:
    """An encoder and a seed bank in memory, ready to score.

    Args:
        encoder: The embedding model.
        seeds: Any iterable of seed records; ``metadata`` may be left out.
        mode: ``dense``, ``sparse``, ``multivector`` or ``hybrid``.
        weights: Of dense, sparse, multivector, for ``hybrid``.
        embeddings: The seeds' embeddings where they are known already.

    Raises:
        UsageError: No seeds, an unknown mode, or weights that make no sense.
        RecordError: Something that is no record.
        ModelError: The checkpoint cannot give what the mode needs.
    """

    def __init__(
        self,
        encoder: Encoder,
        seeds: Iterable[Record],
        *,
        mode: str = "dense",
        weights: Sequence[float] = (1.0, 1.0, 1.0),
        embeddings: Embeddings | None = None,
    ) -> None:
        arguments.model(encoder, "encoder", "check_outputs", "Encoder")
        self.outputs = outputs_of(mode)
        weights_of(weights)
        encoder.check_outputs(self.outputs)
        seeds = list(records.cleaned(seeds, "seed"))
        if not seeds:
            raise UsageError("there are no seeds to score against; give at least one")
        self.encoder = encoder
        self.seeds = seeds
        self.mode = mode
        if embeddings is None:
            embeddings = encoder.encode([seed["text"] for seed in seeds], outputs=self.outputs)
        self._own: tuple[str, OwnRows] | None = None
        self._weights = weights
        needed = routes.indexes_of([mode])
        self._indexes = {name: routes.ROUTES[name].index(getattr(embeddings, name)) for name in needed}

    def __repr__(self) -> str:
        return f"Scorer({len(self.seeds)} seeds, mode={self.mode}, {self.encoder!r})"

    def score(
        self,
        queries: Iterable[Record],
        *,
        top_k: int = 10,
        exclude_self: bool = False,
        id_key: str = "id",
        progress: Callable[[int], None] | None = None,
    ) -> list[Record]:
        """The most similar seeds of each query.

        Args:
            queries: Any iterable of records; ``metadata`` may be left out.
            top_k: Seeds per query, at least 1; there are no more than all seeds.
            exclude_self: Leave a seed out of the results of the query that it is, see ``Recall``.
            id_key: Metadata key of the ids of queries and seeds.
            progress: Called with the number of queries encoded.

        Returns:
            The queries with ``topk_sim`` (descending), ``topk_seed`` and ``topk_metadata``, and under ``hybrid`` also
            ``topk_evidence`` with each output's own score and rank. Of no queries an empty list.

        Raises:
            UsageError: ``top_k`` is no whole number of at least 1.
            RecordError: Something that is no record; says which and why.
        """
        top_k = whole(top_k, "top_k")
        queries = list(records.cleaned(queries, "query"))
        if not queries:
            return []
        texts = [query["text"] for query in queries]
        embeddings = self.encoder.encode(texts, side="query", outputs=self.outputs, progress=progress)
        own = self._own_rows(id_key).of(queries) if exclude_self else None
        asked = routes.Queries(texts, embeddings)
        found = routes.search(self._indexes, self.mode, asked, top_k, own=own, weights=self._weights)
        evidence = evidence_lists(found) if found.evidence else [None] * len(queries)
        return [
            result_of(query, scores, [self.seeds[row] for row in rows if row >= 0], shown)
            for query, rows, scores, shown in zip(queries, found.rows.tolist(), found.scores, evidence, strict=True)
        ]

    def _own_rows(self, id_key: str) -> OwnRows:
        if self._own is None or self._own[0] != id_key:
            self._own = id_key, OwnRows(self.seeds, id_key)
        return self._own[1]


def score(
    queries: Iterable[Record],
    seeds: Iterable[Record],
    encoder: Encoder,
    *,
    mode: str = "dense",
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    top_k: int = 10,
    exclude_self: bool = False,
    id_key: str = "id",
) -> list[Record]:
    """Score records in memory; see ``Scorer`` for several calls against the same seeds.

    Args:
        queries: Any iterable of records ``{"text": str, "metadata": dict}``; ``metadata`` may be left out.
        seeds: The records that are searched, at least one.
        encoder: The embedding model.
        mode: ``dense``, ``sparse``, ``multivector`` or ``hybrid``.
        weights: Three numbers of at least 0, of dense, sparse and multivector, for ``hybrid``.
        top_k: Seeds per query, at least 1.
        exclude_self: Leave a seed out of the results of the query that it is, see ``Recall``.
        id_key: Metadata key of the ids of queries and seeds.

    Returns:
        The queries in order, each with ``topk_sim`` (descending; cosine in -1..1 for ``dense``, higher is more
        similar), ``topk_seed`` and ``topk_metadata``, and under ``hybrid`` also ``topk_evidence``. They share nothing
        with ``queries`` and ``seeds``. Of no queries an empty list.

    Raises:
        UsageError: No seeds, or an argument of the wrong kind.
        RecordError: Something that is no record, or holds what JSON cannot hold; says which and why.
        ModelError: The checkpoint cannot give what the mode needs.
    """
    return Scorer(encoder, seeds, mode=mode, weights=weights).score(
        queries, top_k=top_k, exclude_self=exclude_self, id_key=id_key
    )


def outputs_of(mode: str) -> tuple[str, ...]:
    """The encoder outputs a mode needs.

    Raises:
        UsageError: Unknown mode.
    """
    arguments.one_of(mode, "mode", MODES)
    return routes.outputs_of([mode])


def score_file(
    queries: PathLike,
    seeds: PathLike,
    output: PathLike,
    load_encoder: Callable[[], Encoder],
    *,
    mode: str = "dense",
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    top_k: int = 10,
    exclude_self: bool = False,
    id_key: str = "id",
    resume: bool = False,
    on_bad_line: str = "fail",
    progress: Progress | None = None,
) -> Summary:
    """Score a file of queries against a file of seeds.

    Args:
        queries: Path (``str`` or ``Path``), or ``-`` for standard input.
        seeds: Path.
        output: Path, or ``-`` for standard output; appears under its name only when complete.
        load_encoder: Called once the cheap checks are passed.
        mode: ``dense``, ``sparse``, ``multivector`` or ``hybrid``.
        weights: Of dense, sparse, multivector, for ``hybrid``.
        top_k: Seeds per query.
        exclude_self: Leave a seed out of the results of the query that it is, see ``Recall``.
        id_key: Metadata key of the ids of queries and seeds.
        resume: Continue an interrupted run.
        on_bad_line: ``fail`` or ``skip``.
        progress: See ``Progress``.

    Returns:
        What was done.

    Raises:
        EcomRagError: Anything the user can mend; nothing half-written is left under ``output``.
    """
    started = time.monotonic()
    queries, seeds, output = path_of(queries, "queries"), path_of(seeds, "seeds"), path_of(output, "output")
    arguments.function(load_encoder, "load_encoder", "an Encoder")
    outputs = outputs_of(mode)
    weights_of(weights)
    parse_key(id_key, what="id_key")
    seen = OwnIds(id_key)
    check_files(queries, seeds, output, on_bad_line=on_bad_line, top_k=top_k)
    report, seed_report = ReadReport(), ReadReport()
    bank = read_seeds(seeds, on_bad_line=on_bad_line, report=seed_report)
    encoder = load_encoder()
    encoder.check_outputs(outputs)
    settings = {
        "command": "score",
        "ecom_rag": __version__,
        "queries": queries,
        "seeds": digest(bank),
        "model": encoder.fingerprint,
        "encoder": encoder.settings,
        "mode": mode,
        "weights": list(weights),
        "top_k": top_k,
        "exclude_self": [id_key] if exclude_self else [],
        "on_bad_line": on_bad_line,
    }
    with jobs.ResumableOutput(output, settings=settings, resume=resume) as sink:
        if not sink.already_complete:
            sink.write_rejections(seed_report.rejections)
            embeddings = encode_seeds(encoder, bank, outputs, sink.cache, progress)
            scorer = Scorer(encoder, bank, mode=mode, weights=weights, embeddings=embeddings)

            step = stage(progress, "scoring", count(queries))

            def work(block: list[Record]) -> list[Record]:
                results = scorer.score(block, top_k=top_k, exclude_self=exclude_self, id_key=id_key, progress=step)
                seen.look(results)
                return results

            stream = records.read(queries, on_bad_line=on_bad_line, report=report)
            run_blocks(sink, stream, report, work, max_size=BLOCK_CHARS, size=lambda record: len(record["text"]))
        sink.finish()
    summary = summary_of(sink, report, seed_report, started)
    summary.seeds = len(bank)
    summary.notes += bank_notes(bank, top_k) + seen.notes()
    return summary
