"""Rerank over files: the one file job of ``files.jobs`` around ``rerank``."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, path_of, path_or_none
from ecom_rag.errors import DistributionError, UsageError
from ecom_rag.files import jobs, records
from ecom_rag.files.jobs import Block, Cut, Job, Process, Summary, Workers
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.files.results import check_result
from ecom_rag.models import CrossEncoder
from ecom_rag.models.known_scores import KnownScores
from ecom_rag.models.spec import (
    AnyCrossEncoder,
    ModelSpec,
    check_cross_encoder,
    check_named,
    cross_encoder_of,
    gpus_of,
    settled,
)
from ecom_rag.pipeline.reranking import check_open, check_options, is_open, rerank

_PAIRS = 2048  # pairs of a block that is reranked


def rerank_file(
    results: PathLike,
    output: PathLike,
    reranker: AnyCrossEncoder,
    *,
    top_k: int | None = None,
    normalize: bool = False,
    blend: float = 1.0,
    when: str = "always",
    reuse: PathLike | None = None,
    workers: Workers | None = None,
    resume: bool = False,
    on_bad_line: str = "fail",
    progress: Progress | None = None,
) -> Summary:
    """Rerank a file of results; see ``rerank`` for what moves where.

    Args:
        results: Path (``str`` or ``Path``), or ``-`` for standard input, of records with ``topk_sim``, ``topk_seed``,
            ``topk_metadata``.
        output: Path, or ``-`` for standard output; appears under its name only when complete.
        reranker: The cross-encoder, loaded once the cheap checks are passed.
        top_k: Results to keep per query; by default all.
        normalize: Give the sigmoid of the logit, 0..1.
        blend: Share of the relevance in the order, 0..1; ``rerank`` says how.
        when: ``always``, or ``open`` for the results alone of which a person must look, by their ``decision``.
        reuse: File of scores that earlier runs kept, see ``KnownScores``; made where there is none. By default none.
        workers: Processes that rerank, with a model named by folder or hub id; by default this one.
        resume: Continue an interrupted run of the same settings.
        on_bad_line: What a bad input line does: ``fail``, or ``skip`` for a note of it beside the output.
        progress: Called with the stage, how many more pairs are done, and the total where it is known.

    Returns:
        What was done; ``counts`` has the records ``open`` to the reranker and, with ``reuse``, the pairs that were
        ``known`` and ``computed``.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    started = time.monotonic()
    results, output = path_of(results, "results"), path_of(output, "output")
    check_options(top_k=top_k, normalize=normalize, blend=blend, when=when)
    check_cross_encoder(reranker)
    jobs.check_files(results, None, output, on_bad_line=on_bad_line, top_k=top_k)
    reuse = _apart(reuse, results, output)
    if workers is not None:
        _check_sendable(reranker, reuse)
    cross_encoder = cross_encoder_of(reranker)
    options: dict[str, Any] = {"top_k": top_k, "normalize": normalize, "blend": blend, "when": when}
    check, step = (check_open if when == "open" else check_result), stage(progress, "reranking", None)
    job = Job(
        output,
        {"command": "rerank", "ecom_rag": __version__, "results": results, "reuse": reuse, "on_bad_line": on_bad_line}
        | {"model": _decisive(cross_encoder), **options},
        read=lambda report: records.read(results, on_bad_line=on_bad_line, check=check, report=report),
        start=lambda cache: partial(_reranked, cross_encoder=known or cross_encoder, options=options, progress=step),
        each=jobs.here
        if workers is None
        else jobs.elsewhere(
            workers, partial(_Work.of, reranker, cross_encoder, options), lambda block: step(_pairs(block))
        ),
        cut=Cut(max_size=_PAIRS, size=lambda record: len(record["topk_seed"])),
    )
    known = None if reuse is None else KnownScores(reuse, cross_encoder)
    with contextlib.nullcontext() if known is None else known:
        return jobs.run(job, started=started, resume=resume)


@dataclass(frozen=True)
class _Work:
    """A reranking that another process makes ready; see ``jobs.Work``."""

    reranker: ModelSpec
    options: Mapping[str, Any]
    expected: list[Any]
    gpus: int

    @classmethod
    def of(cls, reranker: AnyCrossEncoder, loaded: CrossEncoder, options: Mapping[str, Any]) -> "_Work":
        """The reranking that this process would do."""
        return cls(settled(reranker, loaded), options, _decisive(loaded), gpus_of(loaded))

    def start(self) -> Process:
        """See ``jobs.Work.start``; raises ``DistributionError`` where the model is another one here."""
        cross_encoder = self.reranker.cross_encoder()
        if (found := _decisive(cross_encoder)) != self.expected:
            raise DistributionError(f"the reranker is {found} instead of {self.expected}")
        return partial(_reranked, cross_encoder=cross_encoder, options=self.options, progress=lambda done: None)


def _decisive(cross_encoder: CrossEncoder) -> list[Any]:
    return [cross_encoder.fingerprint, cross_encoder.settings]


def _check_sendable(reranker: AnyCrossEncoder, reuse: str | None) -> None:
    check_named(reranker, "reranker")
    if reuse is not None:
        raise UsageError("workers on other machines do not share a file of known scores; leave out `reuse`")


def _pairs(block: Block) -> int:
    return sum(len(one["topk_seed"]) for one in block)


def _apart(reuse: PathLike | None, *others: str) -> str | None:
    """The file of known scores; raises ``UsageError`` where it is another file of the run."""
    path = path_or_none(reuse, "reuse")
    if path is not None and os.path.realpath(path) in map(os.path.realpath, others):
        raise UsageError(f"{path}: is also the input or the output of this run; give `reuse` a file of its own")
    return path


def _reranked(
    block: list[Record],
    *,
    cross_encoder: CrossEncoder | KnownScores,
    options: Mapping[str, Any],
    progress: Callable[[int], None],
) -> tuple[list[Record], Mapping[str, int]]:
    """A block as it is written, and how much of it the reranker had to read."""
    counts = Counter(open=sum(options["when"] == "always" or is_open(one) for one in block))
    before = _known_counts(cross_encoder)
    found = rerank(block, cross_encoder, **options, progress=progress)
    return found, counts + (_known_counts(cross_encoder) - before)


def _known_counts(cross_encoder: CrossEncoder | KnownScores) -> Counter[str]:
    if not isinstance(cross_encoder, KnownScores):
        return Counter()
    return Counter(known=cross_encoder.found, computed=cross_encoder.computed)
