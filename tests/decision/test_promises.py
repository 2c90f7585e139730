"""The promises of a policy file, and one clear line where it is none."""

import json

import pytest

from ecom_rag.decision.promises import Promise, promises_of
from ecom_rag.errors import UsageError
from helpers.decided import POLICY, policy_file


def test_classes_with_a_threshold_and_nothing_else(tmp_path):
    found = promises_of(policy_file(tmp_path / "policy.json"))
    assert found == (Promise("fraud", 0.95, 0.91), Promise("spam", 0.9, 0.8))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", '"kind" is None; expected'),
        (json.dumps(POLICY | {"kind": "ecom_rag fusion"}), "\"kind\" is 'ecom_rag fusion'; expected 'ecom_rag policy'"),
        (json.dumps(POLICY | {"classes": []}), '"classes" is []; expected an object'),
        (json.dumps(POLICY | {"classes": {"a": 1}}), 'class "a" is 1; expected an object'),
        (
            json.dumps(POLICY | {"classes": {"a": {"threshold": 2, "target": 0.9}}}),
            'class "a": threshold is 2; expected',
        ),
        (
            json.dumps(POLICY | {"classes": {"a": {"threshold": 0.9}}}),
            'class "a": target is None; expected a precision',
        ),
        (json.dumps(POLICY | {"classes": {"a": {"threshold": 0.9, "target": 1}}}), "target is 1; expected a precision"),
        (json.dumps(POLICY | {"classes": {"a": {"threshold": None}}}), "no class has a threshold"),
    ],
)
def test_what_is_no_policy_is_told_in_one_line(tmp_path, content, said):
    path = tmp_path / "policy.json"
    path.write_text(content)
    with pytest.raises(UsageError) as told:
        promises_of(path)
    assert said in str(told.value) and str(told.value).startswith(str(path)) and "\n" not in str(told.value)


def test_no_such_file_and_a_folder(tmp_path):
    with pytest.raises(UsageError, match="no such file; name a policy"):
        promises_of(tmp_path / "none.json")
    with pytest.raises(UsageError, match="directory; name a policy"):
        promises_of(tmp_path)
