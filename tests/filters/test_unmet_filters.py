"""A filter that no seed meets and a key that no seed has are said; a filter removes most of a bank only on purpose."""

import json
import logging
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecom_rag.cli import main
from ecom_rag.errors import UsageError
from ecom_rag.files import records
from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import matches
from ecom_rag.filters.unmet import spelled
from ecom_rag.pipeline import Pipeline, Recall, Seeds
from ecom_rag.seeds.bank import BankSettings, create

SEEDS = [
    {"text": f"茶 {i}", "metadata": {"id": f"s{i}", "label": "ab"[i % 2], "level": str(i), "seller": {"vip": i > 3}}}
    for i in range(8)
]
KEYS = ["label", "lable", "level", "seller.vip", "seller.vpi", "id", '"a b"']
VALUES = st.sampled_from(['"a"', '"zz"', "3", "true", "null"])
LEAVES = st.builds("{} {} {}".format, st.sampled_from(KEYS), st.sampled_from(["=", "!="]), VALUES) | st.sampled_from(
    KEYS
).map("exists({})".format)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner) | inner.map("not {}".format)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    made = create(tmp_path_factory.mktemp("bank") / "bank", BankSettings(routes=["bm25"]))
    made.upsert([*SEEDS, {"text": "gone", "metadata": {"id": "x", "label": "zz", "lable": "a"}}])
    made.delete(["x"])
    return made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILTERS)
def test_what_is_wrong_with_a_filter_is_said_alike_for_a_file_and_a_bank(bank, source):
    notes = Seeds(SEEDS, routes=["bm25"]).filter_notes(source)
    assert bank.filter_notes(source) == notes
    met = any(matches(parse(source), seed["metadata"]) for seed in SEEDS)
    assert any("0 of 8 seeds meet the filter" in note for note in notes) is not met
    unknown = {name for name in ("lable", "seller.vpi", "a b") if re.search(rf"{name}\"? [=!]", source)}
    named = {
        name for name in unknown if any(f"no seed has the key {name!r}" in note.replace('"', "") for note in notes)
    }
    assert unknown == named
    assert all("\n" not in note for note in notes)
    assert not (met and not unknown and "exists" not in source) or notes == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('lable = "a"', "known keys: id, label, level, seller, seller.vip; did you mean 'label'?"),
        ("seller.vpi = true", "did you mean 'seller.vip'?"),
        ("level = 3", "the seeds hold strings under the key 'level', but the filter compares it with numbers"),
        ({"label": "zz"}, "0 of 8 seeds meet the filter {'label': 'zz'}"),
    ],
)
def test_python_logs_it_once_per_filter_and_counts_too(bank, caplog, source, said):
    for seeds in (Seeds(SEEDS, routes=["bm25"]), bank):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            pipeline = Pipeline(seeds, Recall(routes=("bm25",), filter=source))
            for _ in range(3):
                assert pipeline.recall([{"text": "茶", "metadata": {}}])[0]["topk_sim"] == []
        assert sum(said in record.getMessage() for record in caplog.records) == 1
        assert any(said in note for note in pipeline.notes)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert bank.count(source) == 0
    assert said in caplog.text
    assert any(said in note for note in bank.delete(filter=source).notes)


def test_the_command_line_says_it_and_writes_the_results(tmp_path, monkeypatch, capfd):
    for name, items in (("seeds", SEEDS), ("queries", SEEDS[:2])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(records.dumps, items)))
    with create(tmp_path / "bank", BankSettings(routes=["bm25"])) as made:
        made.upsert(SEEDS)
    for where in (["--seeds", str(tmp_path / "seeds.jsonl"), "--routes", "bm25"], ["--bank", str(tmp_path / "bank")]):
        out = tmp_path / "out.jsonl"
        arguments = ["recall", str(tmp_path / "queries.jsonl"), *where, "--filter", 'lable = "a"', "-o", str(out)]
        monkeypatch.setattr("sys.argv", ["ecom-rag", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr().err
        assert ended.value.code == 0 and len(out.read_bytes().splitlines()) == 2
        assert "note: 0 of 8 seeds meet the filter" in said and "did you mean 'label'?" in said


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(total=st.integers(0, 30), gone=st.integers(0, 30))
def test_a_filter_removes_most_of_a_bank_only_where_that_is_allowed(tmp_path_factory, total, gone):
    gone = min(gone, total)
    with create(tmp_path_factory.mktemp("b") / "bank", BankSettings(routes=["bm25"])) as made:
        made.upsert([{"text": "t", "metadata": {"id": i, "old": i < gone}} for i in range(total)])
        if gone > 10 and gone > total / 2:
            with pytest.raises(UsageError, match=rf"matches {gone} of {total} documents.*`allow_most`"):
                made.delete(filter="old = true")
            assert len(made) == total
        assert made.delete(filter="old = true", allow_most=True).removed == gone
        assert len(made) == total - gone
        with pytest.raises(UsageError, match="the filter is empty"):
            made.delete(filter={}, allow_most=True)


def test_delete_of_the_command_line_asks_for_yes(tmp_path, monkeypatch, capfd):
    with create(tmp_path / "bank", BankSettings(routes=["bm25"])) as made:
        made.upsert([{"text": "t", "metadata": {"id": i, "label": "spam"}} for i in range(20)])
    for extra, code, said in (
        (["--dry-run"], 0, "would remove 20 of 20"),
        ([], 2, "matches 20 of 20 documents; filter: no seed has the key 'lable'; known keys: id, label"),
        (["--yes"], 0, "removed 20 documents"),
    ):
        monkeypatch.setattr(
            "sys.argv", ["ecom-rag", "bank", "delete", str(tmp_path / "bank"), "--filter", 'lable != "spam"', *extra]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code, said in capfd.readouterr().err) == (code, True)


def test_keys_are_spelled_as_a_filter_reads_them():
    assert spelled(("a b", "c-d")) == json.dumps("a b") + ".c-d"
