"""Evaluation: how good a run is, how sure that is, and which route it owes it to.

In: runs (results of score, recall, rerank, or TREC files) and judgements (qrels, BEIR folders, or labels in the
metadata). Out: ``PerQuery`` figures, intervals, paired tests, fitted fusion weights, tables and an HTML report. For
training and merging: judged sets in memory (``sets``). What works on arrays alone is in ``ecom_rag.judging``.
"""

from ecom_rag.evaluation.measures import PerQuery, evaluate_run, parse_measures
from ecom_rag.files.trec import Qrels, Run
from ecom_rag.judging.fit_fusion import fit_fusion
from ecom_rag.judging.judged import judge, judge_labels
from ecom_rag.judging.significance import Comparison, Interval, bootstrap, compare

__all__ = [
    "Comparison",
    "Interval",
    "PerQuery",
    "Qrels",
    "Run",
    "bootstrap",
    "compare",
    "evaluate_run",
    "fit_fusion",
    "judge",
    "judge_labels",
    "parse_measures",
]
