"""Teacher scores: what a reranker or an embedder says of each query and its documents, for distillation."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ecom_rag
from ecom_rag import jobs
from ecom_rag.errors import UsageError
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.embeddings import OUTPUTS
from ecom_rag.records import Record
from ecom_rag.retrieval import pair_scores
from ecom_rag.training.triples import read_triples

_BLOCK_RECORDS = 4096
_BLOCK_PAIRS = 2048

Progress = Callable[[str, int, int | None], None]
"""Called with a stage name, how much more is done, and the total where it is known."""


@dataclass
class TeachSummary:
    """What a run did.

    Args:
        records: Queries in the output.
        resumed: Queries that an interrupted run had already done.
        seconds: Of the whole call.
        pairs: Scored by this call.
        notes: Things worth a user's eye, one line each.
    """

    records: int = 0
    resumed: int = 0
    seconds: float = 0.0
    pairs: int = 0
    notes: list[str] = field(default_factory=list)


def teach_file(
    path: str,
    output: str,
    load_teacher: Callable[[], CrossEncoder | Encoder],
    *,
    mode: str = "auto",
    normalize: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> TeachSummary:
    """Fill ``pos_scores`` and ``neg_scores`` of FlagEmbedding's JSON lines; all other keys stay.

    Args:
        path: ``.jsonl`` or ``.jsonl.gz`` of ``query``, ``pos``, ``neg``; scores in it are replaced.
        output: ``.jsonl`` or ``.jsonl.gz``; appears under its name only when complete.
        load_teacher: Called once the whole file has been checked.
        mode: Of an embedder: ``dense``, ``sparse``, ``multivector`` or ``hybrid``; ``auto`` is hybrid for a bge-m3.
        normalize: Of a reranker: relevance in 0 to 1 instead of logits. FlagEmbedding's trainers expect logits.
        resume: Continue an interrupted run.
        progress: See ``Progress``; counts pairs.

    Returns:
        What was done.

    Raises:
        RecordError: A line that does not fit, before anything is scored.
        EcomRagError: Anything else the user can mend.
    """
    started = time.monotonic()
    for name in (path, output):
        if not name.endswith((".jsonl", ".jsonl.gz")):
            raise UsageError(f"{name}: unknown file type; expected .jsonl or .jsonl.gz")
    if mode not in ("auto", "hybrid", *OUTPUTS):
        raise UsageError(f"mode {mode!r} is unknown; expected auto, hybrid or one of {', '.join(OUTPUTS)}")
    jobs.check_output(output)
    jobs.check_not_read(output, [path])
    total = sum(_pairs(item) for item in read_triples(path))
    teacher = load_teacher()
    settings = {
        "command": "teach",
        "ecom_rag": ecom_rag.__version__,
        "path": path,
        "teacher": [type(teacher).__name__, teacher.fingerprint, teacher.settings],
        "mode": mode,
        "normalize": normalize,
    }
    summary = TeachSummary()
    with jobs.ResumableOutput(output, settings=settings, resume=resume) as sink:
        if not sink.already_complete:
            stream = read_triples(path)
            sink.skip_done(stream)
            for block in jobs.blocks_of(stream, max_records=_BLOCK_RECORDS, max_size=_BLOCK_PAIRS, size=_pairs):
                sink.write_block(block, teach(block, teacher, mode=mode, normalize=normalize), [])
                done = sum(map(_pairs, block))
                summary.pairs += done
                if progress is not None:
                    progress("scoring pairs", done, total)
        summary.records, summary.resumed = sink.records, sink.resumed_records
        sink.finish()
    summary.notes += sink.notes
    if summary.records == 0:
        summary.notes.append("the input held no queries: the output is empty")
    summary.seconds = time.monotonic() - started
    return summary


def teach(
    items: list[Record], teacher: CrossEncoder | Encoder, *, mode: str = "auto", normalize: bool = False
) -> list[Record]:
    """Score queries and documents in memory; see ``teach_file``.

    Returns:
        New objects with ``pos_scores`` and ``neg_scores``, higher is more relevant; texts are scored once a pair.
    """
    pairs = [(item["query"], text) for item in items for text in (*item["pos"], *item["neg"])]
    if isinstance(teacher, CrossEncoder):
        scores = teacher.score(pairs, normalize=normalize)
    else:
        scores = _embedder_scores(pairs, teacher, mode)
    taught, start = [], 0
    for item in items:
        middle, end = start + len(item["pos"]), start + _pairs(item)
        rounded = [round(score, 6) for score in scores[start:end].tolist()]
        own = {"pos_scores": rounded[: middle - start], "neg_scores": rounded[middle - start :]}
        taught.append({**item, **own})
        start = end
    return taught


def _embedder_scores(pairs: list[tuple[str, str]], teacher: Encoder, mode: str) -> NDArray[np.float32]:
    """Scores of pairs by an embedder; each distinct text is encoded once."""
    if mode == "auto":
        mode = "hybrid" if set(OUTPUTS) <= set(teacher.outputs) else "dense"
    outputs = OUTPUTS if mode == "hybrid" else (mode,)
    sides: list[dict[str, int]] = [{}, {}]
    rows: Any = [[side.setdefault(text, len(side)) for side, text in zip(sides, pair, strict=True)] for pair in pairs]
    if not pairs:
        return np.empty(0, np.float32)
    queries = teacher.encode(list(sides[0]), side="query", outputs=outputs)
    documents = teacher.encode(list(sides[1]), outputs=outputs)
    return pair_scores(queries, documents, np.array(rows, np.int64))[mode]


def _pairs(item: Record) -> int:
    return len(item["pos"]) + len(item["neg"])
