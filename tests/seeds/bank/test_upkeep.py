"""What is done to a bank as a whole: upkeep, stats, snapshots, copies, and builds that go on after a kill."""

import json

import pytest

from ecom_rag.errors import BankError, UsageError
from ecom_rag.seeds.bank import BankSettings, SeedBank, build, create, restore, snapshot, stats
from ecom_rag.seeds.bank.live import LiveIndexes
from helpers.small_banks import Hashing, assert_equals_a_file, built, seed


@pytest.fixture
def bank(tmp_path):
    with create(tmp_path / "bank", BankSettings(index_keys=["label"]), encoder=Hashing()) as made:
        yield made


def test_upkeep_is_done_when_due(bank, monkeypatch):
    from ecom_rag.seeds.bank import upkeep as module

    monkeypatch.setattr(module, "MANY", 10)
    for turn in range(4):
        bank.upsert([seed(n, turn=turn) for n in range(8)])
    folders = list((bank.path / "indexes").glob("*-*"))
    assert len(folders) == 1  # older ones are dropped
    assert stats(bank)["removed_rows"] <= 10
    assert_equals_a_file(bank, [seed(n, turn=3) for n in range(8)])


def test_failed_upkeep_does_not_hide_a_change(bank, monkeypatch):
    from ecom_rag.seeds.bank import upkeep as module

    def full(self, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "MANY", 1)
    monkeypatch.setattr(LiveIndexes, "save", full)
    change = bank.upsert([seed(n) for n in range(8)])
    assert change.added == 8 and len(bank) == 8 and "No space left" in change.notes[-1]
    change = bank.delete(["s1"])
    assert change.removed == 1 and len(bank) == 7 and "the change is written" in change.notes[-1]


def test_unusable_saved_indexes_are_written_anew(bank):
    bank.upsert([seed(n) for n in range(8)])
    bank.save_indexes()
    (manifest,) = (bank.path / "indexes").glob("*/manifest.json")
    sound = manifest.read_text()
    manifest.write_text(sound.replace('"header": {', '"header": {"version": "older", '))
    with SeedBank.open(bank.path) as again:
        again.refresh()
        again.save_indexes()
    assert manifest.read_text() == sound


def test_labels_are_counted_as_they_are_shown(tmp_path):
    labels = ["1", 1, 1, True, "true", None]
    records = [{"text": f"t{n}", "metadata": {"policy": {"label": label}}} for n, label in enumerate(labels)]
    with built(tmp_path / "bank", records, BankSettings(routes=["bm25"], label_key="policy.label")) as bank:
        assert stats(bank)["labels"] == {"1": 3, "true": 2}


def test_stats(bank):
    bank.upsert([seed(n) for n in range(7)] + [{"text": "t", "metadata": {"label": True}}, {"text": "u"}])
    bank.delete(["s0"])
    found = stats(bank)
    assert found["labels"] == {"y": 2, "z": 2, "x": 2, "true": 1} and found["documents"] == 8
    assert found["removed_rows"] == 1 and found["sequence"] == 2 and found["model"]["fingerprint"] == "hashing-cls"
    assert found["bytes"] > 8192 and found["index_keys"] == ["label"]
    json.dumps(found)


def test_a_snapshot_is_one_state_and_restores_to_an_equal_bank(bank, tmp_path):
    bank.upsert([seed(n) for n in range(20)])
    bank.delete(["s3"])
    expected = [seed(n) for n in range(20) if n != 3]
    note = snapshot(bank, tmp_path / "copy")
    assert (note["sequence"], note["documents"]) == (2, 19)
    bank.upsert([seed(50)])
    assert restore(tmp_path / "copy", tmp_path / "again") == note
    with SeedBank.open(tmp_path / "again") as again:
        assert_equals_a_file(again, expected)
        assert list((tmp_path / "again" / "indexes").glob("2-*"))  # they came along
    with pytest.raises(BankError, match="already exists"):
        snapshot(bank, tmp_path / "copy")
    with pytest.raises(BankError, match="already exists"):
        restore(tmp_path / "copy", bank.path)
    with pytest.raises(BankError, match="not a snapshot"):
        restore(bank.path, tmp_path / "third")
    content = bytearray((tmp_path / "copy" / "bank.db").read_bytes())
    content[-1] ^= 1
    (tmp_path / "copy" / "bank.db").write_bytes(content)
    with pytest.raises(BankError, match="damaged"):
        restore(tmp_path / "copy", tmp_path / "third")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["again", "bank", "copy"]


def test_a_copy_leaves_an_unfinished_build_of_its_name_alone(bank, tmp_path):
    bank.upsert([seed(1)])
    snapshot(bank, tmp_path / "copy")
    unfinished = tmp_path / "third.partial"
    unfinished.mkdir()
    (unfinished / "bank.db").write_bytes(b"blocks that are done")
    restore(tmp_path / "copy", tmp_path / "third")
    assert (unfinished / "bank.db").read_bytes() == b"blocks that are done"


def test_a_build_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    from ecom_rag.errors import ResumeError
    from ecom_rag.seeds.bank import filling

    monkeypatch.setattr(filling, "BLOCK_RECORDS", 8)
    seeds = [seed(n) for n in range(30)]

    def cut(count):
        yield from seeds[:count]
        raise KeyboardInterrupt

    path = tmp_path / "bank"
    with pytest.raises(KeyboardInterrupt):
        build(path, cut(5), encoder=Hashing())
    assert not list(tmp_path.iterdir())  # nothing to keep yet
    with pytest.raises(KeyboardInterrupt):
        build(path, cut(20), encoder=Hashing())
    assert [item.name for item in tmp_path.iterdir()] == ["bank.partial"]
    for others in (seeds[:6], seeds[:16][::-1], seeds[1:]):
        with pytest.raises(ResumeError, match="16 records"):
            build(path, others, encoder=Hashing(), resume=True)
    with pytest.raises(ResumeError, match="id_key: id, now sku"):
        build(path, seeds, BankSettings(id_key="sku"), encoder=Hashing(), resume=True)
    with pytest.raises(BankError, match="other-cls"):
        build(path, seeds, encoder=Hashing("other-cls"), resume=True)
    built = build(path, seeds, encoder=Hashing(), resume=True)
    assert (built.records, built.resumed, built.added) == (30, 16, 14)
    assert [item.name for item in tmp_path.iterdir()] == ["bank"]
    with SeedBank.open(path) as bank:
        assert_equals_a_file(bank, seeds)
    with pytest.raises(BankError, match="already exists"):
        build(path, seeds, encoder=Hashing())
    with pytest.raises(UsageError, match="does not exist"):
        build(tmp_path / "no" / "bank", seeds, encoder=Hashing())
