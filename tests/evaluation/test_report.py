"""The report: its verdict follows from the numbers, its confusion matrix is scikit-learn's, its axes are round."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from ecom_rag.evaluation import report
from ecom_rag.evaluation.charts import ticks
from ecom_rag.evaluation.confusion import confusion
from ecom_rag.evaluation.labels import vote
from ecom_rag.evaluation.measures import PerQuery
from ecom_rag.evaluation.study import Pair, RunStudy, Study
from ecom_rag.evaluation.verdict import verdict
from ecom_rag.judging.significance import Comparison, Interval

pytestmark = pytest.mark.slow


def study(means, differences=(), *, measure="nDCG@10"):
    """Runs a, b, ... with these means, and their pairs with (difference, low, high, corrected p)."""
    names = "abcdefgh"[: len(means)]
    runs = []
    for name, mean in zip(names, means, strict=True):
        per_query = PerQuery(("1", "2"), (measure,), np.full((2, 1), mean))
        runs.append(RunStudy(name, per_query, {measure: Interval(mean, mean - 0.1, mean + 0.1)}))
    pairs = [
        Pair(first, second, measure, Comparison(difference, low, high, p / 2, 1, 0, 1), p)
        for (first, second), (difference, low, high, p) in zip(combinations(names, 2), differences, strict=True)
    ]
    return Study("retrieval", {}, {}, runs, pairs)


def test_the_verdict_on_one_run():
    assert verdict(study([0.5])) == ["a reaches nDCG@10 0.5000 (95% interval 0.4000 to 0.6000) on 2 queries."]


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ((0.1, 0.04, 0.16, 0.001), "b is significantly better than a: nDCG@10 0.6000 against 0.5000, "),
        ((-0.1, -0.16, -0.04, 0.001), "b is significantly worse than a: nDCG@10 0.4000 against 0.5000, "),
        ((0.1, -0.04, 0.24, 0.3), "No significant difference between a and b: nDCG@10 0.6000 against 0.5000, "),
        ((0.1, 0.001, 0.2, 0.06), "No significant difference between a and b: "),  # the test does not agree
        ((0.1, -0.001, 0.2, 0.04), "No significant difference between a and b: "),  # the interval does not
        ((0.0, 0.0, 0.0, 1.0), "No significant difference between a and b: nDCG@10 0.5000 against 0.5000, "),
    ],
)
def test_the_verdict_on_two_runs(difference, said):
    [sentence] = verdict(study([0.5, 0.5 + difference[0]], [difference]))
    assert sentence.startswith(said)
    of, low, high, p = difference
    assert sentence.endswith(f"a difference of {of:+.4f} (95% interval {low:+.4f} to {high:+.4f}, p {p:.4f}).")


def test_the_verdict_on_many_runs():
    pairs = [(0.2, 0.1, 0.3, 0.003), (0.15, 0.0, 0.3, 0.4), (-0.05, -0.1, 0.0, 0.4)]
    assert verdict(study([0.5, 0.7, 0.65], pairs)) == [
        "b has the highest nDCG@10 of 3 runs, 0.7000: significantly better than a (+0.2000, p 0.0030 after Holm);"
        " no significant difference from c (+0.0500, p 0.4000 after Holm)."
    ]
    [sentence] = verdict(study([0.9, 0.5, 0.5, 0.5, 0.5], [(-0.4, -0.5, -0.3, 1e-5)] * 10))
    assert sentence == "a has the highest nDCG@10 of 5 runs, 0.9000: significantly better than 4 other runs."


def test_with_labels_the_measure_of_the_whole_set_is_judged_too():
    both = study([0.5, 0.6], [(0.1, 0.04, 0.16, 0.001)], measure="accuracy")
    for run, mean in zip(both.runs, (0.5, 0.4), strict=True):
        run.intervals["macro-F1"] = Interval(mean, mean, mean)
    worse = Comparison(-0.1, -0.2, -0.05, 0.001, 0, 1, 1)
    both.pairs.append(replace(both.pairs[0], measure="macro-F1", comparison=worse))
    said = verdict(both)
    assert said[0].startswith("b is significantly better than a: accuracy 0.6000 against 0.5000")
    assert said[1].startswith("b is significantly worse than a: macro-F1 0.4000 against 0.5000")


@pytest.mark.parametrize("seed", range(4))
def test_the_confusion_matrix_equals_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    names = [f"类 {i}" for i in range(6)]
    truth = rng.choice(names, 200, p=np.array([8, 5, 3, 2, 1, 1]) / 20).tolist()
    cast = vote(truth, [[str(rng.choice(names)) for _ in range(3)] for _ in truth])
    found = confusion(cast)
    voted = [cast.classes[one] for one in cast.predicted]
    support = {name: truth.count(name) for name in names}
    assert list(found.gold) == sorted(support, key=lambda name: (-support[name], name)) == list(found.predicted)
    np.testing.assert_array_equal(found.counts, metrics.confusion_matrix(truth, voted, labels=list(found.gold)))
    np.testing.assert_array_equal(found.right, np.eye(6, dtype=bool))
    few = confusion(cast, most=2)
    theirs = [[name if name in few.gold[:2] else "4 others" for name in labels] for labels in (truth, voted)]
    np.testing.assert_array_equal(few.counts, metrics.confusion_matrix(*theirs, labels=[*few.gold[:2], "4 others"]))
    assert few.gold == few.predicted and few.right.diagonal().tolist() == [True, True, False]


def test_classes_that_only_seeds_have_and_queries_without_seeds():
    found = confusion(vote(["a", "a", "b", "no seeds"], [["a"], ["z"], [], ["no seeds"]]))
    assert found.gold == ("a", "b", "no seeds")
    assert found.predicted == ("a", "no seeds", "z", "no seeds")
    assert found.counts.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    assert found.right.tolist() == [[True, False, False, False], [False] * 4, [False, True, False, False]]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_axes_have_a_few_round_numbers(low, length):
    found = ticks(low, low + length) if low + length > low else [(0, "0"), (1, "1")]
    values = [value for value, _ in found]
    assert 2 <= len(found) <= 9 and len({said for _, said in found}) == len(found)
    slack = length / 1e6 + 2 * math.ulp(abs(low) + length)
    assert all(low - slack <= value <= low + length + slack for value in values)
    assert all(float(said) == pytest.approx(value, abs=length / 1e3) for value, said in found)


def test_axes_by_hand():
    assert [said for _, said in ticks(0, 1)] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [said for _, said in ticks(0.8152, 0.9408)] == ["0.82", "0.84", "0.86", "0.88", "0.90", "0.92", "0.94"]
    assert [said for _, said in ticks(0, 3, whole=True)] == ["0", "1", "2", "3"]


def test_the_page_says_when_how_and_with_what_it_was_made(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    page = report.as_html(study([0.5]), title="<a> & b", made_by="evaluate 'x y' > z")
    assert "<dd>1970-01-01</dd>" in page and "<code>evaluate &#x27;x y&#x27; &gt; z</code>" in page
    assert "<h1>&lt;a&gt; &amp; b</h1>" in page and "ecom_rag " in page and "numpy " in page
    assert "http" not in page and "url(" not in page and "@import" not in page
