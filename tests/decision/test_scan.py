"""A scan finds what recall of every stored listing would find, and leaves the bank as it is."""

import pytest

from ecom_rag.decision import scan
from ecom_rag.decision.deciding import Deciding
from ecom_rag.decision.files import calibrate_file
from ecom_rag.decision.policy import load_policy
from ecom_rag.decision.scan import scan_file
from ecom_rag.decision.settings import Calibrate
from ecom_rag.errors import UsageError
from ecom_rag.pipeline import Pipeline, Recall, recall_file
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from helpers.jsonl import lines, write
from helpers.listings import ROUTES, listings

STORED, NEW = listings(300, seed=3, start=5000), listings(20, seed=4, start=9000)


@pytest.fixture
def work(tmp_path):
    """A bank of seeds, stored listings, and new seeds that the bank does not hold."""
    settings = BankSettings(routes=ROUTES)
    build(tmp_path / "bank", listings(200, seed=0), settings)
    build(tmp_path / "stored", STORED, settings)
    write(tmp_path / "new.jsonl", NEW)
    return tmp_path


def scanned(work, name="hits", **options):
    output = work / f"{name}.jsonl"
    given = {"listings": work / "stored", "bank": work / "bank", **options}
    return scan_file(work / "new.jsonl", output, **given), lines(output)


def every_pair(work, top_k=10):
    """Listing and new seed, by recall of all stored listings against the bank with the new seeds."""
    build(work / "whole", [*listings(200, seed=0), *NEW], BankSettings(routes=ROUTES))
    ids = {seed["metadata"]["id"] for seed in NEW}
    with SeedBank.open(work / "whole") as bank:
        results = Pipeline(bank, Recall(top_k=top_k)).recall(STORED)
    return {
        (one["metadata"]["id"], metadata["id"])
        for one in results
        for metadata in one["topk_metadata"]
        if metadata["id"] in ids
    }


def pairs(found):
    return {(one["metadata"]["id"], hit["seed"]) for one in found for hit in one["hits"]}


@pytest.mark.parametrize("added", [False, True], ids=["not yet in the bank", "in the bank"])
def test_a_deep_scan_finds_every_pair_of_recall(work, added):
    if added:
        with SeedBank.open(work / "bank") as bank:
            bank.upsert(NEW)
    with SeedBank.open(work / "bank") as bank:
        before = bank.sequence
    summary, found = scanned(work, depth=300)
    assert pairs(found) == every_pair(work)
    names = [one["metadata"]["id"] for one in found]
    assert len(set(names)) == len(names) == summary.counts["hit"]
    for one in found:
        for hit in one["hits"]:
            assert one["topk_metadata"][hit["rank"] - 1]["id"] == hit["seed"]
            assert one["topk_sim"][hit["rank"] - 1] == hit["score"]
    with SeedBank.open(work / "bank") as bank:
        assert bank.sequence == before
    assert any("does not hold 20 of the 20" in note for note in summary.notes) == (not added)


def test_a_shallow_scan_recalls_fewer_and_finds_most(work):
    deep, shallow = scanned(work, "deep", depth=300), scanned(work, "shallow", depth=30)
    assert shallow[0].counts["recalled"] < deep[0].counts["recalled"]
    expected = every_pair(work)
    assert pairs(deep[1]) == expected
    assert pairs(shallow[1]) < expected
    assert len(pairs(shallow[1])) > 0.8 * len(expected)


def test_a_scan_that_was_killed_goes_on_to_the_same_bytes(work, monkeypatch):
    monkeypatch.setattr(scan, "_SEEDS", 4)
    scanned(work, "whole")
    block, done = scan.Scanner.block, []

    def dying(self, seeds):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(seeds))
        return block(self, seeds)

    monkeypatch.setattr(scan.Scanner, "block", dying)
    with pytest.raises(KeyboardInterrupt):
        scanned(work, "part")
    monkeypatch.setattr(scan.Scanner, "block", block)
    summary, _ = scanned(work, "part", resume=True)
    assert summary.resumed == 8
    assert (work / "part.jsonl").read_bytes() == (work / "whole.jsonl").read_bytes()


def test_a_policy_decides_what_is_hit(work):
    write(work / "labelled.jsonl", listings(400, seed=1, start=10_000))
    recall_file(work / "labelled.jsonl", work / "recalled.jsonl", Recall(routes=ROUTES), bank=work / "bank")
    calibrate_file(work / "recalled.jsonl", work / "policy.json", Calibrate(), bank=work / "bank")
    _, found = scanned(work, deciding=Deciding(load_policy(work / "policy.json")))
    assert {one["decision"]["action"] for one in found} >= {"label"}
    promises = {one["decision"]["guarantee"] for one in found if one["decision"]["action"] == "label"}
    assert all("void" in one for one in promises)  # the seeds are not those that it was calibrated on


def test_what_cannot_be_scanned_says_so(work):
    build(work / "other", STORED, BankSettings(routes=("bm25",)))
    build(work / "only", listings(50, seed=0), BankSettings(routes=("variant",)))
    with pytest.raises(UsageError, match="build the listings with one of the bank's routes"):
        scanned(work, listings=work / "other", bank=work / "only")
    write(work / "new.jsonl", [{"text": "x", "metadata": {}}])
    with pytest.raises(UsageError, match="seed 1 has no id"):
        scanned(work)
