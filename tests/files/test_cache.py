"""The cache is never needed: where it cannot be written, or holds garbage, results are the same."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ecom_rag
from conftest import TEXTS
from ecom_rag import CrossEncoder, Encoder, environment
from ecom_rag.files import cache, digest
from ecom_rag.models.checkpoints.fingerprint import fingerprint

pytestmark = pytest.mark.slow

LARGE = (1 << 20) + 5000  # bytes; digests of smaller files are not remembered


@pytest.fixture(autouse=True)
def _warn_anew(monkeypatch):
    monkeypatch.setattr(cache, "_warned", set())


def _below_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path / "file" / "cache"))


def _home_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("ECOM_RAG_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))


def _takes_no_files(tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_CACHE", "/proc/ecom_rag")


def _full(tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path / "disk" / "cache"))


UNWRITABLE = [_below_a_file, _home_is_a_file, _takes_no_files, _full]


@pytest.mark.parametrize("make", UNWRITABLE)
@pytest.mark.parametrize("uses", ["fused", "openvino", "starter reranker"])
def test_an_unwritable_cache_changes_no_result_and_is_told_once(
    make, uses, bge_folder, tmp_path, monkeypatch, caplog, request
):
    def run():
        if uses == "starter reranker":
            return CrossEncoder.from_pretrained("starter").score([("tea", "green tea"), ("tea", "a wallet")])
        runtime = "openvino" if uses == "openvino" else "torch"
        return Encoder.from_pretrained(str(bge_folder), runtime=runtime, precision="fp32").encode(TEXTS).dense

    expected = run()
    if make is _full:
        request.getfixturevalue("small_disk")(tmp_path / "disk", kib=4)
    make(tmp_path, monkeypatch)
    with caplog.at_level(logging.WARNING):
        found = run()
    np.testing.assert_array_equal(found, expected)
    told = [record.getMessage() for record in caplog.records if "cannot be written" in record.getMessage()]
    assert len(told) == 1
    assert "ECOM_RAG_CACHE" in told[0]


def test_without_a_home_there_is_a_cache(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ECOM_RAG_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache.keep(cache.cache_folder() / "digests" / "a", "b")


GARBAGE = [b"", b"[1]", b"null", b"{}", b"[" * 100_000, b"\xff\xfe", b"z" * 64, b"0" * 63]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda content: repr(content[:8]))
def test_garbage_in_the_cache_is_made_anew(garbage, bge_folder, tmp_path, monkeypatch):
    def run():
        dense = Encoder.from_pretrained(str(bge_folder), runtime="openvino", precision="fp32").encode(TEXTS).dense
        return dense, CrossEncoder.from_pretrained("starter").score([("tea", "green tea")]), digest.remembered(large)

    large = tmp_path / "large"
    large.write_bytes(os.urandom(LARGE))
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path / "cache"))
    expected = run()
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.parent.name != "kernels"]
    kinds = {path.suffix for path in files}
    assert kinds >= {"", ".json", ".tokenizer", ".xml", ".bin", ".safetensors"}
    for path in files:
        if path.name == "model.safetensors" or path.parent.parent.name != "unpacked":  # its other files are not ours
            path.write_bytes(garbage)
    for one, other in zip(run(), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def _other_bytes(path):
    """Other content of the same length, as other weights are: everywhere."""
    return bytes(byte ^ 1 for byte in path.read_bytes())


def _in_place(path):
    with path.open("r+b") as handle:
        handle.write(_other_bytes(path))


def _renamed(path):
    other = path.with_suffix(".other")
    other.write_bytes(_other_bytes(path))
    other.replace(path)


def _copied_with_its_times(path):
    other = path.with_suffix(".other")
    other.write_bytes(_other_bytes(path))
    stat = path.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    path.unlink()
    shutil.copy2(other, path)
    other.unlink()


@pytest.mark.parametrize("replace", [_in_place, _renamed, _copied_with_its_times])
@pytest.mark.parametrize("same_status", [False, True])
def test_other_weights_of_equal_size_and_time_have_another_fingerprint(
    replace, same_status, bge_folder, tmp_path, monkeypatch
):
    folder = tmp_path / "model"
    shutil.copytree(bge_folder, folder)
    weights = folder / "pytorch_model.bin"
    weights.write_bytes(os.urandom(LARGE))
    before, stat = fingerprint(folder), weights.stat()
    assert fingerprint(folder) == before
    replace(weights)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if same_status:  # as if inode and time of change of status were the same too, as layers of an image can have it
        monkeypatch.setattr(digest.os, "fstat", lambda _: stat)
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert fingerprint(folder) != before


def test_a_digest_is_remembered(tmp_path, monkeypatch):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(LARGE))
    found = digest.remembered(path)
    monkeypatch.setattr(digest, "of_file", lambda _: pytest.fail("read again"))
    assert digest.remembered(path) == found


@pytest.mark.parametrize("asked", [None, "kernels", "file/kernels"])
@pytest.mark.parametrize("cache_place", ["cache", "file/cache"])
def test_kernels_of_a_read_only_install_are_kept_where_files_can_be_made(
    asked, cache_place, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path / cache_place))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    if asked:
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / asked))
    with caplog.at_level(logging.WARNING):
        found = cache.kernels_folder(tmp_path / "file" / "ecom_rag")
    if asked == "kernels":
        assert found is None
    elif cache_place == "cache":
        assert found == tmp_path / "cache" / "kernels"
    else:
        assert found.parent.is_dir()
    assert ("ECOM_RAG_CACHE" in caplog.text) == (asked != "kernels" and cache_place != "cache")


def test_an_install_that_can_be_written_keeps_its_kernels_itself(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert cache.kernels_folder(tmp_path) is None


def test_kernels_lie_beside_their_source_at_any_depth(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path / "cache"))
    room = tmp_path / "ecom_rag" / "models" / "networks"
    room.mkdir(parents=True)
    (room / "__pycache__").write_text("")  # nothing can be made in it
    assert cache.kernels_folder(tmp_path / "ecom_rag") == tmp_path / "cache" / "kernels"


def test_kernels_compile_where_neither_package_nor_cache_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    code = (
        "from ecom_rag.files import cache; cache._takes_files = lambda folder: False\n"
        "import sys; del sys.modules['ecom_rag']; import ecom_rag\n"
        "import numba, os; print(numba.config.CACHE_DIR, os.environ['NUMBA_CACHE_DIR'])\n"
        "numba.njit(cache=True)(ecom_rag.__getattr__)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_plain_environment(tmp_path))
    assert run.returncode == 0, run.stderr
    one, other = run.stdout.split()
    assert one == other
    assert run.stderr.count("ECOM_RAG_CACHE") == 1
    assert not Path(one).exists()  # gone with the process


def test_what_was_loaded_before_is_told_too(monkeypatch, tmp_path):
    import numba

    monkeypatch.setattr(environment, "kernels_folder", lambda _: tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    environment.prepare()
    assert str(tmp_path) == numba.config.CACHE_DIR


def _plain_environment(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "NUMBA_CACHE_DIR", "ECOM_RAG_CACHE")}
    source = str(Path(ecom_rag.__file__).parents[1])
    return kept | {"HOME": str(home), "PYTHONPATH": source}
