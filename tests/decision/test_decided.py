"""A decided record: what is read of it, and what is no decision."""

import pytest

from ecom_rag.decision.decided import decided as read
from helpers.decided import decided


def test_what_is_read():
    own = read(decided(1, probabilities={"spam": 0.1, "fraud": 0.8}, campaign="c", chosen="audit"))
    assert (own.action, own.label, own.threshold, own.campaign) == ("label", "fraud", 0.91, "c")
    assert own.probabilities == (0.8, 0.1) and own.chosen_by == "audit"


def test_an_innocent_or_a_review_needs_no_label_or_probabilities():
    for action in ("innocent", "review"):
        record = decided(1, action=action)
        del record["decision"]["probabilities"]
        own = read(record)
        assert own.label is None and own.threshold is None and own.probabilities == () and own.chosen_by is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"action": "block"}, "\"decision.action\" is 'block'; expected label, innocent or review"),
        ({"campaign": None}, '"decision.campaign" is None; expected'),
        ({"label": None}, '"decision.label" is missing'),
        ({"label": ["a"]}, '"decision.label" is a list of 1'),
        ({"threshold": "high"}, "\"decision.threshold\" is 'high'; expected a number from 0 to 1"),
        ({"probabilities": [0.9]}, '"decision.probabilities" is [0.9]; expected an object'),
        ({"probabilities": {"fraud": 1.5}}, '"decision.probabilities.fraud" is 1.5; expected a number from 0 to 1'),
    ],
)
def test_what_is_no_decision(change, said):
    record = decided(1)
    record["decision"] |= change
    with pytest.raises(ValueError) as told:
        read(record)
    assert said in str(told.value)


@pytest.mark.parametrize(("found", "said"), [({}, "is missing"), ({"decision": 1}, "is 1, not an object")])
def test_a_record_that_was_not_decided(found, said):
    with pytest.raises(ValueError, match=f'"decision" {said}; expected a record that ecom-rag decide wrote'):
        read({"text": "a", "metadata": {}} | found)
