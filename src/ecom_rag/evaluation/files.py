"""Evaluations over files: what ``ecom-rag evaluate`` does, callable from Python."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.evaluation import tables
from ecom_rag.evaluation.contributions import evidence_of
from ecom_rag.evaluation.itself import noted, without_itself
from ecom_rag.evaluation.label_study import ByLabel, study_labels
from ecom_rag.evaluation.report import as_html
from ecom_rag.evaluation.runs import NamedRun, load_labelled, load_runs
from ecom_rag.evaluation.study import Study, study_retrieval
from ecom_rag.files import records
from ecom_rag.files.beir import read_beir
from ecom_rag.files.identity import label_of
from ecom_rag.files.trec import Qrels, read_qrels, writing
from ecom_rag.judging.fit_fusion import fit_fusion
from ecom_rag.judging.judged import judge
from ecom_rag.judging.significance import RESAMPLES
from ecom_rag.retrieval.learned_fusion import LearnedFusion

logger = logging.getLogger(__name__)

_MADE_BY = "ecom_rag.evaluation.files.write_report(study, path)"


def evaluate_files(
    results: Sequence[str | NamedRun],
    *,
    qrels: str | None = None,
    beir: str | None = None,
    split: str = "test",
    id_key: str = "id",
    exclude_self: bool | None = None,
    measures: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    described: str | None = None,
) -> tuple[Study, list[NamedRun], Qrels]:
    """Evaluate results files or TREC runs against judgements.

    Args:
        results: Files, or runs in memory.
        qrels: File of judgements; or
        beir: Folder whose judgements are taken.
        split: Of the folder.
        id_key: Metadata key of the ids of queries and documents.
        exclude_self: Leave a document out of the results of the query that it is; by default with ``beir``, as BEIR's
            own evaluation does.
        measures: Names; see ``study_retrieval``.
        resamples: Of bootstrap and randomisation.
        seed: Of both.
        described: What the results are of, for the study's settings; by default their paths.

    Returns:
        The study, the runs and the judgements.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    if (qrels is None) == (beir is None):
        raise UsageError("one source of judgements is needed; give `qrels` FILE, `beir` DIR or `labels`")
    _check_resamples(resamples)
    folder = read_beir(beir, split) if beir is not None else None
    judged = folder.qrels if folder is not None else read_qrels(str(qrels))
    exclude_self = beir is not None if exclude_self is None else exclude_self
    look = without_itself if exclude_self else noted
    found = [run for run in results if isinstance(run, NamedRun)]
    found += load_runs([path for path in results if isinstance(path, str)], id_key=id_key)
    runs = [look(run, id_key=id_key) for run in found]
    study = study_retrieval(
        runs,
        judged,
        measures=measures,
        texts={query["metadata"]["id"]: query["text"] for query in folder.queries} if folder else None,
        document_text=folder.texts if folder else None,
        resamples=resamples,
        seed=seed,
        settings={
            "judgements": f"{beir} ({split})" if beir else qrels,
            "runs": described or ", ".join(map(str, results)),
            "resamples": resamples,
            "seed": seed,
        },
    )
    return study, runs, judged


def evaluate_labels(
    results: Sequence[str],
    *,
    label_key: str = "label",
    id_key: str = "id",
    exclude_self: bool = False,
    votes: int | None = None,
    fixed_precision: float = 0.9,
    positive: str | None = None,
    measures: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Study, list[NamedRun], Qrels]:
    """Evaluate results files by their labels; see ``ByLabel`` and ``evaluate_files`` for the options.

    Returns:
        The study, the runs, and as judgements the places of the right seeds in the first run's results.
    """
    _check_resamples(resamples)
    runs = load_labelled(results, id_key=id_key, label_key=label_key)
    look = partial(without_itself, labelled=True) if exclude_self else noted
    runs = [look(run, id_key=id_key) for run in runs]
    settings = {
        "label key": label_key,
        "votes": votes or "all",
        "fixed precision": fixed_precision,
        "runs": ", ".join(results),
        "resamples": resamples,
        "seed": seed,
    }
    asked = ByLabel(label_key, votes, fixed_precision, positive, measures, resamples, seed)
    study = study_labels(runs, asked, settings=settings)
    return study, runs, _by_label(runs[0], label_key)


def fit_fusion_on(run: NamedRun, qrels: Qrels, *, seed: int = 0, fitted_on: Mapping[str, Any]) -> LearnedFusion:
    """Fit fusion weights on the evidence in results; as far as the results go, see ``contributions``.

    Raises:
        UsageError: No evidence of at least two routes, or too few judged queries.
    """
    queries = [query for query in run.results if query in qrels]
    candidates = evidence_of([run.results[query] for query in queries]) if queries else None
    if candidates is None:
        raise UsageError(
            f"{run.name}: holds no topk_evidence of two routes or more; fit on results of ecom-rag recall"
            " with several `routes` and a large `top_k`"
        )
    judged = judge(candidates, [run.run[query] for query in queries], [qrels[query] for query in queries])
    return fit_fusion(candidates, judged, seed=seed, fitted_on=fitted_on)


def write_figures(study: Study, path: str) -> None:
    """The figures as a JSON file."""
    with writing(path) as sink:
        sink.write(records.dumps(tables.as_json(study)))


def write_report(study: Study, path: str, *, title: str = "Evaluation", made_by: str = _MADE_BY) -> None:
    """Write the HTML report; ``made_by`` is the command line or the Python call that it names."""
    with writing(path) as sink:
        sink.write(as_html(study, title=title, made_by=made_by).encode())


def write_per_query(study: Study, path: str) -> None:
    """One row a query and run, as ``.jsonl``, ``.jsonl.gz``, ``.json`` or ``.parquet``."""
    kind = records.file_format(path)
    if kind in (".jsonl", ".jsonl.gz"):
        with writing(path) as sink:
            sink.writelines(map(records.dumps, tables.rows(study)))
        return
    with tempfile.TemporaryDirectory() as folder:
        plain, converted = Path(folder) / "rows.jsonl", Path(folder) / f"rows{kind}"
        plain.write_bytes(b"".join(map(records.dumps, tables.rows(study))))
        records.convert(plain, converted, kind)
        with writing(path) as sink:
            sink.write(converted.read_bytes())


def _by_label(run: NamedRun, label_key: str) -> Qrels:
    """The seeds of a query's own label as judgements, by their places."""
    qrels: Qrels = {}
    for query, result in run.results.items():
        own = label_of(result["metadata"], label_key)
        found = enumerate(result["topk_metadata"])
        qrels[query] = {str(place): int(label_of(metadata, label_key) == own) for place, metadata in found}
    return qrels


def _check_resamples(resamples: int) -> None:
    if not 100 <= resamples <= 1_000_000:
        raise UsageError(f"resamples is {resamples}; expected 100 to 1000000, 10000 as a rule")
