"""Exports: each command takes its kind as it is."""

import pytest

from ecom_rag.decision.decide import Decider
from ecom_rag.decision.files import calibrate_file, decide_file
from ecom_rag.decision.monitor import monitor_file
from ecom_rag.decision.policy import load_policy
from ecom_rag.decision.settings import Calibrate
from ecom_rag.errors import UsageError
from ecom_rag.evaluation.files import evaluate_labels
from ecom_rag.serving.journal import Journal
from ecom_rag.training.data import read_data
from ecom_rag.training.recipe import Data, Recipe
from helpers.decided import policy_file
from helpers.journals import automatic, put, to_review
from helpers.jsonl import write
from helpers.listings import listings, pipeline


def exported(journal, path, kind, **options):
    write(path, list(journal.export(kind, **options)))
    return path


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "j.db") as opened:
        yield opened


def test_what_they_hold(journal):
    ids = put(
        journal,
        to_review("one", shop={"name": "x"}, label="old"),
        automatic("two", label="fraud"),
        to_review("nobody looked"),
    )
    put(journal, automatic("elsewhere"), bank="other")
    journal.verdict(ids[1], actor="anna", label="spam")
    journal.verdict(ids[0], actor="anna", label="ok")
    verdicts = list(journal.export("verdicts", label_key="shop.label"))
    assert [one["text"] for one in verdicts] == ["two", "one"]  # in the order of the verdicts
    assert verdicts[1]["metadata"] == {"shop": {"name": "x", "label": "ok"}}
    assert list(verdicts[0]) == ["text", "metadata", "topk_sim", "topk_seed", "topk_metadata", "topk_evidence"]
    assert list(journal.export("training")) == [
        {"text": "two", "metadata": {"label": "spam"}},
        {"text": "one", "metadata": {"label": "ok"}},
    ]
    assert [one["decision"]["label"] for one in journal.export("decided")] == ["fraud", "old"]
    assert list(journal.export("verdicts", bank="other")) == []
    journal.undo("anna")
    assert [one["text"] for one in journal.export("training")] == ["two"]
    with pytest.raises(UsageError, match="`kind`"):
        journal.export("all")


def test_training_takes_them(journal, tmp_path):
    ids = put(journal, *[to_review(f"text {n} {'加微信' if n % 2 else '好茶叶'}") for n in range(8)])
    for number, id_ in enumerate(ids):
        journal.verdict(id_, actor="anna", label="fraud" if number % 2 else "ok")
    train = str(exported(journal, tmp_path / "train.jsonl", "training"))
    recipe = Recipe("embedder", "a model", str(tmp_path / "out"), Data(train=(train,)))
    found = read_data([train], "train", recipe)
    assert sorted(set(found.labels)) == ["fraud", "ok"] and len(found) == 8


def test_monitor_takes_them(journal, tmp_path):
    records = [automatic(f"text {n}", threshold=0.91, campaign=f"{n:012x}") for n in range(4)]
    ids = put(journal, *records, to_review("not automatic", campaign="aaaaaaaaaaaa"))
    for id_, label in zip(ids, ["fraud", "ok", "fraud", "fraud", "fraud"], strict=True):
        journal.verdict(id_, actor="anna", label=label)
    audited = exported(journal, tmp_path / "audited.jsonl", "decided")
    found = monitor_file(audited, policy_file(tmp_path / "policy.json"))
    assert (found.counts.audited, found.counts.review) == (4, 1)
    assert found.classes[0].wrong.tolist() == [False, True, False, False]


def test_calibrate_evaluate_and_decide_take_them(journal, tmp_path):
    """Verdicts on what one policy decided make the next one."""
    seeds = listings(300, seed=0)
    write(tmp_path / "seeds.jsonl", seeds)
    recall = pipeline(seeds)
    labelled = listings(300, seed=1, start=10_000)
    results = recall.recall(labelled)
    write(tmp_path / "labelled.jsonl", results)
    asked = Calibrate(innocent=("ok",))
    calibrate_file(tmp_path / "labelled.jsonl", tmp_path / "policy.json", asked, seeds=tmp_path / "seeds.jsonl")
    decided = Decider(load_policy(tmp_path / "policy.json")).decide(
        [{**one, "metadata": {"id": one["metadata"]["id"]}} for one in results]
    )
    ids = journal.admit_and_record(decided, bank="seeds", sequence=1, actor="shop")
    for id_, one in zip(ids, labelled, strict=True):
        journal.verdict(id_, actor="anna", label=one["metadata"]["label"])
    verdicts = exported(journal, tmp_path / "verdicts.jsonl", "verdicts")
    calibrate_file(verdicts, tmp_path / "again.json", asked, seeds=tmp_path / "seeds.jsonl")
    assert load_policy(tmp_path / "again.json").classes == load_policy(tmp_path / "policy.json").classes
    study = evaluate_labels([str(verdicts)], resamples=100)[0]
    before = evaluate_labels([str(tmp_path / "labelled.jsonl")], resamples=100)[0]
    assert study.runs[0].classes == before.runs[0].classes
    summary = decide_file(
        tmp_path / "labelled.jsonl", tmp_path / "out.jsonl", tmp_path / "policy.json", reviewed=verdicts, flood_limit=1
    )
    assert summary.counts["label"] + summary.counts["innocent"] + summary.counts["review"] == 300
