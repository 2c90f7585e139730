"""What goes wrong in writing is one kind of error that names the place, and modes are those of the umask."""

import errno
import os
import sqlite3
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conftest import make_encoder
from ecom_rag.errors import BankError
from ecom_rag.files import disk
from ecom_rag.merging import Mix, merge
from ecom_rag.models.checkpoints.quantized import PACKED, pack
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.bank import BankSettings, build
from ecom_rag.training.shrinking import shrink

pytestmark = pytest.mark.slow

TENSORS = {"a": torch.zeros(1 << 19)}  # 2 MiB


def _sqlite(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE a (b BLOB)")
        db.execute("INSERT INTO a VALUES (zeroblob(2000000))")


def _to_handle(write):
    def to(path):
        with path.open("wb") as handle:
            write(handle)

    return to


WRITERS = {
    "safetensors": lambda path: save_file(TENSORS, path),
    "torch": lambda path: torch.save(TENSORS, path),
    "torch to a handle": _to_handle(lambda handle: torch.save(TENSORS, handle)),
    "torch, small": lambda path: [torch.save({"a": torch.zeros(9000)}, f"{path}{n}") for n in range(99)],
    "torch, old form": lambda path: torch.save(TENSORS, path, _use_new_zipfile_serialization=False),
    "numpy": _to_handle(lambda handle: np.save(handle, np.zeros(1 << 18))),
    "numpy, several": lambda path: np.savez(path, a=np.zeros(1 << 18)),
    "numpy, raw": lambda path: np.zeros(1 << 18).tofile(path),
    "python": lambda path: path.write_bytes(bytes(1 << 21)),
    "sqlite": _sqlite,
    "embeddings": lambda path: Embeddings(np.zeros((1 << 12, 128), np.float32)).save(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_kind_of_error_that_names_the_place(name, small_disk, tmp_path):
    path = small_disk(tmp_path / "disk", kib=256) / "file"
    with pytest.raises(OSError) as caught, disk.writing(path):
        WRITERS[name](path)
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).startswith(str(tmp_path / "disk"))


@pytest.mark.parametrize("error", [ValueError("a"), RuntimeError("shapes differ"), KeyError("b"), BankError("c: full")])
def test_other_errors_stay_as_they_are(error, tmp_path):
    with pytest.raises(type(error)) as caught, disk.writing(tmp_path):
        raise error
    assert caught.value is error


def _merge(root, target):
    folders = [str(make_encoder(root / f"m{seed}", "xlmr", pooling="cls", m3=True, seed=seed)) for seed in (1, 2)]
    return lambda: merge(folders, str(target), Mix(((1.0, 1.0),)))


def _shrink(root, target):
    source = make_encoder(root / "m", "bert")
    return lambda: shrink(source, target, layers=[0], texts=["tea"], vocabulary=20)


def _pack(root, target):
    source = make_encoder(root / "m", "bert")
    return lambda: pack(source, target)


OUTPUTS = {"merge": _merge, "shrink": _shrink, "pack": _pack}


@pytest.mark.parametrize("name", OUTPUTS)
def test_making_a_checkpoint_on_a_full_disk_names_it(name, small_disk, tmp_path):
    place = small_disk(tmp_path / "disk", kib=20)
    make = OUTPUTS[name](tmp_path, place / "out")
    with pytest.raises(OSError) as caught:
        make()
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).startswith(str(place))


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_outputs_have_the_modes_of_the_umask(name, mask, tmp_path):
    make = OUTPUTS[name](tmp_path, tmp_path / "out")
    before = os.umask(mask)
    try:
        make()
    finally:
        os.umask(before)
    items = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert any(item.name in ("model.safetensors", PACKED) for item in items)
    for item in items:
        assert stat.S_IMODE(item.stat().st_mode) == (0o777 if item.is_dir() else 0o666) & ~mask, item


def test_modes_are_widened_only(tmp_path):
    (tmp_path / "program").write_text("")
    (tmp_path / "program").chmod(0o755)
    (tmp_path / "link").symlink_to("/etc/shadow")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2770)
    disk.open_to_others(tmp_path)
    assert stat.S_IMODE((tmp_path / "program").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) & 0o2770 == 0o2770


@pytest.mark.parametrize("kib", [8, 64, 128, 256])
def test_a_bank_on_a_full_disk(kib, small_disk, tmp_path):
    """Wherever the disk becomes full: making the record, filling it, or saving the indexes."""
    place = small_disk(tmp_path / "disk", kib=kib)
    seeds = [{"text": f"{'leather wallet ' * 20}{number}", "metadata": {}, "id": number} for number in range(400)]
    with pytest.raises((BankError, OSError)) as caught:
        build(place / "bank", seeds, BankSettings(routes=["bm25"]))
    message = str(caught.value)
    assert str(place) in message and "\n" not in message
    assert "full" in message or "No space" in message
    assert not (place / "bank").exists()
