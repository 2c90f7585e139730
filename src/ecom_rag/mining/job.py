"""Mining for files: block by block, resumable, with an account of what was left out and why."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, path_of, path_or_none
from ecom_rag.errors import UsageError
from ecom_rag.files import digest, jobs
from ecom_rag.files.jobs import Cut, Job, Process, Summary
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.mining.finders import ROUTES, EncodedFinder, Finder, LexicalFinder, ListedFinder
from ecom_rag.mining.pick import NAMED, mine
from ecom_rag.mining.rules import REASONS, Rules
from ecom_rag.mining.sources import Corpus, Queries, Source, kind_of, read_corpus
from ecom_rag.mining.triples import JSON_LINES
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.kept import encode_kept
from ecom_rag.models.spec import AnyCrossEncoder, AnyEncoder, cross_encoder_of, encoder_of


def mine_file(
    source: Source | PathLike,
    output: PathLike,
    rules: Rules | None = None,
    *,
    seeds: PathLike | None = None,
    run: PathLike | None = None,
    route: str = "dense",
    model: AnyEncoder | None = None,
    reranker: AnyCrossEncoder | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Summary:
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
        model: The encoder of the route; ``bm25`` and ``run`` need none.
        reranker: The cross-encoder that finds false negatives.
        resume: Continue an interrupted run.
        progress: See ``Progress``.

    Returns:
        What was done; its ``counts`` hold ``written`` queries, their ``negatives``, and ``refused REASON`` for the
        candidates within the ranks that each rule refused.

    Raises:
        EcomRagError: Anything the user can mend, and where no negative is found at all; nothing half-written is left
            under ``output``.
    """
    started = time.monotonic()
    if not isinstance(source, Source):
        path = path_of(source, "source")
        source = Source(path, kind_of(path))
    rules = rules or Rules()
    output = path_of(output, "output")
    seeds, run = path_or_none(seeds, "seeds"), path_or_none(run, "run")
    check_ranking(rules, run, route, model, reranker)
    _check_source(source, seeds, reranker)
    _check_output(output, (source.path, seeds, run))
    corpus = read_corpus(source, seeds)
    queries = Queries(source, corpus)  # a bad line is told before a model is loaded
    if not len(queries):
        raise UsageError(f"{source.path}: holds no queries; there is nothing to mine for")
    listed = ListedFinder(run, corpus, partial=source.judged_only) if run is not None else None
    encoder = encoder_of(model) if model is not None and run is None and route != "bm25" else None
    if encoder is not None:
        encoder.check_outputs((route,))
    cross_encoder = cross_encoder_of(reranker) if reranker is not None else None
    mining = _Mining(source, corpus, queries, rules, run, route, listed, encoder, cross_encoder)
    summary = jobs.run(_job(mining, output, progress), started=started, resume=resume)
    left_out = {**queries.left_out, "documents of the corpus": corpus.blank}
    summary.notes += [f"{number} {what} have no text and are left out" for what, number in left_out.items() if number]
    return summary


@dataclass(frozen=True, slots=True)
class _Mining:
    """What a mining is made of once all is read and checked; see ``mine_file``."""

    source: Source
    corpus: Corpus
    queries: Queries
    rules: Rules
    run: str | None
    route: str
    listed: ListedFinder | None
    encoder: Encoder | None
    cross_encoder: CrossEncoder | None


def _job(of: _Mining, output: str, progress: Progress | None) -> Job:
    def start(cache: Path | None) -> Process:
        finder = of.listed or _finder(of, cache, progress)
        step = stage(progress, "mining", len(of.queries))

        def process(block: list[Record]) -> tuple[list[Record], Counter[str]]:
            mined = mine(block, of.corpus, finder, of.rules, cross_encoder=of.cross_encoder)
            step(len(block))
            return mined

        return process

    def accept(summary: Summary) -> None:
        summary.notes += _account(summary.counts, of.rules, len(of.corpus))
        if not summary.counts["negatives"]:
            told = f"{of.source.path}: no negatives were mined for any of {summary.records} queries"
            raise UsageError("; ".join([told, *summary.notes]))

    settings = {
        "command": "mine",
        "ecom_rag": __version__,
        "source": asdict(of.source),
        "corpus": digest.of_texts(of.corpus.texts),
        "run": of.run and digest.of_file(Path(of.run)),
        "route": of.route,
        "rules": asdict(of.rules),
        "model": of.encoder and [of.encoder.fingerprint, of.encoder.settings],
        "reranker": of.cross_encoder and [of.cross_encoder.fingerprint, of.cross_encoder.settings],
    }
    cut = Cut(1024, 500_000, size=_size)
    return Job(output, settings, read=lambda report: iter(of.queries), start=start, cut=cut, accept=accept)


def _finder(of: _Mining, cache: Path | None, progress: Progress | None) -> Finder:
    if of.encoder is None:
        return LexicalFinder(of.corpus)
    step = stage(progress, "encoding corpus", len(of.corpus))
    return EncodedFinder(of.encoder, encode_kept(of.encoder, of.corpus.texts, (of.route,), cache, step), of.route)


def _check_source(source: Source, seeds: str | None, reranker: Any) -> None:
    if source.kind != "beir" and (source.judged_only or source.grades):
        raise UsageError("`judged_only` and `grades` are for BEIR folders; leave them out")
    if source.judged_only and seeds is not None:
        raise UsageError("`judged_only` chooses among the folder's own documents; leave out `seeds`, or it")
    if source.grades and reranker is not None:
        raise UsageError("`grades` and `reranker` both fill pos_scores and neg_scores; take one of them")
    if source.positives < 1 or source.min_grade < 1:
        raise UsageError(f"positives is {source.positives} and min grade {source.min_grade}; expected at least 1")


def _check_output(output: str, inputs: Sequence[str | None]) -> None:
    if not output.endswith(JSON_LINES):
        raise UsageError(f"{output}: unknown file type; mining writes .jsonl or .jsonl.gz")
    jobs.check_output(output)
    jobs.check_not_read(output, inputs)


def check_ranking(rules: Rules, run: str | None, route: str, encoder: Any, reranker: Any) -> None:
    """Raise ``UsageError`` unless there is what ranks the corpus, and a reranker has something to refuse."""
    if route not in ROUTES:
        raise UsageError(f"route {route!r} is unknown; expected one of {', '.join(ROUTES)}")
    if run is None and route != "bm25" and encoder is None:
        raise UsageError(f"route {route} needs a model; pass `model`, or `route` bm25, or candidates with `run`")
    if reranker is None and (rules.reranker_threshold is not None or rules.reranker_margin is not None):
        raise UsageError("a threshold or margin of the reranker is given, but no reranker; name it with `reranker`")
    if reranker is not None and rules.reranker_threshold is None and rules.reranker_margin is None:
        raise UsageError(
            "a reranker is given, but not what it should refuse; pass `reranker_threshold` (e.g. 0.5) or"
            " `reranker_margin` (e.g. 0.1)"
        )


def _account(counts: Counter[str], rules: Rules, texts: int) -> list[str]:
    """What was refused and left out, one line each."""
    notes = []
    refused = {reason: counts[f"refused {reason}"] for reason in REASONS if counts[f"refused {reason}"]}
    if refused:
        shown = ", ".join(f"{reason} {number}" for reason, number in refused.items())
        notes.append(f"candidates refused by rule: {shown}")
    sentences = {
        "no positive": "queries have no positive and are left out",
        "none": "queries have no candidate that may be a negative and are left out",
        "short": f"queries have fewer than {rules.first} candidates, so none at the ranks {rules.first}-{rules.last},"
        f" and are left out; begin `first` earlier (the corpus holds {texts} texts)",
        "few": f"queries have fewer than {rules.negatives} negatives",
    }
    for what, sentence in sentences.items():
        if counts[f"queries {what}"]:
            start = f"named {what}: "
            named = [key.removeprefix(start) for key in counts if key.startswith(start)]  # a few of every block
            names = ", ".join(map(repr, named[:NAMED]))
            notes.append(f"{counts[f'queries {what}']} {sentence} (e.g. {names})")
    return notes


def _size(item: Record) -> int:
    return len(item["query"]) + sum(map(len, item["pos"]))
