"""The two everyday tools, over records in memory and over files: score against a seed bank, and rerank.

The file forms stream: memory follows the seeds' embeddings and one block of queries, never the query file.
"""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ecom_rag
from ecom_rag import jobs, records
from ecom_rag.errors import UsageError
from ecom_rag.models import CrossEncoder, Embeddings, Encoder
from ecom_rag.models.embeddings import OUTPUTS
from ecom_rag.records import ReadReport, Record
from ecom_rag.retrieval import DenseIndex, HybridIndex, MultiVectorIndex, SparseIndex, TopK
from ecom_rag.retrieval.hybrid import check_weights
from ecom_rag.retrieval.rerank import check_result, rerank

__all__ = ["Scorer", "Summary", "rerank", "rerank_file", "score", "score_file"]

logger = logging.getLogger(__name__)

MODES = (*OUTPUTS, "hybrid")
_BLOCK_RECORDS = 4096
_BLOCK_CHARS = 2_000_000
_RERANK_PAIRS = 2048

Progress = Callable[[str, int, int | None], None]
"""Called with a stage name, how much more is done, and the total where it is known."""


@dataclass
class Summary:
    """What a run did.

    Args:
        records: Results in the output, those of an interrupted run included.
        seeds: Seeds searched.
        rejected: Lines refused under ``on_bad_line="skip"``.
        resumed: Records that an interrupted run had already done.
        seconds: Of the whole call.
        notes: Things worth a user's eye, one line each.
    """

    records: int = 0
    seeds: int = 0
    rejected: int = 0
    resumed: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class Scorer:
    """An encoder and a seed bank in memory, ready to score.

    Args:
        encoder: The embedding model.
        seeds: Seed records.
        mode: ``dense``, ``sparse``, ``multivector`` or ``hybrid``.
        weights: Of dense, sparse, multivector, for ``hybrid``.
        embeddings: The seeds' embeddings where they are known already.

    Raises:
        UsageError: No seeds, an unknown mode, or weights that make no sense.
        ModelError: The checkpoint cannot give what the mode needs.
    """

    def __init__(
        self,
        encoder: Encoder,
        seeds: Sequence[Record],
        *,
        mode: str = "dense",
        weights: Sequence[float] = (1.0, 1.0, 1.0),
        embeddings: Embeddings | None = None,
    ) -> None:
        self.outputs = outputs_of(mode)
        check_weights(weights)
        encoder.check_outputs(self.outputs)
        if not seeds:
            raise UsageError("there are no seeds to score against; give at least one")
        self.encoder = encoder
        self.seeds = seeds
        self.mode = mode
        if embeddings is None:
            embeddings = encoder.encode([seed["text"] for seed in seeds], outputs=self.outputs)
        self._index: Any
        if mode == "hybrid":
            self._index = HybridIndex(embeddings, weights)
        else:
            kind: Any = {"dense": DenseIndex, "sparse": SparseIndex, "multivector": MultiVectorIndex}[mode]
            self._index = kind(getattr(embeddings, mode))

    def score(
        self, queries: Sequence[Record], *, top_k: int = 10, progress: Callable[[int], None] | None = None
    ) -> list[Record]:
        """The most similar seeds of each query.

        Args:
            queries: Records.
            top_k: At most the number of seeds is returned.
            progress: Called with the number of queries encoded.

        Returns:
            The queries with ``topk_sim`` (descending), ``topk_seed`` and ``topk_metadata``, and under ``hybrid`` also
            ``topk_evidence`` with each output's own score and rank.
        """
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; expected at least 1")
        texts = [query["text"] for query in queries]
        embeddings = self.encoder.encode(texts, side="query", outputs=self.outputs, progress=progress)
        if self.mode == "hybrid":
            found, evidence = self._index.search(embeddings, top_k)
            return [self._result(query, row, found, evidence) for row, query in enumerate(queries)]
        found = self._index.search(getattr(embeddings, self.mode), top_k)
        return [self._result(query, row, found, None) for row, query in enumerate(queries)]

    def _result(self, query: Record, row: int, found: TopK, evidence: dict[str, TopK] | None) -> Record:
        ids = [seed for seed in found.ids[row].tolist() if seed >= 0]
        result = {
            **query,
            "topk_sim": [round(sim, 6) for sim in found.scores[row, : len(ids)].tolist()],
            "topk_seed": [self.seeds[seed]["text"] for seed in ids],
            "topk_metadata": [self.seeds[seed]["metadata"] for seed in ids],
        }
        if evidence is not None:
            result["topk_evidence"] = [
                {
                    name: {"score": round(float(own.scores[row, rank]), 6), "rank": int(own.ids[row, rank])}
                    for name, own in evidence.items()
                }
                for rank in range(len(ids))
            ]
        return result


def score(
    queries: Sequence[Record],
    seeds: Sequence[Record],
    encoder: Encoder,
    *,
    mode: str = "dense",
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    top_k: int = 10,
) -> list[Record]:
    """Score records in memory; see ``Scorer`` for several calls against the same seeds."""
    return Scorer(encoder, seeds, mode=mode, weights=weights).score(queries, top_k=top_k)


def outputs_of(mode: str) -> tuple[str, ...]:
    """The encoder outputs a mode needs.

    Raises:
        UsageError: Unknown mode.
    """
    if mode not in MODES:
        raise UsageError(f"mode {mode!r} is unknown; expected one of {', '.join(MODES)}")
    return OUTPUTS if mode == "hybrid" else (mode,)


def score_file(
    queries: str,
    seeds: str,
    output: str,
    load_encoder: Callable[[], Encoder],
    *,
    mode: str = "dense",
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    top_k: int = 10,
    resume: bool = False,
    on_bad_line: str = "fail",
    progress: Progress | None = None,
) -> Summary:
    """Score a file of queries against a file of seeds.

    Args:
        queries: Path, or ``-``.
        seeds: Path.
        output: Path, or ``-``; appears under its name only when complete.
        load_encoder: Called once the cheap checks are passed.
        mode: ``dense``, ``sparse``, ``multivector`` or ``hybrid``.
        weights: Of dense, sparse, multivector, for ``hybrid``.
        top_k: Seeds a query.
        resume: Continue an interrupted run.
        on_bad_line: ``fail`` or ``skip``.
        progress: See ``Progress``.

    Returns:
        What was done.

    Raises:
        EcomRagError: Anything the user can mend; nothing half-written is left under ``output``.
    """
    started = time.monotonic()
    outputs = outputs_of(mode)
    check_weights(weights)
    _check_files(queries, seeds, output, on_bad_line=on_bad_line, top_k=top_k)
    report, seed_report = ReadReport(), ReadReport()
    bank = list(records.read(seeds, on_bad_line=on_bad_line, report=seed_report))
    if not bank:
        raise UsageError(f"{seeds}: holds no seeds; expected at least one record to score against")
    encoder = load_encoder()
    encoder.check_outputs(outputs)
    settings = {
        "command": "score",
        "ecom_rag": ecom_rag.__version__,
        "queries": queries,
        "seeds": _digest(bank),
        "model": encoder.fingerprint,
        "encoder": encoder.settings,
        "mode": mode,
        "weights": list(weights),
        "top_k": top_k,
        "on_bad_line": on_bad_line,
    }
    with jobs.ResumableOutput(output, settings=settings, resume=resume) as sink:
        if not sink.already_complete:
            sink.write_rejections(seed_report.rejections)
            embeddings = _encode_seeds(encoder, bank, outputs, sink.cache, progress)
            scorer = Scorer(encoder, bank, mode=mode, weights=weights, embeddings=embeddings)

            step = _stage(progress, "scoring", _count(queries))

            def work(block: list[Record]) -> list[Record]:
                return scorer.score(block, top_k=top_k, progress=step)

            stream = records.read(queries, on_bad_line=on_bad_line, report=report)
            _run_blocks(sink, stream, report, work, max_size=_BLOCK_CHARS, size=lambda record: len(record["text"]))
        sink.finish()
    summary = _summary(sink, report, seed_report, started)
    summary.seeds = len(bank)
    summary.notes += _bank_notes(bank, top_k)
    return summary


def rerank_file(
    results: str,
    output: str,
    load_cross_encoder: Callable[[], CrossEncoder],
    *,
    top_k: int | None = None,
    normalize: bool = False,
    resume: bool = False,
    on_bad_line: str = "fail",
    progress: Progress | None = None,
) -> Summary:
    """Rerank a file of results; see ``retrieval.rerank.rerank`` for what moves where.

    Args:
        results: Path, or ``-``, of records with ``topk_sim``, ``topk_seed``, ``topk_metadata``.
        output: Path, or ``-``; appears under its name only when complete.
        load_cross_encoder: Called once the cheap checks are passed.
        top_k: Keep this many a record; by default all.
        normalize: Sigmoid of the logit.
        resume: Continue an interrupted run.
        on_bad_line: ``fail`` or ``skip``.
        progress: See ``Progress``; counts pairs.

    Returns:
        What was done.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    started = time.monotonic()
    _check_files(results, None, output, on_bad_line=on_bad_line, top_k=top_k)
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
        "on_bad_line": on_bad_line,
    }
    with jobs.ResumableOutput(output, settings=settings, resume=resume) as sink:
        if not sink.already_complete:
            step = _stage(progress, "reranking", None)

            def work(block: list[Record]) -> list[Record]:
                return rerank(block, cross_encoder, top_k=top_k, normalize=normalize, progress=step)

            stream = records.read(results, on_bad_line=on_bad_line, check=check_result, report=report)
            _run_blocks(
                sink, stream, report, work, max_size=_RERANK_PAIRS, size=lambda record: len(record["topk_seed"])
            )
        sink.finish()
    return _summary(sink, report, ReadReport(), started)


def _run_blocks(
    sink: jobs.ResumableOutput,
    stream: Iterator[Record],
    report: ReadReport,
    work: Callable[[list[Record]], list[Record]],
    *,
    max_size: int,
    size: Callable[[Record], int],
) -> None:
    sink.skip_done(stream)
    for block in jobs.blocks_of(stream, max_records=_BLOCK_RECORDS, max_size=max_size, size=size):
        sink.write_block(block, work(block), report.rejections)
    sink.write_rejections(report.rejections)


def _encode_seeds(
    encoder: Encoder, bank: list[Record], outputs: Sequence[str], cache: Path | None, progress: Progress | None
) -> Embeddings:
    """Encode the bank block by block; finished blocks are kept until the run is complete."""
    step = _stage(progress, "encoding seeds", len(bank))
    parts: list[Embeddings] = []
    for block in jobs.blocks_of(
        bank, max_records=_BLOCK_RECORDS, max_size=_BLOCK_CHARS, size=lambda record: len(record["text"])
    ):
        kept = cache / f"seeds-{len(parts):05d}-{_digest(block)}.npz" if cache else None
        if kept is not None and kept.exists():
            parts.append(Embeddings.load(kept))
            step(len(block))
            continue
        parts.append(encoder.encode([seed["text"] for seed in block], outputs=outputs, progress=step))
        if kept is not None:
            fresh = kept.with_suffix(".new")
            parts[-1].save(fresh)
            fresh.replace(kept)
    return parts[0] if len(parts) == 1 else Embeddings.concatenate(parts)


def _check_files(inputs: str, seeds: str | None, output: str, *, on_bad_line: str, top_k: int | None) -> None:
    """Everything that can be told without reading: a mistake is found before a model is loaded."""
    if on_bad_line not in ("fail", "skip"):
        raise UsageError(f"on_bad_line {on_bad_line!r} is unknown; expected fail or skip")
    if on_bad_line == "skip" and output == "-":
        raise UsageError(
            "--on-bad-line skip writes the refused lines beside the output; give --output a path instead of -"
        )
    if top_k is not None and top_k < 1:
        raise UsageError(f"--top-k is {top_k}; expected at least 1")
    if seeds == "-":
        raise UsageError("--seeds - is not supported: standard input is for the queries; give the seeds as a file")
    jobs.check_output(output)
    for path in (inputs, seeds):
        if path is not None and path != "-":
            records.file_format(path)
            if not Path(path).is_file():
                what = "is not a file" if Path(path).exists() else "no such file"
                raise UsageError(f"{path}: {what}; check the path, or pass - to read standard input")
            if Path(output).exists() and Path(path).samefile(output):
                raise UsageError(f"{output}: is also an input of this run; name another output")


def _summary(sink: jobs.ResumableOutput, report: ReadReport, seeds: ReadReport, started: float) -> Summary:
    summary = Summary(
        records=sink.records, resumed=sink.resumed_records, rejected=report.rejected + seeds.rejected,
        seconds=time.monotonic() - started,
    )  # fmt: skip
    if sink.already_complete:
        summary.notes.append("the interrupted run had already finished its work; only the file's name was missing")
    if summary.rejected:
        summary.notes.append(f"{summary.rejected} lines were refused and written to {sink.rejected_path}")
    replaced = report.surrogates_replaced + seeds.surrogates_replaced
    if replaced:
        summary.notes.append(f"{replaced} records held lone surrogates (half of a cut emoji), replaced by U+FFFD")
    if summary.records == 0:
        summary.notes.append("the input held no records: the output is empty")
    return summary


def _bank_notes(bank: list[Record], top_k: int) -> list[str]:
    notes = []
    if top_k > len(bank):
        notes.append(f"top-k {top_k} is more than the {len(bank)} seeds; each record got at most {len(bank)}")
    ids = Counter(str(seed["metadata"]["id"]) for seed in bank if "id" in seed["metadata"])
    double = [key for key, count in ids.items() if count > 1]
    if double:
        notes.append(
            f"{len(double)} seed ids occur more than once (e.g. {double[0]!r}); all of these seeds were searched"
        )
    return notes


def _digest(items: Iterable[Record]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for item in items:
        found.update(records.dumps(item))
    return found.hexdigest()


def _stage(progress: Progress | None, name: str, total: int | None) -> Callable[[int], None]:
    return (lambda done: None) if progress is None else (lambda done: progress(name, done, total))


def _count(path: str) -> int | None:
    """Lines of a plain JSON lines file, for a progress bar; ``None`` where counting would cost too much."""
    if path == "-" or records.file_format(path) != ".jsonl" or Path(path).stat().st_size > 1 << 30:
        return None
    with Path(path).open("rb") as handle:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(1 << 20), b""))
