"""A result that is empty though the input was not is no success, and the reason that is told is the right one."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecom_rag.cli import main
from ecom_rag.errors import UsageError
from ecom_rag.mining import Rules, mine_file
from ecom_rag.mining.sources import Source
from ecom_rag.mining.teaching import teach_file
from helpers.jsonl import write

pytestmark = pytest.mark.slow

WORDS = ["leather wallet", "leather watch", "leather case", "leather bag", "leather belt"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.integers(1, 5), first=st.integers(1, 12), extra=st.integers(0, 90), known=st.booleans())
def test_no_negative_is_an_error_that_tells_whether_the_ranks_or_the_rules_left_none(
    tmp_path_factory, texts, first, extra, known
):
    folder = tmp_path_factory.mktemp("mine")
    asked = {"query": "leather", "pos": WORDS[:texts] if known else ["other"]}
    queries = write(folder / "q.jsonl", [asked])
    seeds = write(folder / "s.jsonl", [{"text": text} for text in WORDS[:texts]])
    rules = Rules(first=first, last=first + extra)
    out = folder / "o.jsonl"
    try:
        summary = mine_file(Source(queries, "triples"), str(out), rules, seeds=seeds, route="bm25")
    except UsageError as error:
        message = str(error)
        assert "no negatives were mined for any of 1 queries" in message and "\n" not in message
        assert ("known" in message) is (known and first <= texts)
        assert (f"none at the ranks {first}-{first + extra}" in message) is (first > texts)
        assert first <= texts or f"the corpus holds {texts} texts" in message
        assert sorted(path.name for path in folder.iterdir()) == ["q.jsonl", "s.jsonl"]
    else:
        assert summary.counts["negatives"] == len(json.loads(out.read_text())["neg"]) > 0
        assert not known and first <= texts


def test_the_commands_end_with_2_and_no_output(tmp_path, monkeypatch, capfd):
    queries = write(tmp_path / "q.jsonl", [{"query": "leather", "pos": WORDS}])
    empty = write(tmp_path / "empty.jsonl", [])
    labelled = write(tmp_path / "l.json", [])
    (tmp_path / "l.json").write_text("[]")
    for arguments, said in (
        (["mine", queries, "--route", "bm25", "-o", "out.jsonl"], "no negatives were mined"),
        (["mine", labelled, "--route", "bm25", "-o", "out.jsonl"], "l.json"),
        (["teach", empty, "--model", "starter", "-o", "out.jsonl"], "there is nothing to score"),
        (["bank", "build", "out.jsonl", "--seeds", empty, "--routes", "bm25"], "the input held no records"),
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["ecom-rag", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capfd.readouterr().err
        assert ended.value.code == 2 and said in shown and shown.count("\n") == 1, shown
        assert not list(tmp_path.glob("out.jsonl*")), shown


def test_a_query_without_pairs_is_nothing_to_teach(tmp_path):
    with pytest.raises(UsageError, match="there is nothing to score"):
        teach_file(write(tmp_path / "e.jsonl", []), str(tmp_path / "o.jsonl"), "nowhere")


def test_a_note_names_a_few_queries_however_many_blocks_there_were():
    from collections import Counter

    from ecom_rag.mining.job import _account
    from ecom_rag.mining.rules import Rules

    counts = Counter({"queries none": 90}) + Counter({f"named none: query {n}": 1 for n in range(60)})
    [note] = _account(counts, Rules(), 100)
    assert note.startswith("90 queries have no candidate") and note.count("'query") == 3
