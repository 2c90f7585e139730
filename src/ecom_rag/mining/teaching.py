"""Teacher scores: what a reranker or an embedder says of each query and its documents, for distillation."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag import arguments
from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, flag, one_of, path_of
from ecom_rag.errors import EmbeddingError, UsageError
from ecom_rag.files import jobs
from ecom_rag.files.jobs import Cut, Job, Summary
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.mining.triples import JSON_LINES, cleaned_triples, read_triples
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.embeddings import OUTPUTS
from ecom_rag.models.spec import AnyCrossEncoder, AnyEncoder, check_cross_encoder, cross_encoder_of, encoder_of
from ecom_rag.retrieval import pair_scores

_MODES = ("auto", "hybrid", *OUTPUTS)
_BLOCK_PAIRS = 2048


def teach_file(
    path: PathLike,
    output: PathLike,
    teacher: AnyCrossEncoder | AnyEncoder,
    *,
    embedder: bool = False,
    mode: str = "auto",
    normalize: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Fill ``pos_scores`` and ``neg_scores`` of FlagEmbedding's JSON lines; all other keys stay.

    Args:
        path: ``.jsonl`` or ``.jsonl.gz`` of ``query``, ``pos``, ``neg``; scores in it are replaced.
        output: ``.jsonl`` or ``.jsonl.gz``; appears under its name only when complete.
        teacher: A reranker, or an embedder; where it is named, loaded once the whole file has been checked.
        embedder: A teacher that is named is an embedder.
        mode: Of an embedder: ``dense``, ``sparse``, ``multivector`` or ``hybrid``; ``auto`` is hybrid for a bge-m3.
        normalize: Of a reranker: relevance in 0 to 1 instead of logits. FlagEmbedding's trainers expect logits.
        resume: Continue an interrupted run.
        progress: See ``Progress``; counts pairs.

    Returns:
        What was done; its ``counts`` hold the ``pairs`` that were scored.

    Raises:
        RecordError: A line that does not fit, before anything is scored.
        EcomRagError: Anything else the user can mend.
    """
    started = time.monotonic()
    path, output = path_of(path, "path"), path_of(output, "output")
    _check(path, output, teacher, mode, normalize)
    total = sum(map(_pairs, read_triples(path)))
    if not total:
        raise UsageError(f"{path}: holds no queries with pos or neg; there is nothing to score")
    loaded = _loaded(teacher, embedder)
    step = stage(progress, "scoring pairs", total)
    options: dict[str, Any] = {"mode": mode, "normalize": normalize}

    def process(block: list[Record]) -> tuple[list[Record], dict[str, int]]:
        taught = teach(block, loaded, **options)
        pairs = sum(map(_pairs, block))
        step(pairs)
        return taught, {"pairs": pairs}

    told = [type(loaded).__name__, loaded.fingerprint, loaded.settings]
    job = Job(
        output,
        {"command": "teach", "ecom_rag": __version__, "path": path, "teacher": told, **options},
        read=lambda report: read_triples(path),
        start=lambda cache: process,
        cut=Cut(max_size=_BLOCK_PAIRS, size=_pairs),
    )
    return jobs.run(job, started=started, resume=resume)


def _check(path: str, output: str, teacher: AnyCrossEncoder | AnyEncoder, mode: str, normalize: bool) -> None:
    flag(normalize, "normalize")
    if not isinstance(teacher, Encoder):
        check_cross_encoder(teacher)
    for name in (path, output):
        if not name.endswith(JSON_LINES):
            raise UsageError(f"{name}: unknown file type; expected .jsonl or .jsonl.gz")
    one_of(mode, "mode", _MODES)
    jobs.check_output(output)
    jobs.check_not_read(output, [path])


def _loaded(teacher: AnyCrossEncoder | AnyEncoder, embedder: bool) -> CrossEncoder | Encoder:
    if isinstance(teacher, CrossEncoder | Encoder):
        return teacher
    return encoder_of(teacher) if embedder else cross_encoder_of(teacher)


def teach(
    items: Iterable[Record], teacher: CrossEncoder | Encoder, *, mode: str = "auto", normalize: bool = False
) -> list[Record]:
    """Score queries and documents in memory; see ``teach_file`` for files.

    Args:
        items: Any iterable of dicts with a text ``query`` and lists of texts ``pos`` and ``neg``; other keys stay.
        teacher: The reranker or embedder that scores.
        mode: Of an embedder: ``dense``, ``sparse``, ``multivector`` or ``hybrid``; ``auto`` is hybrid for a bge-m3.
        normalize: Of a reranker: relevance in 0..1 instead of logits.

    Returns:
        New dicts with ``pos_scores`` and ``neg_scores``, one number per text, higher is more relevant. Each distinct
        pair is scored once. Of no items an empty list.

    Raises:
        UsageError: An argument of the wrong kind.
        RecordError: An item that does not fit; says which and why.
        ModelError: The embedder cannot give what the mode needs.
    """
    arguments.model(teacher, "teacher", "settings", "CrossEncoder")
    one_of(mode, "mode", _MODES)
    flag(normalize, "normalize")
    items = list(cleaned_triples(items))
    pairs = [(item["query"], text) for item in items for text in (*item["pos"], *item["neg"])]
    if isinstance(teacher, CrossEncoder):
        scores = teacher.score(pairs, normalize=normalize)
    else:
        scores = _embedder_scores(pairs, teacher, mode)
    if not np.isfinite(scores).all():
        number = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise EmbeddingError(
            f"the teacher gave NaN or infinity for the query {pairs[number][0][:40]!r}; its checkpoint"
            " is damaged, or needs `precision` fp32"
        )
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
