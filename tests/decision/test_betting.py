"""The e-process: by hand, as a martingale at the limit, and as an alarm that comes soon and seldom for nothing."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_rag.decision.betting import alarm_after, log_wealth
from ecom_rag.errors import UsageError


def test_three_decisions_by_hand():
    """Error, right, error against 5 %: likelihood ratios of 7.5, 10 and 15 %, and of the estimates before each."""
    fixed = sum((rate / 0.05) ** 2 * (1 - rate) / 0.95 for rate in (0.075, 0.1, 0.15)) / 3
    first, second, third = 0.05, (1 + 2.5) / 51, (1 + 2.5) / 52  # 50 decisions at the limit, then those that were seen
    estimated = (first / 0.05) * (1 - second) / 0.95 * (third / 0.05)
    assert fixed == pytest.approx(4.677632, abs=1e-6) and estimated == pytest.approx(1.319759, abs=1e-6)
    assert math.exp(log_wealth([True, False, True], 0.05)[-1]) == pytest.approx((fixed + estimated) / 2, rel=1e-12)


def slow(errors, limit):
    """One decision after the other, with bets as in the paper: a factor of 1 + bet * (error - limit)."""
    accounts = [1 / 6, 1 / 6, 1 / 6, 1 / 2]
    path = []
    for place, error in enumerate(errors):
        last = errors[max(0, place - 200) : place]
        estimate = (sum(last) + 50 * limit) / (len(last) + 50)
        rates = [min(times * limit, (1 + limit) / 2) for times in (1.5, 2, 3)] + [max(estimate, limit)]
        bets = [(rate - limit) / (limit * (1 - limit)) for rate in rates]
        assert all(0 <= bet < 1 / limit for bet in bets)
        accounts = [own * (1 + bet * (error - limit)) for own, bet in zip(accounts, bets, strict=True)]
        path.append(math.log(sum(accounts)))
    return path


@given(st.lists(st.booleans(), min_size=1, max_size=400), st.sampled_from([0.01, 0.05, 0.3, 0.7]))
def test_it_is_the_product_of_the_papers_bets(errors, limit):
    assert log_wealth(errors, limit) == pytest.approx(slow(errors, limit), abs=1e-9)


@pytest.mark.parametrize("limit", [0.05, 0.2, 0.6])
def test_wealth_is_a_martingale_at_the_limit_and_loses_below(limit):
    """Over all outcomes of ten decisions, exactly."""
    outcomes = np.array(list(itertools.product([False, True], repeat=10)))
    wealth = np.array([np.exp(log_wealth(one, limit)) for one in outcomes])  # (1024, 10)
    for rate, expected in ((limit, 1.0), (limit / 2, None)):
        chance = np.prod(np.where(outcomes, rate, 1 - rate), axis=1)
        means = chance @ wealth
        if expected is None:
            assert (np.diff(means) < 0).all() and means[0] < 1
        else:
            assert means == pytest.approx(np.ones(10), abs=1e-12)


def test_each_decision_leaves_the_expectation_as_it_is():
    """Given any past: the mean over an error and a right decision is the wealth before."""
    random = np.random.default_rng(0)
    for limit in (0.02, 0.1):
        past = random.random(300) < 0.3
        before = math.exp(log_wealth(past, limit)[-1])
        error, right = (math.exp(log_wealth([*past, last], limit)[-1]) for last in (True, False))
        assert limit * error + (1 - limit) * right == pytest.approx(before, rel=1e-9)


def test_the_alarm_comes_soon_and_seldom_for_nothing():
    """10 % of errors against 5 %: within 450 decisions in 90 % of runs; at exactly 5 % in at most 5 % of runs."""
    random = np.random.default_rng(0)
    bad = [alarm_after(log_wealth(run, 0.05), 0.05) for run in random.random((600, 450)) < 0.10]
    good = [alarm_after(log_wealth(run, 0.05), 0.05) for run in random.random((1000, 2000)) < 0.05]
    late = [
        alarm_after(log_wealth(run, 0.05), 0.05)
        for run in np.concatenate([np.zeros((300, 3000), bool), random.random((300, 600)) < 0.10], 1)
    ]
    assert np.mean([one is not None for one in bad]) >= 0.9
    assert np.mean([one is not None for one in good]) <= 0.05
    assert np.mean([one is not None for one in late]) >= 0.9  # 3,000 right decisions do not hide what comes after


@given(st.lists(st.booleans(), max_size=60), st.sampled_from([0.5, 0.2, 0.05]))
def test_the_alarm_is_where_the_wealth_first_reaches_its_line(errors, alpha):
    wealth = log_wealth(errors, 0.1)
    after = alarm_after(wealth, alpha)
    reached = [place for place, value in enumerate(np.exp(wealth).tolist(), start=1) if value >= 1 / alpha]
    assert after == (reached[0] if reached else None)


def test_only_the_past_counts():
    errors = np.random.default_rng(1).random(300) < 0.1
    assert log_wealth(errors[:120], 0.05) == pytest.approx(log_wealth(errors, 0.05)[:120])
    assert len(log_wealth([], 0.05)) == 0 and alarm_after(log_wealth([], 0.05), 0.05) is None


def test_nothing_overflows():
    wealth = log_wealth(np.ones(100_000, bool), 0.001)
    assert np.isfinite(wealth).all() and wealth[-1] > 1000


@pytest.mark.parametrize("limit", [0, 1, -0.1, float("nan"), "0.05", True])
def test_a_limit_out_of_range(limit):
    with pytest.raises(UsageError, match=r"`limit` is .*; expected a number above 0, below 1"):
        log_wealth([True], limit)
