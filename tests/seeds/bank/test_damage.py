"""Damaged and missing files of a bank: built anew where they can be, one clear line where not."""

import re
import shutil

import pytest

from ecom_rag.errors import BankError
from ecom_rag.seeds.bank import SeedBank, build
from helpers.small_banks import Hashing, assert_equals_a_file, seed


@pytest.fixture
def closed(tmp_path):
    """A bank with saved indexes, and what is in it."""
    seeds = [seed(n) for n in range(40)]
    build(tmp_path / "bank", seeds, encoder=Hashing())
    return tmp_path / "bank", seeds


def saved_file(path, name="dense.vectors.npy"):
    return next(path.glob(f"indexes/*/{name}"))


def damage_truncate(path):
    file = saved_file(path)
    file.write_bytes(file.read_bytes()[:-100])


def damage_flip(path):
    file = saved_file(path, "bm25.lengths.npy")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def damage_manifest(path):
    saved_file(path, "manifest.json").write_text('{"header":')


def damage_missing(path):
    saved_file(path).unlink()


def damage_no_manifest(path):
    saved_file(path, "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_truncate, "dense.vectors.npy has .* bytes instead of"),
        (damage_flip, "bm25.lengths.npy has another checksum"),
        (damage_manifest, "cannot be used"),
        (damage_missing, "dense.vectors.npy is missing"),
        (damage_no_manifest, "manifest.json is missing"),
    ],
)
def test_damaged_indexes_are_built_anew_with_one_line(closed, caplog, damage, reason):
    path, seeds = closed
    damage(path)
    with SeedBank.open(path) as bank:
        assert_equals_a_file(bank, seeds)
        assert [r.message for r in caplog.records if "built anew" in r.message and "\n" not in r.message]
        assert len(caplog.records) == 1
        assert re.search(reason, caplog.text)


def test_missing_indexes_are_built_without_a_word(closed, caplog):
    path, seeds = closed
    shutil.rmtree(path / "indexes")
    with SeedBank.open(path) as bank:
        assert_equals_a_file(bank, seeds)
    assert not caplog.records


def test_indexes_of_another_bank_or_analyzer_are_not_taken(closed, caplog, tmp_path):
    path, _ = closed
    other = [seed(n + 100) for n in range(40)]
    build(tmp_path / "other", other, encoder=Hashing())
    shutil.rmtree(tmp_path / "other" / "indexes")
    shutil.copytree(path / "indexes", tmp_path / "other" / "indexes")
    with SeedBank.open(tmp_path / "other") as bank:
        assert_equals_a_file(bank, other)
    assert "other settings" in caplog.text


@pytest.mark.parametrize("where", ["start", "schema", "middle", "empty", "other"])
def test_a_damaged_record_is_one_line(closed, where):
    path, _ = closed
    file = path / "bank.db"
    content = bytearray(file.read_bytes())
    if where == "empty":
        content = bytearray()
    elif where == "other":
        content[68:72] = b"abcd"  # the application id
    else:
        place = {"start": 0, "schema": 100, "middle": 8192}[where]
        content[place : place + 4000] = b"\xff" * 4000
        if where == "middle":
            content[8192:] = b"\xff" * (len(content) - 8192)
    file.write_bytes(content)
    with pytest.raises(BankError, match=r"bank.db: is (damaged|another program's)") as caught:
        with SeedBank.open(path) as bank:
            bank.get(["s1"])
    assert "\n" not in str(caught.value)
