"""Intervals and tests against full enumeration, scipy and known cases."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ecom_rag.judging.significance import bootstrap, compare, holm, intervals, paired, randomisation


def test_randomisation_equals_full_enumeration():
    rng = np.random.default_rng(0)
    difference = np.append(rng.normal(0.2, 0.5, 11), [0.0, 0.0])
    sums = [abs(np.dot(signs, difference[:11])) for signs in itertools.product((-1, 1), repeat=11)]
    exact = np.mean(np.array(sums) >= abs(difference.sum()) - 1e-12)
    assert randomisation(difference, resamples=40_000, seed=1) == pytest.approx(exact, abs=0.01)


def test_bootstrap_agrees_with_scipy_and_covers():
    rng = np.random.default_rng(1)
    values = rng.random(200)
    ours = bootstrap(values, seed=3)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", random_state=0).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)
    assert ours.mean == pytest.approx(values.mean())
    covered = [
        interval.low <= 0.5 <= interval.high
        for interval in (bootstrap(rng.random(80), resamples=400, seed=i) for i in range(200))
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_compare_is_paired_and_says_which_way():
    rng = np.random.default_rng(2)
    hard = rng.random(150)  # queries differ far more than the runs do
    found = compare(hard, hard + 0.02 + rng.normal(0, 0.02, 150))
    assert found.difference == pytest.approx(0.02, abs=0.006)
    assert 0 < found.low < found.difference < found.high and found.p < 0.001
    turned = compare(hard + 0.02, hard)
    assert turned.difference == pytest.approx(-0.02) and turned.worse == 150
    same = compare(hard, hard)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert (same.better, same.worse, same.equal) == (0, 0, 150)
    one = compare(np.array([0.0]), np.array([1.0]))
    assert one.p == 1  # one query proves nothing


def test_same_seed_same_figures_and_p_is_never_0():
    values = np.arange(40) / 40
    assert compare(values, values + 1, seed=5) == compare(values, values + 1, seed=5)
    assert compare(values, values + 1, resamples=999).p == pytest.approx(1 / 1000)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(1, 3), st.integers(0, 100))
def test_many_couples_are_each_compared_as_if_alone(queries, count, measures, seed):
    rng = np.random.default_rng(seed)
    runs = [np.round(rng.random((queries, measures)), 1) for _ in range(count)]
    runs.append(runs[0].copy())
    couples = list(itertools.combinations(range(len(runs)), 2))
    for (i, j), found in zip(couples, paired(runs, couples, resamples=200, seed=seed), strict=True):
        for measure, one in enumerate(found):
            difference = runs[j][:, measure] - runs[i][:, measure]
            alone = bootstrap(difference, resamples=200, seed=seed)
            assert (one.difference, one.low, one.high) == pytest.approx((alone.mean, alone.low, alone.high), abs=1e-12)
            assert one.p == randomisation(difference, resamples=200, seed=seed)
            assert one.better + one.worse + one.equal == queries
            if (i, j) == (0, count):
                assert (one.difference, one.low, one.high, one.p) == (0, 0, 0, 1)


def test_the_figures_of_a_run_do_not_depend_on_its_neighbours():
    rng = np.random.default_rng(4)
    values = rng.random((50, 6))
    for column, one in enumerate(intervals(values, resamples=300)):
        alone = bootstrap(values[:, column], resamples=300)
        assert (one.mean, one.low, one.high) == pytest.approx((alone.mean, alone.low, alone.high), abs=1e-12)


def test_chance_differences_are_found_significant_as_often_as_they_should():
    rng = np.random.default_rng(3)
    ps = [randomisation(rng.normal(0, 1, 30), resamples=400, seed=i) for i in range(300)]
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.09


def test_holm_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
