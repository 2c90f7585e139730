"""The flood guard: how many automatic decisions of a campaign pass before a person looks, and after."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.decision.floods import FloodGuard
from ecom_rag.errors import UsageError
from helpers.campaigns import variations


def guard(**settings):
    return FloodGuard(**{"capacity": 2000} | settings)


def flood(count=300, length=60, edits=2):
    """One text with up to ``edits`` of its characters changed."""
    return variations(count, templates=1, length=length, edits=edits, seed=0)


def admit(one, texts, labels="spam", automatic=True):
    many = len(texts)
    labels = [labels] * many if isinstance(labels, str) else labels
    return one.admit(texts, labels, np.broadcast_to(automatic, many))


@pytest.mark.parametrize(("length", "edits"), [(26, 1), (60, 2), (80, 3)])
def test_a_flood_is_stopped_until_a_person_has_looked(length, edits):
    texts, one = flood(length=length, edits=edits), guard()
    first = admit(one, texts)
    assert len(set(first.campaigns)) == 1
    assert np.flatnonzero(~first.flooded).tolist() == list(range(10))
    assert one.looked([texts[150]], ["spam"]) == [first.campaigns[0]]
    assert not admit(one, texts).flooded.any()


def test_a_person_who_disagrees_stops_all_of_them():
    texts, one = flood(), guard()
    admit(one, texts[:20])
    one.looked([texts[12]], ["innocent"])
    after = admit(one, texts[20:22], ["spam", "innocent"])
    assert after.flooded.tolist() == [True, False]
    one.looked([texts[13]], ["spam"])  # the person has thought again
    assert admit(one, texts[22:24], ["spam", "innocent"]).flooded.tolist() == [False, True]


def test_a_campaign_with_two_labels_goes_to_review():
    texts, one = flood(), guard()
    one.looked(texts[:3], ["spam", "innocent", "spam"])
    assert admit(one, texts[3:5], ["spam", "innocent"]).flooded.all()


def test_labels_are_compared_as_labels():
    one = guard(limit=0)
    one.looked(["a text", "another one"], [1, " spam "])
    assert not admit(one, ["a text", "a text", "another one"], ["1", 1.0, "spam"]).flooded.any()
    assert admit(one, ["never seen"]).flooded.all()


def test_only_automatic_decisions_count():
    texts, one = flood(60), guard(limit=3)
    automatic = np.arange(60) % 4 == 0
    flooded = admit(one, texts, automatic=automatic).flooded
    assert np.flatnonzero(flooded).tolist() == list(range(12, 60, 4))


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_cuts_do_not_matter(data):
    texts = variations(120, templates=5, length=60, edits=2, seed=data.draw(st.integers(0, 30)))
    automatic = np.array(data.draw(st.lists(st.booleans(), min_size=120, max_size=120)))
    labels = data.draw(st.lists(st.sampled_from(["spam", "innocent"]), min_size=120, max_size=120))
    cuts = sorted(data.draw(st.lists(st.integers(0, 120), max_size=6)))
    arguments = {"limit": data.draw(st.integers(0, 5)), "capacity": data.draw(st.sampled_from([1, 3, 40, 1000]))}
    looks = data.draw(st.lists(st.integers(0, 119), max_size=3))
    whole, cut = guard(**arguments), guard(**arguments)
    for one in (whole, cut):
        one.looked([texts[place] for place in looks], [labels[place] for place in looks])
    expected = whole.admit(texts, labels, automatic)
    parts = [
        cut.admit(texts[start:end], labels[start:end], automatic[start:end])
        for start, end in zip([0, *cuts], [*cuts, 120], strict=True)
    ]
    assert [name for part in parts for name in part.campaigns] == expected.campaigns
    assert np.concatenate([part.flooded for part in parts]).tolist() == expected.flooded.tolist()


def test_counts_are_bounded():
    texts, one = variations(500, templates=500, length=20, edits=0, seed=1), guard(capacity=100, limit=2)
    kept = texts[0]
    for start in range(0, 500, 50):
        flooded = admit(one, [*texts[start : start + 50], kept]).flooded
    assert len(one.counts) == 100 and flooded[-1]


def test_arguments_that_do_not_fit():
    with pytest.raises(UsageError, match="2 texts, 1 labels and 2 values of `automatic`; expected as many"):
        guard().admit(["a", "b"], ["spam"], np.ones(2, bool))
    with pytest.raises(UsageError, match="1 texts that a person looked at, and 2 labels"):
        guard().looked(["a"], ["x", "y"])
    with pytest.raises(UsageError, match="look 2 has no label; expected the label that the person gave"):
        guard().looked(["a", "b"], ["x", None])
    with pytest.raises(UsageError, match=r"the label of look 1 is a list of 1; expected one label"):
        guard().looked(["a"], [["x"]])
    with pytest.raises(UsageError, match="`limit` is -1; expected at least 0"):
        guard(limit=-1)
