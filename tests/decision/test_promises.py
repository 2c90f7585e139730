"""The promises of a policy file, and one clear line where there is none."""

import pytest

from ecom_rag.decision.promises import Promise, promises_of
from ecom_rag.errors import PolicyError, UsageError
from helpers.decided import policy_file


def test_classes_with_a_threshold_and_nothing_else(tmp_path):
    found = promises_of(policy_file(tmp_path / "policy.json"))
    assert found == (Promise("fraud", 0.95, 0.91), Promise("spam", 0.9, 0.8))


def test_no_promise_and_no_policy(tmp_path):
    path = tmp_path / "policy.json"
    with pytest.raises(UsageError, match="no class has a threshold"):
        promises_of(policy_file(path, a=(0.95, None)))
    path.write_text(path.read_text().replace('"threshold": null', '"threshold": 0.5'))
    with pytest.raises(PolicyError, match="was changed after it was made"):
        promises_of(path)
    with pytest.raises(UsageError, match="no such file"):
        promises_of(tmp_path / "none.json")
