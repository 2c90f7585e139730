"""Snapshots from elsewhere: nothing outside of them is read, and garbage in them is told in one line."""

import json
import os
import shutil

import pytest

from ecom_rag.errors import BankError
from ecom_rag.seeds.bank import restore, saved, snapshot
from helpers.small_banks import Hashing, built, seed


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A snapshot with saved indexes."""
    root = tmp_path_factory.mktemp("copied")
    with built(root / "bank", [seed(n) for n in range(20)], encoder=Hashing()) as bank:
        snapshot(bank, root / "snapshot")
    return root / "snapshot"


def _places(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def _link(path, kept):
    shutil.move(path, kept)
    path.symlink_to(kept)


def _relative_link(path, kept):
    shutil.move(path, kept)
    path.symlink_to(os.path.relpath(kept, path.parent))


def _dangling(path, kept):
    shutil.move(path, kept)
    path.symlink_to(kept.with_name("nowhere"))


def _pipe(path, kept):
    shutil.move(path, kept)
    os.mkfifo(path)


@pytest.mark.parametrize("replace", [_link, _relative_link, _dangling, _pipe])
def test_restore_follows_no_link_and_opens_no_pipe(replace, copied, tmp_path):
    places = _places(copied)
    assert len(places) > 6
    for number, place in enumerate([*places, None]):
        snapshot = shutil.copytree(copied, tmp_path / f"s{number}")
        if place is None:  # one more than a snapshot has
            (snapshot / "indexes" / "more").write_text("")
            place = "indexes/more"
        replace(snapshot / place, tmp_path / f"kept{number}")
        with pytest.raises(BankError) as caught:
            restore(snapshot, tmp_path / "restored")
        assert "\n" not in str(caught.value) and str(snapshot) in str(caught.value)
        assert not list(tmp_path.glob("restored*"))


def test_the_snapshot_itself_may_be_named_by_a_link(copied, tmp_path):
    (tmp_path / "latest").symlink_to(copied)
    restore(tmp_path / "latest", tmp_path / "restored")


@pytest.mark.parametrize(
    "content",
    [
        b"[1]",
        b"null",
        b"1",
        b'"a"',
        b"{}",
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b" " * (5 << 20),
        b'{"sha256": 1, "sequence": 1, "documents": 1}',
        b'{"sha256": "0", "sequence": "1", "documents": 1}',
        b'{"sha256": "0", "sequence": 1' + b"0" * 5000 + b', "documents": 1}',
    ],
    ids=lambda content: repr(content[:12]),
)
@pytest.mark.parametrize("name", ["snapshot.json", "manifest.json"])
def test_garbage_in_a_snapshots_notes(name, content, copied, tmp_path):
    snapshot = shutil.copytree(copied, tmp_path / "snapshot")
    next(snapshot.rglob(name)).write_bytes(content)
    if name == "manifest.json":  # of indexes, which are built anew
        restore(snapshot, tmp_path / "restored")
        return
    with pytest.raises(BankError) as caught:
        restore(snapshot, tmp_path / "restored")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_manifest_names_no_file_elsewhere(copied, tmp_path):
    snapshot = shutil.copytree(copied, tmp_path / "snapshot")
    manifest = next(snapshot.rglob("manifest.json"))
    content = json.loads(manifest.read_text())
    name, entry = next(iter(content["files"].items()))
    shutil.copy(manifest.parent / name, tmp_path / name)
    content["files"][str(tmp_path / name)] = entry
    manifest.write_text(json.dumps(content))
    with pytest.raises(saved.DamagedError, match="outside the folder"):
        saved.load(manifest.parent, content["header"])


def _folder(path):
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def _link_to_a_folder(path):
    _folder(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("make", [_folder, _link_to_a_folder])
def test_what_is_in_the_way_of_a_copy_stays(make, copied, tmp_path):
    make(tmp_path / "restored.copying")
    with pytest.raises(BankError, match=r"move (it|the folder) away"):
        restore(copied, tmp_path / "restored")
    assert (tmp_path / "restored.copying" / "notes.txt").read_text() == "mine"


def test_what_a_killed_copy_left_is_replaced(copied, tmp_path, monkeypatch):
    from ecom_rag.files import workfolders
    from ecom_rag.seeds.bank import copies

    with monkeypatch.context() as killed:
        killed.setattr(workfolders, "discard", lambda _: None)
        killed.setattr(copies.digest, "of_file", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            restore(copied, tmp_path / "restored")
    assert (tmp_path / "restored.copying").is_dir()
    restore(copied, tmp_path / "restored")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["restored"]
