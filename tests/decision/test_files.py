"""Calibration and decisions over files: as in memory, resumable to the byte, and tied to how results were made."""

import json
import shutil

import numpy as np
import pytest

from ecom_rag.decision.calibration import calibrate
from ecom_rag.decision.decide import Decider
from ecom_rag.decision.deciding import Deciding
from ecom_rag.decision.files import calibrate_file, decide_file
from ecom_rag.decision.policy import load_policy
from ecom_rag.decision.settings import Calibrate
from ecom_rag.errors import PolicyError, RecordError, UsageError
from ecom_rag.files import jobs
from ecom_rag.pipeline import Recall, recall_file
from ecom_rag.pipeline.provenance import place_of, read_beside
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from helpers.jsonl import lines, write
from helpers.listings import ROUTES, listings, pipeline

SETTINGS = Recall(routes=ROUTES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seeds, a bank of them, labelled listings and new ones, recalled from the bank; and a policy."""
    place = tmp_path_factory.mktemp("decisions")
    write(place / "seeds.jsonl", listings(300, seed=0))
    build(place / "bank", listings(300, seed=0), BankSettings(routes=ROUTES))
    write(place / "labelled.jsonl", listings(400, seed=1, start=10_000))
    write(place / "new.jsonl", listings(300, seed=2, start=20_000))
    for name in ("labelled", "new"):
        recall_file(place / f"{name}.jsonl", place / f"{name}_recalled.jsonl", SETTINGS, bank=place / "bank")
    calibrate_file(
        place / "labelled_recalled.jsonl", place / "policy.json", Calibrate(innocent=("ok",)), bank=place / "bank"
    )
    return place


@pytest.fixture
def work(folder, tmp_path):
    """A copy to spoil."""
    shutil.copytree(folder, tmp_path / "work")
    return tmp_path / "work"


def test_files_and_memory_say_the_same(folder, tmp_path):
    policy = load_policy(folder / "policy.json")
    decide_file(folder / "new_recalled.jsonl", tmp_path / "decided.jsonl", folder / "policy.json")
    again = calibrate(
        lines(folder / "labelled.jsonl"), pipeline(listings(300, seed=0)), Calibrate(innocent=("ok",))
    ).policy
    assert again.classes == policy.classes
    found = Decider(policy).decide(lines(folder / "new_recalled.jsonl"))
    decided = lines(tmp_path / "decided.jsonl")
    for one, other in zip(decided, found, strict=True):
        assert one["decision"].pop("campaign")
        assert other["decision"].pop("campaign") is None
    assert decided == found
    assert {one["decision"]["action"] for one in found} == {"label", "innocent", "review"}


def test_recall_with_a_policy_writes_what_recall_and_decide_write(folder, tmp_path):
    policy = load_policy(folder / "policy.json")
    summary = recall_file(
        folder / "new.jsonl", tmp_path / "both.jsonl", SETTINGS, bank=folder / "bank", after=Deciding(policy)
    )
    decide_file(folder / "new_recalled.jsonl", tmp_path / "decided.jsonl", folder / "policy.json")
    assert (tmp_path / "both.jsonl").read_bytes() == (tmp_path / "decided.jsonl").read_bytes()
    assert summary.counts["label"] + summary.counts["innocent"] + summary.counts["review"] == 300
    assert sum(count for key, count in summary.counts.items() if key.startswith("review: ")) == summary.counts["review"]


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(folder, tmp_path, monkeypatch):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    monkeypatch.setattr(jobs, "BLOCK_RECORDS", 64)
    decide_file(folder / "new_recalled.jsonl", whole, folder / "policy.json", flood_limit=1)
    done, block = [], Deciding.block
    memory = {"campaigns": tmp_path / "campaigns", "flood_limit": 1}

    def dying(self, results):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(results))
        return block(self, results)

    monkeypatch.setattr(Deciding, "block", dying)
    with pytest.raises(KeyboardInterrupt):
        decide_file(folder / "new_recalled.jsonl", part, folder / "policy.json", **memory)
    assert not part.exists()
    monkeypatch.setattr(Deciding, "block", block)
    summary = decide_file(folder / "new_recalled.jsonl", part, folder / "policy.json", resume=True, **memory)
    assert summary.resumed == 128
    assert part.read_bytes() == whole.read_bytes()


def test_a_flood_is_decided_ten_times_and_then_looked_at(folder, tmp_path):
    """300 small variations of one text; the campaigns are remembered, and the same input again is counted once."""
    random = np.random.default_rng(0)
    text = " ".join(f"fraud{number}" for number in range(12))
    flood = [{"text": f"{text} {random.integers(1000)}", "metadata": {"id": number}} for number in range(300)]
    write(tmp_path / "flood.jsonl", flood)
    recall_file(tmp_path / "flood.jsonl", tmp_path / "recalled.jsonl", SETTINGS, bank=folder / "bank")
    memory = {"campaigns": tmp_path / "campaigns"}

    def decided(name, **options):
        output = tmp_path / f"{name}.jsonl"
        decide_file(tmp_path / "recalled.jsonl", output, folder / "policy.json", **options)
        return [one["decision"] for one in lines(output)]

    first = decided("first", **memory)
    assert [one["action"] for one in first] == ["label"] * 10 + ["review"] * 290
    assert {one["reason"] for one in first[10:]} == {"flood"}
    assert {one["guarantee"] for one in first[10:]} == {None}
    assert len({one["campaign"] for one in first}) == 1
    assert decided("again", **memory) == first
    write(tmp_path / "more.jsonl", [{**one, "text": f"{one['text']} x"} for one in flood[:5]])
    recall_file(tmp_path / "more.jsonl", tmp_path / "more_recalled.jsonl", SETTINGS, bank=folder / "bank")
    summary = decide_file(tmp_path / "more_recalled.jsonl", tmp_path / "m.jsonl", folder / "policy.json", **memory)
    assert summary.counts["review: flood"] == 5
    for label, action in (("fraud", "label"), ("ok", "review")):
        write(tmp_path / "looked.jsonl", [{"text": flood[0]["text"], "metadata": {"label": label}}])
        after = decided(f"after {label}", reviewed=tmp_path / "looked.jsonl", campaigns=tmp_path / f"{label} campaigns")
        assert {one["action"] for one in after} == {action}
    write(tmp_path / "looked.jsonl", [{"text": "x", "metadata": {}}])
    with pytest.raises(RecordError, match="reviewed record 1: a reviewed record"):
        decided("none", reviewed=tmp_path / "looked.jsonl")


def test_a_bank_that_has_moved_on_voids_the_promises(work, tmp_path):
    with SeedBank.open(work / "bank") as bank:
        bank.upsert([{"text": "one more seed", "metadata": {"id": "more", "label": "ok"}}])
        sequence = bank.sequence
    recall_file(work / "new.jsonl", work / "later.jsonl", SETTINGS, bank=work / "bank")
    summary = decide_file(work / "later.jsonl", tmp_path / "decided.jsonl", work / "policy.json")
    assert any(f"(it is at {sequence})" in note for note in summary.notes)
    automatic = [one["decision"] for one in lines(tmp_path / "decided.jsonl") if one["decision"]["action"] != "review"]
    assert automatic
    assert all(one["guarantee"].startswith("void: the bank has changed since change") for one in automatic)
    with pytest.raises(PolicyError, match="void: the bank has changed"):
        decide_file(work / "later.jsonl", tmp_path / "strict.jsonl", work / "policy.json", strict=True)
    with pytest.raises(PolicyError, match="before they changed; recall it again"):
        calibrate_file(work / "labelled_recalled.jsonl", tmp_path / "p.json", Calibrate(), bank=work / "bank")
    assert not (tmp_path / "strict.jsonl").exists()


def test_other_settings_of_recall_are_refused(work, tmp_path):
    recall_file(work / "new.jsonl", work / "five.jsonl", Recall(routes=ROUTES, depth=50), bank=work / "bank")
    with pytest.raises(PolicyError, match="depth 50 instead of 100"):
        decide_file(work / "five.jsonl", tmp_path / "decided.jsonl", work / "policy.json")
    recall_file(work / "new.jsonl", work / "one.jsonl", Recall(routes=("bm25",)), bank=work / "bank")
    with pytest.raises(PolicyError, match=r"routes bm25 instead of bm25\+variant"):
        decide_file(work / "one.jsonl", tmp_path / "decided.jsonl", work / "policy.json")


def test_results_that_do_not_say_how_they_were_made(work, tmp_path):
    read_beside(str(work / "new_recalled.jsonl"))
    for name in ("new", "labelled"):
        (work / f"{name}_recalled.jsonl.about.json").unlink()
    summary = decide_file(work / "new_recalled.jsonl", tmp_path / "decided.jsonl", work / "policy.json")
    assert any("was not checked" in note for note in summary.notes)
    with pytest.raises(PolicyError, match="nothing says how it was recalled"):
        decide_file(work / "new_recalled.jsonl", tmp_path / "strict.jsonl", work / "policy.json", strict=True)
    # Calibration recalls some of them again, and sees that they are what these seeds give.
    found = calibrate_file(
        work / "labelled_recalled.jsonl", work / "p.json", Calibrate(innocent=("ok",)), bank=work / "bank"
    )
    assert found.policy.classes == load_policy(work / "policy.json").classes
    write(work / "few.jsonl", listings(120, seed=9))
    with pytest.raises(PolicyError, match="is not what these seeds give"):
        calibrate_file(work / "labelled_recalled.jsonl", work / "p.json", Calibrate(), seeds=work / "few.jsonl")


def test_a_file_that_is_not_ours_stays(work):
    output = work / "again.jsonl"
    (work / "again.jsonl.about.json").write_text('{"mine": true}')
    summary = recall_file(work / "new.jsonl", output, SETTINGS, bank=work / "bank")
    assert json.loads((work / "again.jsonl.about.json").read_text()) == {"mine": True}
    assert any("is not a file of recall" in note for note in summary.notes)
    assert read_beside(str(output)) is None
    assert place_of("x") == "x.about.json"


def test_reranked_results_are_refused(work):
    results = lines(work / "labelled_recalled.jsonl")
    for one in results:
        for entry in one["topk_evidence"]:
            entry["reranker"] = {"score": 1.0, "rank": 1}
    write(work / "reranked.jsonl", results)
    with pytest.raises(UsageError, match="was reranked"):
        calibrate_file(work / "reranked.jsonl", work / "p.json", Calibrate(), bank=work / "bank")
