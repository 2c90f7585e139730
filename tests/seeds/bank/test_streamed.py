"""Indexes that are written while a bank is filled are those that are built of it afterwards."""

import io
import shutil

import numpy as np
import pytest

from ecom_rag import Encoder
from ecom_rag.errors import BankError
from ecom_rag.seeds.bank import BankSettings, SeedBank, build, create, filling, streamed
from ecom_rag.seeds.bank.streamed import VectorFile
from helpers.small_banks import Hashing, assert_equals_a_file, seed


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(filling, "BLOCK_RECORDS", 8)
    monkeypatch.setattr(streamed, "PART", 12)


def files_of(bank):
    """Contents of the saved arrays, by name."""
    return {path.name: path.read_bytes() for path in bank.glob("indexes/*/*.npy")}


def test_a_file_of_vectors_is_what_numpy_writes(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    file = VectorFile(tmp_path / "vectors.npy", 3)
    assert len(file[:5]) == 0
    for part in (vectors[:4], vectors[4:4], vectors[4:]):
        file.extend(part)
    assert file.shape == (7, 3)
    np.testing.assert_array_equal(file[2:100], vectors[2:])
    file.extend(vectors[:1])  # reading does not move where rows go
    file.close()
    expected = io.BytesIO()
    np.save(expected, np.concatenate([vectors, vectors[:1]]))
    assert (tmp_path / "vectors.npy").read_bytes() == expected.getvalue()


@pytest.mark.parametrize("count", [1, 12, 61])
def test_a_build_writes_the_files_that_upserts_would(m3_folder, tmp_path, count):
    encoder = Encoder.from_pretrained(str(m3_folder), runtime="torch")
    routes = ("bm25", "dense", "sparse", "multivector", "variant")
    seeds = [seed(n) for n in range(count)]
    built = build(tmp_path / "built", iter(seeds), BankSettings(routes=routes), encoder=encoder)
    assert (built.records, built.added) == (count, count)
    with create(tmp_path / "upserted", BankSettings(routes=routes), encoder=encoder) as bank:
        for start in range(0, count, 8):
            bank.upsert(seeds[start : start + 8])
        bank.save_indexes()
    written = files_of(tmp_path / "built")
    assert written == files_of(tmp_path / "upserted")
    assert {name.split(".")[0] for name in written} == {"bank", *routes}
    assert not list(tmp_path.glob("built/indexes/*.new"))


def test_documents_that_replace_others_are_found_in_their_place(tmp_path):
    seeds = [seed(n % 20, turn=n) for n in range(70)]
    built = build(tmp_path / "bank", seeds, encoder=Hashing())
    assert built.replaced == 50
    for _ in range(2):
        with SeedBank.open(tmp_path / "bank") as bank:
            assert_equals_a_file(bank, seeds[-20:])
        shutil.rmtree(tmp_path / "bank" / "indexes", ignore_errors=True)  # then built anew


def test_a_resumed_build_writes_the_same_files(tmp_path):
    seeds = [seed(n) for n in range(50)]

    def cut():
        yield from seeds[:30]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "resumed", cut(), encoder=Hashing())
    build(tmp_path / "resumed", seeds, encoder=Hashing(), resume=True)
    build(tmp_path / "whole", seeds, encoder=Hashing())
    assert files_of(tmp_path / "resumed") == files_of(tmp_path / "whole")


def test_no_block_is_written_behind_one_that_failed(tmp_path, monkeypatch):
    seeds = [seed(n) for n in range(60)]
    upsert, full = SeedBank.upsert, []

    def failing(self, records, **options):
        if full or records[0]["metadata"]["id"] == "s16":
            full.append(records)
            raise BankError("the disk is full")
        return upsert(self, records, **options)

    with monkeypatch.context() as patched, pytest.raises(BankError, match="the disk is full"):
        patched.setattr(SeedBank, "upsert", failing)
        build(tmp_path / "bank", seeds, encoder=Hashing())
    assert len(full) == 1
    assert build(tmp_path / "bank", seeds, encoder=Hashing(), resume=True).resumed == 16
    with SeedBank.open(tmp_path / "bank") as bank:
        assert_equals_a_file(bank, seeds)
