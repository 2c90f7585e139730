"""Score and recall over files: each is the one file job of ``files.jobs`` around what is done in memory."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ecom_rag.arguments import PathLike
from ecom_rag.errors import UsageError
from ecom_rag.files import jobs, records
from ecom_rag.files.jobs import Done, Job, Process, Summary, Workers
from ecom_rag.files.progress import Progress, stage
from ecom_rag.models.spec import AnyCrossEncoder, AnyEncoder
from ecom_rag.pipeline.after import After
from ecom_rag.pipeline.file_search import Search, check_sendable
from ecom_rag.pipeline.places import Asked
from ecom_rag.pipeline.provenance import Provenance, write_beside
from ecom_rag.pipeline.scoring import score_settings
from ecom_rag.pipeline.settings import Recall, cut_of
from ecom_rag.retrieval import hybrid
from ecom_rag.text.analysis import Analyzer
from ecom_rag.values import shown


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
    workers: Workers | None = None,
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
        workers: Processes that search, over a bank and with models named by folder or hub id; by default this one.
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
    return _search(asked, workers=workers, resume=resume, progress=progress)


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
    workers: Workers | None = None,
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
        workers: Processes that search, over a bank and with models named by folder or hub id; by default this one.
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
    return _search(asked, after=after, workers=workers, resume=resume, progress=progress)


def _search(
    asked: Asked, *, after: After | None = None, workers: Workers | None, resume: bool, progress: Progress | None
) -> Summary:
    started = time.monotonic()
    if workers is not None:
        check_sendable(asked)
    search = Search(asked)
    place, step = search.place, stage(progress, f"{asked.command.rstrip('e')}ing", jobs.line_count(str(asked.queries)))
    notes: list[str] = []
    made: list[Provenance] = []
    finish = None if after is None else partial(_finished, after=after)

    def start(cache: Path | None) -> Process:
        if workers is not None:
            search.hold(workers)
        pipeline = search.pipeline(cache, progress)
        notes.extend(pipeline.notes)
        with pipeline.view() as view:
            made.append(pipeline.provenance(view))
        if after is not None:
            after.begin(made[0], cache)
        process = search.process(pipeline, progress=step)
        return process if finish is None else lambda block: finish(process(block))

    job = Job(
        str(asked.output),
        search.decisive() | dict(after.settings if after else {}),
        read=lambda report: records.read(asked.queries, on_bad_line=asked.on_bad_line, report=report),
        start=start,
        each=jobs.here
        if workers is None
        else jobs.elsewhere(workers, search.work, lambda block: step(len(block)), finish),
        cut=cut_of(search.settings, reranked=asked.reranker is not None),
        accept=lambda summary: summary.notes.extend(_ended(asked, after, made)),
        earlier=place.report,
        replay=(lambda written: None) if after is None else after.replay,
    )
    with contextlib.nullcontext() if after is None else contextlib.closing(after):
        summary = jobs.run(job, started=started, resume=resume)
    summary.seeds = place.count
    summary.notes = [*notes, *_found_notes(summary, notes), *summary.notes, *place.notes(), *_own_notes(summary)]
    return summary


def _ended(asked: Asked, after: After | None, made: list[Provenance]) -> Iterator[str]:
    """What is done when all is written, and its notes."""
    if after is not None:
        yield from after.end()
    if made and asked.command == "recall" and not jobs.is_stream(str(asked.output)):
        yield from write_beside(str(asked.output), made[0])


def _finished(done: Done, after: After) -> Done:
    """A block as it is written, and what was counted in it."""
    results, counts = done
    results, more = after.block(results)
    return results, Counter(counts) + Counter(more)


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
