"""Reranking a file of results."""

import time
from collections.abc import Callable

import ecom_rag
from ecom_rag import arguments, jobs, records
from ecom_rag.arguments import PathLike, path_of
from ecom_rag.models import CrossEncoder
from ecom_rag.pipeline.files import Progress, Summary, check_files, run_blocks, stage, summary_of
from ecom_rag.records import ReadReport, Record
from ecom_rag.retrieval.rerank import check_options, check_result, rerank

RERANK_PAIRS = 2048  # pairs a block


def rerank_file(
    results: PathLike,
    output: PathLike,
    load_cross_encoder: Callable[[], CrossEncoder],
    *,
    top_k: int | None = None,
    normalize: bool = False,
    blend: float = 1.0,
    resume: bool = False,
    on_bad_line: str = "fail",
    progress: Progress | None = None,
) -> Summary:
    """Rerank a file of results; see ``retrieval.rerank.rerank`` for what moves where.

    Args:
        results: Path (``str`` or ``Path``), or ``-`` for standard input, of records with ``topk_sim``, ``topk_seed``,
            ``topk_metadata``.
        output: Path, or ``-`` for standard output; appears under its name only when complete.
        load_cross_encoder: Called once the cheap checks are passed.
        top_k: Keep this many a record; by default all.
        normalize: Sigmoid of the logit.
        blend: Share of the relevance in the order; see ``rerank``.
        resume: Continue an interrupted run.
        on_bad_line: ``fail`` or ``skip``.
        progress: See ``Progress``; counts pairs.

    Returns:
        What was done.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    started = time.monotonic()
    results, output = path_of(results, "results"), path_of(output, "output")
    arguments.function(load_cross_encoder, "load_cross_encoder", "a CrossEncoder")
    check_options(top_k=top_k, normalize=normalize, blend=blend)
    check_files(results, None, output, on_bad_line=on_bad_line, top_k=top_k)
    report = ReadReport()
    cross_encoder = load_cross_encoder()
    settings = {
        "command": "rerank",
        "ecom_rag": ecom_rag.__version__,
        "results": results,
        "model": cross_encoder.fingerprint,
        "cross_encoder": cross_encoder.settings,
        "top_k": top_k,
        "normalize": normalize,
        "blend": blend,
        "on_bad_line": on_bad_line,
    }
    with jobs.ResumableOutput(output, settings=settings, resume=resume) as sink:
        if not sink.already_complete:
            step = stage(progress, "reranking", None)

            def work(block: list[Record]) -> list[Record]:
                return rerank(block, cross_encoder, top_k=top_k, normalize=normalize, blend=blend, progress=step)

            stream = records.read(results, on_bad_line=on_bad_line, check=check_result, report=report)
            run_blocks(sink, stream, report, work, max_size=RERANK_PAIRS, size=lambda record: len(record["topk_seed"]))
        sink.finish()
    return summary_of(sink, report, ReadReport(), started)
