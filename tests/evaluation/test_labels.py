"""Votes by hand; figures of classes equal scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from ecom_rag.evaluation.labels import (
    class_figures,
    compare_macro_f1,
    macro_f1,
    macro_f1_interval,
    paired_macro_f1,
    pr_curve,
    vote,
)

pytestmark = pytest.mark.reference


def votes_of(seed, count=120, classes=5, k=7):
    rng = np.random.default_rng(seed)
    names = [f"class {i}" for i in range(classes)]
    weights = 1 / np.arange(1, classes + 1) ** 1.5
    truth = rng.choice(names, count, p=weights / weights.sum()).tolist()
    found = [[own if rng.random() < 0.45 else str(rng.choice(names)) for _ in range(k)] for own in truth]
    return truth, found


def test_vote_by_hand():
    votes = vote(["a", "b", "b", "c"], [["b", "a", "a"], ["a", "b"], ["b", "a", "a", "b"], []])
    assert votes.classes == ("a", "b", "c")
    assert votes.predicted.tolist() == [0, 0, 1, -1]  # a tie goes to the nearest one's class
    assert votes.correct.tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(votes.shares, [[2 / 3, 1 / 3, 0], [0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]])
    nearest = vote(["a", "b"], [["b", "a", "a"], ["a", "b"]], k=1)
    assert nearest.predicted.tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_scikit_learn(seed):
    truth, found = votes_of(seed)
    votes = vote(truth, found)
    predicted = [votes.classes[index] for index in votes.predicted]
    assert votes.correct.mean() == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert macro_f1(votes) == pytest.approx(metrics.f1_score(truth, predicted, average="macro", zero_division=0))
    ours = {one.label: one for one in class_figures(votes, fixed_precision=0.8)}
    theirs = metrics.classification_report(truth, predicted, output_dict=True, zero_division=0)
    for index, label in enumerate(votes.classes):
        if label not in truth:
            continue
        one, row = ours[label], theirs[label]
        assert (one.precision, one.recall, one.f1, one.support) == pytest.approx(
            (row["precision"], row["recall"], row["f1-score"], row["support"])
        )
        positive, share = np.array(truth) == label, votes.shares[:, index]
        assert one.average_precision == pytest.approx(metrics.average_precision_score(positive, share))
        precision, recall, _ = metrics.precision_recall_curve(positive, share)
        assert one.recall_at_precision == pytest.approx(max(recall[precision >= 0.8]))


def test_pr_curve_by_hand():
    curve = pr_curve(np.array([True, False, True, False]), np.array([0.9, 0.5, 0.5, 0.1]))
    assert curve.thresholds.tolist() == [0.9, 0.5, 0.1]
    np.testing.assert_allclose(curve.precision, [1, 2 / 3, 0.5])
    np.testing.assert_allclose(curve.recall, [0.5, 1, 1])
    assert curve.average_precision == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert (curve.recall_at(1), curve.recall_at(0.6), curve.recall_at(0.99)) == (0.5, 1, 0.5)
    assert pr_curve(np.array([False, True]), np.array([0.9, 0.5])).recall_at(0.9) == 0


def test_a_class_without_queries_of_its_own():
    figures = class_figures(vote(["a", "a"], [["a"], ["z"]]))
    assert [(one.label, one.support, one.predicted, one.recall) for one in figures] == [
        ("a", 2, 1, 0.5),
        ("z", 0, 1, 0),
    ]
    assert np.isnan(figures[1].average_precision)


def test_interval_equals_a_slow_bootstrap():
    from ecom_rag.judging.significance import draws

    truth, found = votes_of(7, count=60)
    votes = vote(truth, found)
    slow = []
    predicted = np.array(votes.classes)[votes.predicted]
    for block in draws(60, 300, 4):
        for chosen in block:
            slow.append(metrics.f1_score(np.array(truth)[chosen], predicted[chosen], average="macro", zero_division=0))
    ours = macro_f1_interval(votes, resamples=300, seed=4)
    assert (ours.low, ours.high) == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])))


def test_compare_macro_f1():
    truth, found = votes_of(8, count=300)
    better = [[own, own, own, *rest[3:]] for own, rest in zip(truth, found, strict=True)]
    first, second = vote(truth, found), vote(truth, better)
    compared = compare_macro_f1(first, second, resamples=500)
    assert compared.difference == pytest.approx(macro_f1(second) - macro_f1(first))
    assert compared.low > 0 and compared.p == pytest.approx(1 / 501) and compared.better > compared.worse
    same = compare_macro_f1(first, first, resamples=200)
    assert same.p == 1 and same.difference == 0
    other = compare_macro_f1(vote(["a", "b"], [["a"], ["x"]]), vote(["a", "b"], [["y"], ["b"]]), resamples=50)
    assert other.difference == 0 and (other.better, other.worse) == (1, 1)


def test_many_couples_are_each_compared_as_if_alone():
    """Runs that vote for different classes too."""
    truth, _ = votes_of(0, count=40)
    runs = [vote(truth, votes_of(seed, count=40, classes=3 + seed)[1]) for seed in range(3)]
    couples = [(0, 1), (0, 2), (1, 2), (2, 1)]
    for (i, j), one in zip(couples, paired_macro_f1(runs, couples, resamples=150, seed=2), strict=True):
        alone = compare_macro_f1(runs[i], runs[j], resamples=150, seed=2)
        assert (one.difference, one.low, one.high) == pytest.approx(
            (alone.difference, alone.low, alone.high), abs=1e-12
        )
        assert (one.p, one.better, one.worse, one.equal) == (alone.p, alone.better, alone.worse, alone.equal)


def test_swapping_is_the_null():
    """Two runs of the same quality: p is spread over 0..1."""
    ps = []
    for seed in range(40):
        truth, one = votes_of(seed, count=80)
        rng = np.random.default_rng(seed + 1000)
        another = [[own if rng.random() < 0.45 else str(rng.choice(truth)) for _ in range(7)] for own in truth]
        shuffled = [pair if rng.random() < 0.5 else pair[::-1] for pair in zip(one, another, strict=True)]
        first, second = (vote(truth, [pair[side] for pair in shuffled]) for side in (0, 1))
        ps.append(compare_macro_f1(first, second, resamples=200, seed=seed).p)
    assert 0.3 < np.mean(ps) < 0.7
