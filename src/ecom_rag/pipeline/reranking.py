"""Re-sorting candidates by a cross-encoder's relevance, in memory and in files; all of a candidate moves along."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag import arguments
from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, flag, number, path_of, whole_or_none
from ecom_rag.errors import RecordError
from ecom_rag.files import jobs, records
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import ReadReport, Record
from ecom_rag.files.results import check_result, check_scores
from ecom_rag.files.values import copied
from ecom_rag.models import CrossEncoder
from ecom_rag.pipeline.files import Summary, check_files, run_blocks, summary_of
from ecom_rag.retrieval.fusion import route_scores
from ecom_rag.retrieval.ranking import Evidence

RERANK_PAIRS = 2048  # pairs a block
_EARLIER = "retrieval"  # evidence entry of the scores that the candidates came with
_RERANKER = "reranker"  # entry of the relevance, where it is not the score itself


def rerank(
    results: Iterable[Record],
    cross_encoder: CrossEncoder,
    *,
    top_k: int | None = None,
    normalize: bool = False,
    blend: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> list[Record]:
    """Re-sort the candidates of each result by the relevance of its text and each seed.

    ``topk_sim``, ``topk_seed``, ``topk_metadata`` and ``topk_evidence`` move together; ``topk_sim`` becomes the new
    relevance and the score and rank before it are kept in the evidence as ``retrieval`` (``retrieval_2`` for a second
    reranking, and so on). Equal relevance keeps the order before.

    Args:
        results: Any iterable of records as ``score`` and ``recall`` give them; left as they are.
        cross_encoder: The reranker.
        top_k: Keep this many per query after re-sorting, at least 1; by default all.
        normalize: Sigmoid of the logit, 0..1; higher is more relevant either way.
        blend: Below 1 the candidates are ordered by ``blend`` times the relevance and ``1 - blend`` times the score
            they came with, each in standard deviations above the lowest of the result; that is then ``topk_sim``,
            and the relevance and its rank are in the evidence as ``reranker``. A reranker that was trained on little
            data does not know all that the routes know; half and half can be better than either (docs/training.md).
        progress: Called with the number of pairs done.

    Returns:
        New records in the order of ``results``, which share nothing with them. Of no results an empty list.

    Raises:
        UsageError: An argument of the wrong kind.
        RecordError: Something that is no result of ``score`` or ``recall``; says which and why.
        EmbeddingError: The reranker gave NaN or infinity.
    """
    arguments.model(cross_encoder, "cross_encoder", "score", "CrossEncoder")
    top_k = check_options(top_k=top_k, normalize=normalize, blend=blend)
    results = [copied(result) for result in _checked(results)]
    pairs = [(result["text"], seed) for result in results for seed in result["topk_seed"]]
    relevance = cross_encoder.score(pairs, normalize=normalize, progress=progress)
    ends = np.cumsum([len(result["topk_seed"]) for result in results], dtype=np.int64)
    return [
        _resorted(result, relevance[end - len(result["topk_seed"]) : end], top_k, blend)
        for result, end in zip(results, ends, strict=True)
    ]


def check_options(*, top_k: int | None, normalize: bool, blend: float) -> int | None:
    """``top_k`` as a plain number, if the options of ``rerank`` make sense.

    Raises:
        UsageError: They do not.
    """
    flag(normalize, "normalize")
    number(blend, "blend", low=0, high=1, expected="0 to 1, the reranker's share")
    return whole_or_none(top_k, "top_k")


def _checked(results: Iterable[Record]) -> Iterator[Record]:
    for place, result in enumerate(records.cleaned(results, "result")):
        try:
            check_result(result)
        except ValueError as error:
            raise RecordError(f"result {place}", str(error)) from None
        yield result


def _resorted(
    result: dict[str, Any], relevance: NDArray[np.float32], top_k: int | None, blend: float
) -> dict[str, Any]:
    evidence = result.get("topk_evidence") or [{} for _ in result["topk_sim"]]
    taken = {key for item in evidence for key in item}
    name = _free(_EARLIER, taken)
    scores: NDArray[Any] = relevance
    if blend < 1:
        earlier = np.array(result["topk_sim"], np.float64)
        scores = blend * _standardised(relevance) + (1 - blend) * _standardised(earlier)
        ranks = np.empty(len(relevance), np.int64)
        ranks[np.argsort(-relevance, kind="stable")] = np.arange(1, len(relevance) + 1)
        own = _free(_RERANKER, taken)
        evidence = [
            {**item, own: {"score": round(float(score), 6), "rank": int(rank)}}
            for item, score, rank in zip(evidence, relevance, ranks, strict=True)
        ]
    check_scores(scores, result)
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return {
        **result,
        "topk_sim": [round(float(scores[i]), 6) for i in order],
        "topk_seed": [result["topk_seed"][i] for i in order],
        "topk_metadata": [result["topk_metadata"][i] for i in order],
        "topk_evidence": [{**evidence[i], name: {"score": result["topk_sim"][i], "rank": i + 1}} for i in order],
    }


def _standardised(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Standard deviations above the lowest, as fusion's ``zscore``."""
    given = np.asarray(scores, np.float32)[None, :]
    standardised: NDArray[np.float64] = route_scores(Evidence(given, np.ones(given.shape, np.int64)), method="zscore")[
        0
    ]
    return standardised


def _free(name: str, taken: set[str]) -> str:
    """The name, or the first of ``name_2``, ``name_3``, ... that is not taken."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


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
    """Rerank a file of results; see ``rerank`` for what moves where.

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
        "ecom_rag": __version__,
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
