"""Mining for files: block by block, resumable, with an account of what was left out and why."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, path_of, path_or_none
from ecom_rag.errors import UsageError
from ecom_rag.files import disk, jobs
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.mining.finders import ROUTES, EncodedFinder, Finder, LexicalFinder, ListedFinder, encode_corpus
from ecom_rag.mining.pick import mine
from ecom_rag.mining.rules import REASONS, Rules
from ecom_rag.mining.sources import Corpus, Queries, Source, kind_of, read_corpus
from ecom_rag.mining.triples import JSON_LINES
from ecom_rag.models import CrossEncoder, Encoder

_BLOCK_RECORDS = 1024
_BLOCK_CHARS = 500_000


@dataclass
class MineSummary:
    """What a run did.

    Args:
        records: Queries read, those of an interrupted run included.
        written: Queries in the output.
        negatives: Negatives in the output.
        resumed: Queries that an interrupted run had already done.
        seconds: Of the whole call.
        refused: Candidates within the ranks that each rule refused.
        notes: Things worth a user's eye, one line each.
    """

    records: int = 0
    written: int = 0
    negatives: int = 0
    resumed: int = 0
    seconds: float = 0.0
    refused: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def mine_file(
    source: Source | PathLike,
    output: PathLike,
    rules: Rules | None = None,
    *,
    seeds: PathLike | None = None,
    run: PathLike | None = None,
    route: str = "dense",
    load_encoder: Callable[[], Encoder] | None = None,
    load_cross_encoder: Callable[[], CrossEncoder] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> MineSummary:
    """Mine hard negatives and write FlagEmbedding's JSON lines.

    A query's own text, its positives on any line (all texts of its label, for labelled records) and copies of these
    (``ecom_rag.text.normalization.canonical``) are never negatives. A query that is left with none is not written;
    with a reranker the lines hold its logits as ``pos_scores`` and ``neg_scores``.

    Args:
        source: Queries with their positives: a path, or a ``Source`` that says more of it.
        output: ``.jsonl`` or ``.jsonl.gz``; appears under its name only when complete.
        rules: How many, of which ranks, which not; by default 7 of the ranks 10 to 100.
        seeds: Records that negatives come from; by default what the source holds.
        run: Results of ``score``, ``recall`` or ``rerank`` whose candidates are taken instead of a search.
        route: ``dense``, ``sparse``, ``multivector`` or ``bm25``.
        load_encoder: Loads the model of the route; ``bm25`` and ``run`` need none.
        load_cross_encoder: Loads the reranker that finds false negatives.
        resume: Continue an interrupted run.
        progress: See ``Progress``.

    Returns:
        What was done.

    Raises:
        EcomRagError: Anything the user can mend, and where no negative is found at all; nothing half-written is left
            under ``output``.
    """
    started = time.monotonic()
    if not isinstance(source, Source):
        source = path_of(source, "source")
        source = Source(source, kind_of(source))
    rules = rules or Rules()
    output = path_of(output, "output")
    seeds, run = path_or_none(seeds, "seeds"), path_or_none(run, "run")
    _check(source, output, rules, seeds, run, route, load_encoder, load_cross_encoder)
    corpus = read_corpus(source, seeds)
    queries = Queries(source, corpus)  # a bad line is told before a model is loaded
    if not len(queries):
        raise UsageError(f"{source.path}: holds no queries; there is nothing to mine for")
    listed = ListedFinder(run, corpus, partial=source.judged_only) if run is not None else None
    encoder = load_encoder() if load_encoder is not None and run is None and route != "bm25" else None
    if encoder is not None:
        encoder.check_outputs((route,))
    cross_encoder = load_cross_encoder() if load_cross_encoder is not None else None
    settings = {
        "command": "mine",
        "ecom_rag": __version__,
        "source": asdict(source),
        "corpus": _digest(corpus),
        "run": _file_digest(run),
        "route": route,
        "rules": asdict(rules),
        "model": encoder and [encoder.fingerprint, encoder.settings],
        "reranker": cross_encoder and [cross_encoder.fingerprint, cross_encoder.settings],
    }
    summary = MineSummary()
    with jobs.ResumableOutput(output, settings=settings, resume=resume) as sink:
        counts: Counter[str] = Counter()
        if not sink.already_complete:
            stream = iter(queries)
            sink.skip_done(stream)
            counts = _saved_counts(sink)
            ranking = listed or _ranking(corpus, route, encoder, sink.cache, progress)
            step = stage(progress, "mining", len(queries))
            for block in jobs.blocks_of(stream, max_records=_BLOCK_RECORDS, max_size=_BLOCK_CHARS, size=_size):
                mined = mine(block, corpus, ranking, rules, cross_encoder=cross_encoder, counts=counts)
                _save_counts(sink, counts, sink.records + len(block))
                sink.write_block(block, mined, [])
                step(len(block))
        else:
            counts = _saved_counts(sink)
        summary.records, summary.resumed = sink.records, sink.resumed_records
        _account(summary, counts, rules, len(corpus))
        if not summary.negatives:
            sink.abandon()
            raise UsageError(
                "; ".join(
                    [f"{source.path}: no negatives were mined for any of {summary.records} queries", *summary.notes]
                )
            )
        sink.finish()
    summary.notes += sink.notes
    left_out = {**queries.left_out, "documents of the corpus": corpus.blank}
    summary.notes += [f"{number} {what} have no text and are left out" for what, number in left_out.items() if number]
    summary.seconds = time.monotonic() - started
    return summary


def _ranking(
    corpus: Corpus, route: str, encoder: Encoder | None, cache: Path | None, progress: Progress | None
) -> Finder:
    if encoder is None:
        return LexicalFinder(corpus)
    embeddings = encode_corpus(encoder, corpus.texts, route, cache, stage(progress, "encoding corpus", len(corpus)))
    return EncodedFinder(encoder, embeddings, route)


def _check(
    source: Source,
    output: str,
    rules: Rules,
    seeds: str | None,
    run: str | None,
    route: str,
    encoder: Any,
    reranker: Any,
) -> None:
    check_ranking(rules, run, route, encoder, reranker)
    if source.kind != "beir" and (source.judged_only or source.grades):
        raise UsageError("--judged-only and --grades are for BEIR folders; leave them out")
    if source.judged_only and seeds is not None:
        raise UsageError("--judged-only chooses among the folder's own documents; leave out --seeds, or it")
    if source.grades and reranker is not None:
        raise UsageError("--grades and --reranker both fill pos_scores and neg_scores; take one of them")
    if source.positives < 1 or source.min_grade < 1:
        raise UsageError(f"positives is {source.positives} and min grade {source.min_grade}; expected at least 1")
    if not output.endswith(JSON_LINES):
        raise UsageError(f"{output}: unknown file type; mining writes .jsonl or .jsonl.gz")
    jobs.check_output(output)
    jobs.check_not_read(output, (source.path, seeds, run))


def check_ranking(rules: Rules, run: str | None, route: str, encoder: Any, reranker: Any) -> None:
    """Raise ``UsageError`` unless there is what ranks the corpus, and a reranker has something to refuse."""
    if route not in ROUTES:
        raise UsageError(f"route {route!r} is unknown; expected one of {', '.join(ROUTES)}")
    if run is None and route != "bm25" and encoder is None:
        raise UsageError(f"route {route} needs a model; pass --model, or --route bm25, or candidates with --run")
    if reranker is None and (rules.reranker_threshold is not None or rules.reranker_margin is not None):
        raise UsageError("a threshold or margin of the reranker is given, but no reranker; name it with --reranker")
    if reranker is not None and rules.reranker_threshold is None and rules.reranker_margin is None:
        raise UsageError(
            "a reranker is given, but not what it should refuse; pass --reranker-threshold (e.g. 0.5) or"
            " --reranker-margin (e.g. 0.1)"
        )


def _account(summary: MineSummary, counts: Counter[str], rules: Rules, texts: int) -> None:
    summary.written, summary.negatives = counts["written"], counts["negatives"]
    summary.refused = {reason: counts[f"refused {reason}"] for reason in REASONS if counts[f"refused {reason}"]}
    if summary.refused:
        shown = ", ".join(f"{reason} {number}" for reason, number in summary.refused.items())
        summary.notes.append(f"candidates refused by rule: {shown}")
    sentences = {
        "no positive": "queries have no positive and are left out",
        "none": "queries have no candidate that may be a negative and are left out",
        "short": f"queries have fewer than {rules.first} candidates, so none at the ranks {rules.first}-{rules.last},"
        f" and are left out; begin --range earlier (the corpus holds {texts} texts)",
        "few": f"queries have fewer than {rules.negatives} negatives",
    }
    for what, sentence in sentences.items():
        if counts[f"queries {what}"]:
            start = f"named {what}: "
            names = ", ".join(repr(key.removeprefix(start)) for key in counts if key.startswith(start))
            summary.notes.append(f"{counts[f'queries {what}']} {sentence} (e.g. {names})")


def _save_counts(sink: jobs.ResumableOutput, counts: Counter[str], records: int) -> None:
    """Beside the journal, under the number of records that it will name: a kill between the two loses nothing."""
    if sink.cache is not None:
        disk.keep(sink.cache / f"counts-{records}.json", lambda path: path.write_text(json.dumps(counts)))


def _saved_counts(sink: jobs.ResumableOutput) -> Counter[str]:
    path = sink.cache / f"counts-{sink.records}.json" if sink.cache is not None else None
    return Counter(json.loads(path.read_text())) if path is not None and path.exists() else Counter()


def _size(item: Record) -> int:
    return len(item["query"]) + sum(map(len, item["pos"]))


def _digest(corpus: Corpus) -> str:
    found = hashlib.blake2b(digest_size=16)
    for text in corpus.texts:
        found.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return found.hexdigest()


def _file_digest(path: str | None) -> str | None:
    if path is None or not Path(path).is_file():
        return path
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "blake2b").hexdigest()[:32]
