"""Keys: made once, held as digests, revoked without a restart, and a damaged file takes nobody's access away."""

import json
import logging
import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.serving import keys
from ecom_rag.serving.keys import Keys


class Clock:
    """Seconds that pass when told."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


def test_a_key_is_checked_and_not_stored(file):
    token = keys.add(file, "search", ["read"])
    assert token.startswith("ecr_") and len(token) == 47
    assert token not in file.read_text() and stat.S_IMODE(file.stat().st_mode) == 0o600
    found = Keys(file).check(token)
    assert found is not None and found.name == "search"
    assert found.allows("read") and not found.allows("write") and not found.allows("admin")
    for wrong in ("", token[:-1], token + " ", token.upper(), "茶", "\ud800"):
        assert Keys(file).check(wrong) is None


def test_admin_may_do_everything(file):
    token = keys.add(file, "root", ["admin"])
    found = Keys(file).check(token)
    assert all(found.allows(scope) for scope in keys.SCOPES)


def test_a_running_service_follows_the_file(file):
    clock = Clock()
    first = keys.add(file, "first", ["read"])
    running = Keys(file, ticks=clock)
    second = keys.add(file, "second", ["write"])
    assert running.check(second) is None  # not looked at again within a second
    clock.now += 1
    assert running.check(second).name == "second"
    keys.revoke(file, "first")
    clock.now += 1
    assert running.check(first) is None and running.check(second).name == "second"


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"keys": [{}]}', b"[" * 100_000, b'{"keys": {}}', b"\xff"])
def test_a_damaged_file_keeps_the_keys_of_before(file, caplog, content):
    clock = Clock()
    token = keys.add(file, "search", ["read"])
    running = Keys(file, ticks=clock)
    good = file.read_bytes()
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    for _ in range(3):
        clock.now += 1
        assert running.check(token).name == "search"
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1 and "the keys of before stay in force" in said[0].getMessage()
    file.write_bytes(good.replace(b"search", b"mended"))
    clock.now += 1
    assert running.check(token).name == "mended"


def test_expiry(file):
    clock = Clock()
    token = keys.add(file, "search", ["read"], expires="2099-01-01")
    running = Keys(file, clock=clock)
    assert running.check(token) is not None and running.named("search") is not None
    clock.now = running.check(token).expires.timestamp()
    assert running.check(token) is None and running.named("search") is None


def test_a_file_that_others_may_open_is_told(file, caplog):
    keys.add(file, "search", ["read"])
    Keys(file)
    assert not caplog.records
    file.chmod(0o644)
    Keys(file)
    assert "mode 644" in caplog.text and "chmod 600" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scopes": ["reed"]}, "keys[0].scopes: 'reed' is unknown; expected some of read, write, review, admin"),
        ({"scopes": []}, "names no scope"),
        ({"scopes": "read"}, "names no scope"),
        ({"sha256": "ecr_secret"}, "never the key itself"),
        ({"name": "a b"}, "keys[0].name"),
        ({"created": 3}, "keys[0].created: 3 is no date"),
        ({"expires": "soon"}, "keys[0].expires: 'soon' is no date"),
        ({"rate": 1}, "'rate' is unknown"),
    ],
)
def test_a_wrong_file_says_where(file, changed, said):
    keys.add(file, "search", ["read"])
    content = json.loads(file.read_text())
    content["keys"][0] |= changed
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError) as error:
        Keys(file)
    assert said in str(error.value) and str(file) in str(error.value)


def test_names_are_unique_and_changes_are_refused_with_the_file_as_it_was(file, tmp_path):
    keys.add(file, "search", ["read"])
    before = file.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        keys.add(file, "search", ["write"])
    with pytest.raises(UsageError, match="holds no key with the name 'nobody'; its keys: search"):
        keys.revoke(file, "nobody")
    with pytest.raises(UsageError, match="is past"):
        keys.add(file, "other", ["read"], expires="2020-01-01")
    with pytest.raises(UsageError, match="no such file"):
        keys.revoke(tmp_path / "none.json", "search")
    assert file.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["keys.json"]


def test_a_link_stays_a_link(file, tmp_path):
    link = tmp_path / "link.json"
    keys.add(file, "first", ["read"])
    link.symlink_to(file)
    keys.add(link, "second", ["read"])
    assert link.is_symlink() and [key.name for key in keys.read(file)] == ["first", "second"]


def test_many_writers_lose_no_key(file):
    def make(number: int) -> None:
        for part in "ab":
            keys.add(file, f"{part}{number}", ["read"])

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys.read(file)) == 16


def test_a_streamed_name_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name in ("-", pipe):
        with pytest.raises(UsageError, match="is no plain file"):
            keys.add(name, "search", ["read"])


@given(st.text(max_size=80))
def test_any_name_is_taken_whole_or_refused(name):
    taken = keys._NAME.fullmatch(name) is not None
    assert taken == (
        0 < len(name) <= 64 and name[0].isalnum() and name.isascii() and all(c.isalnum() or c in "._-" for c in name)
    )
