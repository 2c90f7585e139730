"""rerank over files: of which records, and what is spared."""

import json
import sys

import pytest

from ecom_rag.cli import main
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.models import CrossEncoder
from ecom_rag.pipeline import rerank, rerank_file


@pytest.fixture(scope="module")
def judge(xlmr_reranker):
    return CrossEncoder.from_pretrained(str(xlmr_reranker), runtime="torch", precision="fp32")


def results(*actions):
    seeds = [f"seed {number}" for number in range(4)]
    return [
        {
            "text": f"listing {number}",
            "metadata": {"id": number},
            "topk_sim": [0.9, 0.8, 0.7, 0.6],
            "topk_seed": seeds,
            "topk_metadata": [{"id": name} for name in seeds],
            **({} if action is None else {"decision": {"action": action, "label": "fraud"}}),
        }
        for number, action in enumerate(actions)
    ]


def written(path, items):
    path.write_bytes(b"".join(map(records.dumps, items)))
    return path


def test_open_reranks_what_goes_to_review_alone(judge):
    given = results("review", "label", "review", "innocent")
    found = rerank(given, judge, top_k=2, when="open")
    everything = rerank(given, judge, top_k=2)
    assert [found[0], found[2]] == [everything[0], everything[2]]
    assert [found[1], found[3]] == [given[1], given[3]]
    assert found[1]["topk_seed"] is not given[1]["topk_seed"]
    assert rerank(results("label"), judge, when="open") == results("label")


def test_open_needs_decisions(judge, tmp_path):
    with pytest.raises(RecordError, match=r'result 1: has no "decision"; expected results of decide'):
        rerank(results("review", None), judge, when="open")
    place = written(tmp_path / "in.jsonl", results("review", None))
    with pytest.raises(RecordError, match=r'in\.jsonl:2: has no "decision"'):
        rerank_file(place, tmp_path / "out.jsonl", judge, when="open")
    with pytest.raises(UsageError, match="`when` 'never' is unknown; expected always or open"):
        rerank(results("review"), judge, when="never")


def test_the_command_says_what_was_spared(tmp_path, xlmr_reranker, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.jsonl", results("review", "label", "review"))
    options = ["--model", str(xlmr_reranker), "--when", "open", "--reuse", "scores.db"]
    for output, known in (("first.jsonl", "0 of 8"), ("second.jsonl", "8 of 8")):
        monkeypatch.setattr(sys, "argv", ["ecom-rag", "rerank", "in.jsonl", *options, "-o", output])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        assert f"reranked 2 of 3 records, {known} pairs known from before in" in capsys.readouterr().err
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()
    first = json.loads((tmp_path / "first.jsonl").read_text().splitlines()[0])
    assert "retrieval" in first["topk_evidence"][0]


def test_scores_are_not_kept_in_a_file_of_the_run(tmp_path, judge):
    place = written(tmp_path / "in.jsonl", results("review"))
    for taken in (place, tmp_path / "out.jsonl"):
        with pytest.raises(UsageError, match="is also the input or the output of this run"):
            rerank_file(place, tmp_path / "out.jsonl", judge, reuse=taken)
    assert len(list(records.read(place))) == 1 and not (tmp_path / "out.jsonl").exists()
