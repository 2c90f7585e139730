"""Thresholds and their proof: against scipy, by hand, and in draws of campaigns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from ecom_rag.decision.guarantee import (
    Candidate,
    Step,
    _errors_allowed,
    campaigns_needed,
    certify,
    flag_threshold,
    lower_bound,
    p_value,
    passing,
    thresholds_of,
    within_reach,
)
from ecom_rag.decision.rules import nearest


def sequence(*thresholds, errors=0.0):
    """Candidates that are all as likely to pass, so that the strictest comes first."""
    return [Candidate(one, errors) for one in thresholds]


@given(st.integers(0, 400), st.floats(0, 1), st.floats(0.001, 0.999))
def test_p_values_are_those_of_scipy_to_the_last_digit(campaigns, share, rate):
    errors = int(share * campaigns)
    expected = float(binom.cdf(errors, campaigns, rate)) if campaigns else 1.0
    assert p_value(errors, campaigns, rate) == expected


@pytest.mark.parametrize(
    ("precision", "delta", "needed"), [(0.95, 0.1, 45), (0.95, 0.05, 59), (0.90, 0.1, 22)], ids=str
)
def test_the_campaigns_that_a_class_needs_are_those_of_the_books(precision, delta, needed):
    rate = 1 - precision
    assert campaigns_needed(0, rate, delta) == needed
    assert (1 - rate) ** needed <= delta < (1 - rate) ** (needed - 1)


@given(st.integers(0, 30), st.sampled_from([0.02, 0.05, 0.1]), st.sampled_from([0.05, 0.1]))
def test_one_campaign_fewer_than_needed_does_not_pass(errors, rate, delta):
    needed = campaigns_needed(errors, rate, delta)
    assert p_value(errors, needed, rate) <= delta < p_value(errors, needed - 1, rate)


@given(st.integers(0, 50), st.integers(0, 200), st.sampled_from([0.05, 0.1]))
def test_the_bound_is_the_precision_at_which_the_tail_is_delta(errors, more, delta):
    campaigns = errors + more
    found = lower_bound(errors, campaigns, delta)
    if more == 0:
        assert found == 0
        return
    assert found == pytest.approx(beta.ppf(delta, more, errors + 1))
    assert binom.cdf(errors, campaigns, 1 - found) == pytest.approx(delta, rel=1e-6)


def test_a_sequence_stops_at_the_first_threshold_that_fails_and_takes_the_last_that_passed():
    probabilities = np.concatenate([np.full(60, 0.9), np.full(20, 0.8), np.full(20, 0.7), np.full(300, 0.6)])
    wrong = np.zeros(400, np.bool_)
    wrong[80:90] = True  # ten of the twenty at 0.7
    chosen, steps = certify(sequence(0.9, 0.8, 0.7, 0.6), probabilities, wrong, target=0.95, delta=0.1)
    assert [(step.campaigns, step.errors) for step in steps] == [(60, 0), (80, 0), (100, 10), (400, 10)]
    assert steps[3].p <= 0.1  # it would pass, but one before it does not
    assert chosen == 1


def test_a_threshold_that_too_few_pass_is_left_out_whatever_is_right():
    probabilities = np.concatenate([np.full(10, 0.9), np.full(50, 0.5)])
    wrong = np.zeros(60, np.bool_)
    assert certify(sequence(0.9, 0.5), probabilities, wrong, target=0.95, delta=0.1)[0] == 1
    wrong[0] = True  # among the ten: they alone could not have passed in any case
    chosen, steps = certify(sequence(0.9, 0.5), probabilities, wrong, target=0.95, delta=0.1)
    assert (steps[1].campaigns, steps[1].errors, chosen) == (60, 1, None)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), min_size=1, max_size=5))
def test_the_campaigns_that_are_said_to_be_missing_give_a_threshold(added):
    """Each further threshold passes so many more campaigns, so many of them wrong."""
    counts = np.cumsum([(right + wrong, wrong) for right, wrong in added], axis=0).tolist()

    def steps(more=0, first=0):
        further = [more if place >= first else 0 for place in range(len(counts))]
        return [
            Step(1.0 - place / 10, count + one, errors, p_value(errors, count + one, 0.05))
            for place, ((count, errors), one) in enumerate(zip(counts, further, strict=True))
        ]

    rule = {"target": 0.95, "delta": 0.1}
    if passing(steps(), **rule):
        return
    near = [one for one in within_reach(steps(), **rule) if one.errors <= 0.05 * one.campaigns]
    if near:
        step, missing = nearest(near, **rule)
        first = round((1.0 - step.threshold) * 10)
        assert passing(steps(missing, first), **rule)
        assert missing == 1 or not passing(steps(missing - 1, first), **rule)


def test_what_lies_behind_a_threshold_that_fails_is_not_within_reach():
    steps = [Step(0.9, 10, 0, 0.6), Step(0.8, 60, 3, 0.65), Step(0.7, 200, 3, 0.01)]
    assert passing(steps, target=0.95, delta=0.1) == set()
    assert within_reach(steps, target=0.95, delta=0.1) == steps[:2]
    assert within_reach(steps[2:], target=0.95, delta=0.1) == []
    assert nearest(steps[:2], 0.95, 0.1) == (steps[0], 35)


def test_no_class_has_a_threshold_that_cannot_have_one():
    few = np.full(44, 0.99)
    assert certify(sequence(0.9), few, np.zeros(44, np.bool_), target=0.95, delta=0.1)[0] is None
    assert certify((), np.empty(0), np.empty(0, np.bool_), target=0.95, delta=0.1) == (None, [])


def test_a_promise_is_broken_in_at_most_delta_of_draws():
    """Scores that tell little, at the edge: each threshold's true precision is known, and below the target."""
    random = np.random.default_rng(0)
    thresholds = sequence(0.95, 0.8, 0.6, 0.3, errors=0.05)
    broken = 0
    for _ in range(1000):
        probabilities = random.uniform(0.3, 1, 200)
        wrong = random.uniform(size=200) < np.where(probabilities > 0.95, 0.02, 0.07)
        chosen, _ = certify(thresholds, probabilities, wrong, target=0.95, delta=0.1)
        broken += chosen is not None and chosen > 0  # from 0.8 on the error rate is above 5 %
    assert broken <= 0.1 * 1000


def test_thresholds_pass_the_shares_of_the_seeds_that_they_are_made_for():
    probabilities = np.round(np.linspace(0.01, 1, 100), 6)
    wrong = np.arange(100) < 10
    found = thresholds_of(probabilities, wrong, (0.6, 0.8, 1.0))
    assert [(probabilities >= one.threshold).sum() for one in found] == [60, 80, 100]
    assert [one.errors for one in found] == [0.5 / 61, 0.5 / 81, 10.5 / 101]
    assert thresholds_of(np.array([0.5, 0.5]), np.array([False, True])) == (Candidate(0.5, 0.5),)


def test_what_is_most_likely_to_pass_is_tested_first():
    """Of 60 campaigns no error may be, of 80 one: with an error among the first the stricter one fails, and is last."""
    probabilities = np.concatenate([np.full(60, 0.9), np.full(20, 0.8)])
    wrong = np.zeros(80, np.bool_)
    wrong[0] = True
    candidates = [Candidate(0.9, 0.02), Candidate(0.8, 0.02)]
    chosen, steps = certify(candidates, probabilities, wrong, target=0.95, delta=0.1)
    assert [step.p <= 0.1 for step in steps] == [False, True]
    assert chosen == 1
    assert certify(sequence(0.9, 0.8), probabilities, wrong, target=0.95, delta=0.1)[0] is None


@given(st.integers(0, 300), st.sampled_from([0.02, 0.05, 0.1]), st.sampled_from([0.05, 0.1]))
def test_the_errors_allowed_are_the_most_that_pass(campaigns, rate, delta):
    most = _errors_allowed(campaigns, rate, delta)
    assert most < 0 or p_value(most, campaigns, rate) <= delta
    assert p_value(most + 1, campaigns, rate) > delta


@given(st.integers(1, 400), st.sampled_from([0.02, 0.05]), st.integers(0, 5))
def test_a_flag_threshold_is_the_lowest_that_so_few_innocents_pass(count, rate, seed):
    scores = np.random.default_rng(seed).integers(0, 1000, count) / 1000
    found = flag_threshold(scores, rate=rate, delta=0.1)
    allowed = [errors for errors in range(count) if binom.cdf(errors, count, rate) <= 0.1]
    if not allowed:
        assert found is None
        return
    assert (scores >= found).sum() <= max(allowed)
    assert (scores >= found - 1e-6).sum() > max(allowed)


def test_false_positives_exceed_their_rate_in_at_most_delta_of_draws():
    random = np.random.default_rng(1)
    found = [flag_threshold(random.uniform(size=300).round(6), rate=0.05, delta=0.1) for _ in range(2000)]
    assert np.mean([one < 0.95 for one in found]) <= 0.1 + 0.02
