"""Score and recall over files: each is the one file job of ``files.jobs`` around what is done in memory."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike
from ecom_rag.errors import UsageError
from ecom_rag.files import jobs, records
from ecom_rag.files.identity import known_id
from ecom_rag.files.jobs import Job, Process, Summary
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.files.values import shown
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.spec import AnyCrossEncoder, AnyEncoder, cross_encoder_of
from ecom_rag.pipeline.after import After
from ecom_rag.pipeline.places import Asked, OfBank, OfFile, Place
from ecom_rag.pipeline.provenance import Provenance, write_beside
from ecom_rag.pipeline.scoring import score_settings
from ecom_rag.pipeline.search import Pipeline
from ecom_rag.pipeline.settings import Recall, cut_of
from ecom_rag.retrieval import hybrid
from ecom_rag.retrieval.routes import outputs_of
from ecom_rag.seeds.source import check_routes
from ecom_rag.text.analysis import Analyzer


def score_file(
    queries: PathLike,
    output: PathLike,
    *,
    seeds: PathLike | None = None,
    bank: PathLike | None = None,
    model: AnyEncoder | None = None,
    mode: str = "dense",
    weights: Sequence[float] = hybrid.EQUAL,
    top_k: int = 10,
    filter: Any = None,
    exclude_self: bool = False,
    id_key: str | None = None,
    resume: bool = False,
    on_bad_line: str = "fail",
    progress: Progress | None = None,
) -> Summary:
    """Score a file of queries against a file of seeds or a bank: recall by one route of an encoder.

    Args:
        queries: Path (``str`` or ``Path``), or ``-`` for standard input.
        output: Path, or ``-`` for standard output; appears under its name only when complete.
        seeds: Path of the seed records; ``None`` where ``bank`` is given.
        bank: Folder of the bank; ``None`` where ``seeds`` is given.
        model: The encoder; a bank brings its own.
        mode: ``dense``, ``sparse``, ``multivector`` or ``hybrid``.
        weights: Weights of dense, sparse and multivector for the mode ``hybrid``.
        top_k: Results per query.
        filter: Condition on the seeds' metadata, as in ``Recall``.
        exclude_self: Leave a seed out of the results of the query that it is, as in ``Recall``.
        id_key: Metadata key of the ids of queries and seeds; by default the bank's, or ``id``.
        resume: Continue an interrupted run of the same settings.
        on_bad_line: What a bad input line does: ``fail``, or ``skip`` for a note of it beside the output.
        progress: Called with the stage, how much more is done, and the total where it is known.

    Returns:
        What was done.

    Raises:
        EcomRagError: Anything the user can mend; nothing half-written is left under ``output``.
    """
    settings = score_settings(mode, weights, top_k=top_k, filter=filter, exclude_self=exclude_self, id_key=id_key)
    asked = Asked("score", queries, output, settings, seeds, bank, model, None, Analyzer(), on_bad_line)
    if bank is None and model is None:
        raise UsageError("the seeds of a file are searched by an encoder; give `model`")
    return _search(asked, resume=resume, progress=progress)


def recall_file(
    queries: PathLike,
    output: PathLike,
    settings: Recall,
    *,
    seeds: PathLike | None = None,
    bank: PathLike | None = None,
    model: AnyEncoder | None = None,
    reranker: AnyCrossEncoder | None = None,
    analyzer: Analyzer | None = None,
    after: After | None = None,
    resume: bool = False,
    on_bad_line: str = "fail",
    progress: Progress | None = None,
) -> Summary:
    """Search a file of queries against a file of seeds or a bank.

    Args:
        queries: Path (``str`` or ``Path``), or ``-`` for standard input.
        output: Path, or ``-`` for standard output; appears under its name only when complete.
        settings: What to search and how.
        seeds: Path of the seed records; ``None`` where ``bank`` is given.
        bank: Folder of the bank; ``None`` where ``seeds`` is given.
        model: The encoder, loaded where a route needs it. A bank brings its own; a ``ModelSpec`` says where that lies
            now, where it was moved, and its runtime, precision, device and batch tokens.
        reranker: Re-sorts the fused candidates; by default they stay as they are.
        analyzer: How the texts of ``seeds`` become terms; a bank brings its own.
        after: What is done with the results before they are written, e.g. ``decision.files.Deciding``.
        resume: Continue an interrupted run of the same settings.
        on_bad_line: What a bad input line does: ``fail``, or ``skip`` for a note of it beside the output.
        progress: Called with the stage, how much more is done, and the total where it is known.

    Returns:
        What was done.

    Raises:
        EcomRagError: Anything the user can mend; nothing half-written is left under ``output``.
    """
    if not isinstance(settings, Recall):
        raise UsageError(f"`settings` is {shown(settings)}; expected Recall(...)")
    asked = Asked(
        "recall", queries, output, settings, seeds, bank, model, reranker, analyzer or Analyzer(), on_bad_line
    )
    return _search(asked, after=after, resume=resume, progress=progress)


def _search(asked: Asked, *, after: After | None = None, resume: bool, progress: Progress | None) -> Summary:
    started = time.monotonic()
    place: Place = (OfFile if asked.bank is None else OfBank)(asked)
    settings = replace(asked.settings, routes=place.routes).check()
    settings.check_use(place.routes, reranker=asked.reranker is not None)
    encoder = place.encoder() if outputs_of(place.routes) else None
    check_routes(place.routes, encoder)
    id_key = settings.id_key_of(place.id_key)
    cross_encoder = None if asked.reranker is None else cross_encoder_of(asked.reranker)
    notes: list[str] = []
    made: list[Provenance] = []

    def start(cache: Path | None) -> Process:
        source = place.source(encoder, cache, progress)
        pipeline = Pipeline(source, settings, encoder=encoder, cross_encoder=cross_encoder)
        notes.extend(pipeline.notes)
        step = stage(progress, f"{asked.command.rstrip('e')}ing", jobs.line_count(str(asked.queries)))
        with pipeline.view() as view:
            made.append(pipeline.provenance(view))
        if after is not None:
            after.begin(made[0], cache)
        return lambda block: _recalled(pipeline.recall(block, progress=step), id_key, after)

    job = Job(
        str(asked.output),
        _decisive(asked, settings, place.state, encoder, cross_encoder) | dict(after.settings if after else {}),
        read=lambda report: records.read(asked.queries, on_bad_line=asked.on_bad_line, report=report),
        start=start,
        cut=cut_of(settings, reranked=cross_encoder is not None),
        accept=lambda summary: summary.notes.extend(_ended(asked, after, made)),
        earlier=place.report,
        replay=(lambda written: None) if after is None else after.replay,
    )
    with contextlib.nullcontext() if after is None else contextlib.closing(after):
        summary = jobs.run(job, started=started, resume=resume)
    summary.seeds = place.count
    summary.notes = [*notes, *_found_notes(summary, notes), *summary.notes, *place.notes(), *_own_notes(summary)]
    return summary


def _decisive(
    asked: Asked, settings: Recall, seeds: Any, encoder: Encoder | None, cross_encoder: CrossEncoder | None
) -> dict[str, Any]:
    """Everything that decides the bytes of a search's results."""
    fitted = settings.fitted()
    return {
        "command": asked.command,
        "ecom_rag": __version__,
        "queries": asked.queries,
        "seeds": seeds,
        **asdict(settings),
        "fusion": settings.fusion if fitted is None else asdict(fitted),
        "model": encoder and [encoder.fingerprint, encoder.settings],
        "rerank": cross_encoder and [cross_encoder.fingerprint, cross_encoder.settings],
        "analyzer": asked.analyzer.fingerprint(),
        "on_bad_line": asked.on_bad_line,
    }


def _ended(asked: Asked, after: After | None, made: list[Provenance]) -> Iterator[str]:
    """What is done when all is written, and its notes."""
    if after is not None:
        yield from after.end()
    if made and asked.command == "recall" and not jobs.is_stream(str(asked.output)):
        yield from write_beside(str(asked.output), made[0])


def _recalled(results: list[Record], id_key: str, after: After | None) -> tuple[list[Record], Mapping[str, int]]:
    """A block as it is written, and what was counted in it."""
    results, counts = _counted(results, id_key)
    if after is None:
        return results, counts
    results, more = after.block(results)
    return results, counts + Counter(more)


def _counted(results: list[Record], id_key: str) -> tuple[list[Record], Counter[str]]:
    """Results, and how many have a seed, a seed of their own id, and of these one whose text is another."""
    counts: Counter[str] = Counter()
    for result in results:
        counts["found"] += bool(result["topk_seed"])
        name = known_id(result["metadata"], id_key)
        found = zip(result["topk_seed"], result["topk_metadata"], strict=True)
        texts = [text for text, metadata in found if name is not None and known_id(metadata, id_key) == name]
        counts["own"] += bool(texts)
        counts["own, other text"] += bool(texts) and result["text"] not in texts
    return results, counts


def _found_notes(summary: Summary, notes: list[str]) -> Iterator[str]:
    """A note where nothing was found and no other note says why."""
    if summary.records and not summary.counts["found"] and not notes:
        yield f"none of {summary.records} records found a seed; look at the texts and the routes"


def _own_notes(summary: Summary) -> Iterator[str]:
    """A note where queries stand among their own results."""
    own, other = summary.counts["own"], summary.counts["own, other text"]
    if own:
        note = f"{own} of {summary.records} queries have themselves (a seed of their own id) among their results"
        if other:
            note += f", {other} of them with another text: are the ids of queries and seeds one numbering?"
        yield f"{note}; `exclude_self` leaves them out"
