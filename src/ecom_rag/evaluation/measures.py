"""Retrieval measures, by ``ir_measures`` and so by trec_eval's own code.

In: a run (query id -> document ids, best first) and judgements. Out: ``PerQuery``, one figure a query and measure.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import listed, names_of, whole
from ecom_rag.errors import UsageError
from ecom_rag.files.trec import Qrels
from ecom_rag.values import has_surrogate, scalar, shown, type_name

DEFAULT = ("nDCG@10", "R@10", "R@100", "P@10", "RR@10", "AP", "Success@1", "Success@10")
_GRADE = 1 << 31  # trec_eval counts in C
_ALIASES = {
    "mrr": "RR",
    "map": "AP",
    "ndcg": "nDCG",
    "recall": "R",
    "precision": "P",
    "success": "Success",
    "hit": "Success",
}


@dataclass(frozen=True)
class PerQuery:
    """Figures of one run.

    Args:
        queries: Ids of the judged queries, in the judgements' order.
        measures: Names, as ``ir_measures`` writes them.
        values: ``(queries, measures)`` float64.
    """

    queries: tuple[str, ...]
    measures: tuple[str, ...]
    values: NDArray[np.float64]

    def of(self, measure: str) -> NDArray[np.float64]:
        """One measure's figure for each query."""
        return self.values[:, self.measures.index(measure)]

    def means(self) -> dict[str, float]:
        """Each measure's mean over queries."""
        return dict(zip(self.measures, self.values.mean(axis=0).tolist(), strict=True))


def parse_measures(text: str) -> tuple[str, ...]:
    """Measure names from an option, ``nDCG@10,R@100`` or with blanks between; MRR, MAP, Recall, NDCG are understood.

    Raises:
        UsageError: An unknown measure.
    """
    import ir_measures

    found = []
    for word in re.findall(r"[^\s,(]+(?:\([^)]*\))?[^\s,]*", text):
        name, rest = re.match(r"([A-Za-z]*)(.*)", word).groups()  # type: ignore[union-attr]
        try:
            if cutoff(word) == 0:
                raise ValueError
            measure = ir_measures.parse_measure(_ALIASES.get(name.lower(), name) + rest)
            ir_measures.evaluator([measure], {"q": {"d": 1}})
        except (NameError, ValueError, KeyError, TypeError, SyntaxError, AssertionError):
            raise UsageError(
                f"measure {word!r} is unknown; expected names as of ir-measures, e.g. nDCG@10, R@100, P@5,"
                " RR@10, AP, Success@10"
            ) from None
        found.append(str(measure))
    if not found:
        raise UsageError("no measure is named; expected e.g. nDCG@10,R@100")
    return tuple(dict.fromkeys(found))


def default_measures(depth: int) -> tuple[str, ...]:
    """The usual measures that results of this depth can give."""
    k = min(10, max(depth, 1))
    named = (f"nDCG@{k}", f"R@{k}", "R@100", f"P@{k}", f"RR@{k}", "AP", "Success@1", f"Success@{k}")
    return tuple(dict.fromkeys(name for name in named if (cutoff(name) or 0) <= depth or name == f"nDCG@{k}"))


def cutoff(measure: str) -> int | None:
    """The k of ``nDCG@k``; ``None`` for a measure over all that was found."""
    match = re.search(r"@(\d+)$", measure)
    return int(match[1]) if match else None


def evaluate_run(run: Mapping[str, Sequence[str]], qrels: Qrels, measures: Sequence[str] = DEFAULT) -> PerQuery:
    """Measure a run, query by query.

    Every judged query counts: one that the run does not answer scores 0. The order of the run is the ranking, whatever
    its scores were, so that ties stand as they were returned. Queries without judgements are left out.

    Args:
        run: Query id -> document ids, best first; of a document named twice the first place counts. Ids are texts or
            integers; ``7`` and ``"7"`` are the same.
        qrels: Query id -> document id -> grade, a whole number; 1 and above is relevant.
        measures: Names by ``ir_measures``: ``nDCG@10``, ``R@100``, ``P@5``, ``RR@10``, ``AP``, ``Success@1``, ...

    Returns:
        Figures, higher is better.

    Raises:
        UsageError: Something else than ids and grades, an unknown measure, nothing judged, or no judged query in the
            run.
    """
    import ir_measures

    names = parse_measures(" ".join(names_of(measures, "measures")))
    run = {key: [_id(document, "run") for document in found] for key, found in _lists(run).items()}
    qrels = {key: _grades(key, judged) for key, judged in _by_id(qrels, "qrels").items()}
    if not qrels:
        raise UsageError("there are no judgements to measure against; give at least one judged query")
    if not any(query in run for query in qrels):
        raise UsageError(
            f"the run answers none of the {len(qrels)} judged queries ({_examples(qrels, run)});"
            " are the ids those of the judgements?"
        )
    # Descending whole numbers, exact in the float32 that trec_eval sorts by.
    scored: dict[str, dict[str, float]] = {}
    for query in qrels:
        found = list(dict.fromkeys(run.get(query, ())))
        if found:
            scored[query] = dict(zip(found, map(float, range(len(found), 0, -1)), strict=True))
    rows = {query: row for row, query in enumerate(qrels)}
    columns = {name: column for column, name in enumerate(names)}
    values = np.zeros((len(rows), len(columns)))
    parsed: list[Any] = [ir_measures.parse_measure(name) for name in names]
    for metric in ir_measures.iter_calc(parsed, qrels, scored):
        values[rows[metric.query_id], columns[str(metric.measure)]] = metric.value
    return PerQuery(tuple(qrels), names, values)


def run_notes(run: Mapping[str, Sequence[str]], qrels: Qrels) -> list[str]:
    """What a reader of the figures should know, one line each."""
    notes = []
    unanswered = [query for query in qrels if not run.get(query)]
    if unanswered:
        notes.append(
            f"{len(unanswered)} of {len(qrels)} judged queries have no result (e.g. {unanswered[0]!r}); they count 0"
        )
    unjudged = [query for query in run if query not in qrels]
    if unjudged:
        notes.append(f"{len(unjudged)} queries of the run are not judged (e.g. {unjudged[0]!r}); they are left out")
    hopeless = sum(1 for judged in qrels.values() if not any(grade > 0 for grade in judged.values()))
    if hopeless:
        notes.append(f"{hopeless} judged queries have no relevant document; they count 0 whatever is found")
    found = {document for documents in run.values() for document in documents}
    if not any(document in found for judged in qrels.values() for document in judged):
        judged_id, found_id = next(iter(next(iter(qrels.values()))), ""), next(iter(found), "")
        notes.append(
            f"no judged document occurs in the run at all (judged {judged_id!r}, found {found_id!r}):"
            " are both ids of the same corpus?"
        )
    double = sum(1 for documents in run.values() if len(set(documents)) < len(documents))
    if double:
        notes.append(f"{double} queries name a document more than once; the first place counts")
    return notes


def _id(value: Any, where: str) -> str:
    own = scalar(value)
    if isinstance(own, bool) or not isinstance(own, str | int) or (isinstance(own, str) and has_surrogate(own)):
        raise UsageError(f"{where}: the id {shown(value)} is of type {type_name(value)}; expected a text or an integer")
    return str(own)


def _by_id(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} is of type {type_name(value)}; expected a dict with the query ids as keys")
    return {_id(key, name): item for key, item in value.items()}


def _lists(run: Any) -> dict[str, list[Any]]:
    return {key: listed(item, f"run[{key!r}]", "a list of document ids") for key, item in _by_id(run, "run").items()}


def _grades(query: str, judged: Any) -> dict[str, int]:
    where = f"qrels[{query!r}]"
    return {key: whole(grade, f"{where}[{key!r}]", least=-_GRADE) for key, grade in _by_id(judged, where).items()}


def _examples(qrels: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    return f"judged {next(iter(qrels))!r}, in the run {next(iter(run), 'nothing')!r}"
