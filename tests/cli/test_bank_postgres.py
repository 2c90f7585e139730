"""The commands over a bank in PostgreSQL: the same outputs as over a bank on disk, and one line for what cannot be."""

import json
import sys

import pytest

from ecom_rag.files import records
from ecom_rag.seeds.opening import open_remote

pytestmark = pytest.mark.slow


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)

    def go(*arguments):
        from ecom_rag.cli import main

        monkeypatch.setattr(sys, "argv", ["ecom-rag", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return go


def write(path, items):
    path.write_bytes(b"".join(map(records.dumps, items)))
    return path


def listings(count, first=0):
    words = ["replica watch", "全国 销量第一 茶", "leather wallet"]
    return [
        {"text": f"{words[n % 3]} {n % 11}", "metadata": {"id": n, "label": "abc"[n % 3], "price": n % 7}}
        for n in range(first, first + count)
    ]


@pytest.fixture
def both(run, tmp_path, postgres_url, m3_folder):
    """A folder and an address with the same seeds, built and changed by the commands."""
    url, seeds, more = postgres_url(), tmp_path / "seeds.jsonl", tmp_path / "more.jsonl"
    write(seeds, listings(60))
    write(more, listings(30, 50))
    for bank in ("disk", url):
        model = ("--model", m3_folder, "--runtime", "torch", "--routes", "bm25,dense,sparse,variant")
        code, _, err = run("bank", "build", bank, "--seeds", seeds, *model, "--index-key", "label")
        assert code == 0 and "of 60 records" in err, err
        assert run("bank", "add", bank, more, "--runtime", "torch")[0] == 0
        assert "removed 2 documents" in run("bank", "delete", bank, "--id", 3, "--id", 4, "--id", 999)[2]
        assert "would remove 10 of" in run("bank", "delete", bank, "--filter", "price = 3", "--dry-run")[2]
        assert run("bank", "delete", bank, "--filter", "price = 3")[0] == 0
    return url


def test_outputs_are_those_of_a_bank_on_disk(run, both, tmp_path):
    queries = write(
        tmp_path / "queries.jsonl", [{"text": text} for text in ("watch 3", "销.量.弟一", "wallet", "w4llet")]
    )
    for bank, name in (("disk", "ours"), (both, "theirs")):
        plain = ("--bank", bank, "--runtime", "torch")
        assert run("recall", queries, *plain, "--output", f"{name}-recall.jsonl", "--filter", 'label != "a"')[0] == 0
        assert run("score", queries, *plain, "--output", f"{name}-score.jsonl", "--top-k", 5)[0] == 0
        assert run("audit", "--bank", bank, "--runtime", "torch", "--output", f"{name}-audit.jsonl")[0] == 0
        assert run("bank", "export", bank, "--output", f"{name}-export.jsonl")[0] == 0
        listed = run("bank", "list", bank, "--filter", "price < 2", "--limit", 7)[1]
        got = run("bank", "get", bank, 7, 999)[1]
        (tmp_path / f"{name}-shown.jsonl").write_text(listed + got)
    for kind in ("recall", "score", "audit", "export", "shown"):
        ours, theirs = ((tmp_path / f"{name}-{kind}.jsonl").read_bytes() for name in ("ours", "theirs"))
        assert ours == theirs and ours.count(b"\n") > 3, kind


def test_info_and_refresh(run, both):
    ours, theirs = (json.loads(run("bank", "info", bank, "--json")[1]) for bank in ("disk", both))
    for key in ("documents", "sequence", "model", "routes", "labels", "analyzer", "index_keys"):
        assert ours[key] == theirs[key], key
    assert theirs["exactness"] == "exact" and theirs["fsync"] == "on" and theirs["engine"].startswith("PostgreSQL ")
    table = run("bank", "info", both)[1]
    assert "results  exact" in table and "pgvector" in table
    code, _, err = run("bank", "refresh", both)
    assert code == 0 and "made the terms of" in err and "anew" in err
    assert run("bank", "refresh", "disk")[2].startswith("ecom-rag: disk: is a bank on disk, which keeps its indexes")


def test_migrate_there_and_back(run, both, tmp_path, postgres_url):
    url = postgres_url()
    assert run("bank", "migrate", "disk", url)[0] == 0
    code, _, err = run("bank", "migrate", url, "again", "--routes", "bm25,variant")
    assert code == 0 and "copied 68 documents as of change 1 -> again" in err
    queries = write(tmp_path / "queries.jsonl", [{"text": "watch 3"}, {"text": "销.量.弟一"}])
    for bank, name in ((both, "one"), (url, "two"), ("again", "three")):
        assert run("recall", queries, "--bank", bank, "--output", f"{name}.jsonl", "--routes", "bm25,variant")[0] == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "three.jsonl").read_bytes()


def test_passwords_are_never_shown(run, both, tmp_path):
    """The server trusts everybody, so a password changes nothing here."""
    secret = both.replace("postgres@", "postgres:secret@")
    more = write(tmp_path / "bad.jsonl", [{"text": "one more"}])
    more.write_bytes(more.read_bytes() + b"not json\n")
    queries = write(tmp_path / "queries.jsonl", [{"text": "watch"}])
    commands = (
        ("bank", "add", secret, more, "--on-bad-line", "skip", "--runtime", "torch"),
        ("bank", "delete", secret, "--id", 1),
        ("bank", "get", secret, "none"),
        ("bank", "info", secret),
        ("bank", "info", secret, "--json"),
        ("bank", "build", secret, "--seeds", more, "--routes", "bm25"),
        ("bank", "snapshot", secret, "copy"),
        ("recall", queries, "--bank", secret, "--output", "out.jsonl", "--runtime", "torch"),
        ("bank", "migrate", secret, "disk"),
    )
    for command in commands:
        code, out, err = run(*command)
        assert "secret" not in out + err, command
        assert "Traceback" not in err and (code == 0 or err.count("\n") == 1), command
    beside = {path.name for path in tmp_path.iterdir()}
    assert all("secret" not in path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file())
    with open_remote(both) as bank:
        assert f"{bank.engine.address.name}.rejected.jsonl" in beside


def test_what_needs_a_bank_on_disk_says_so_in_one_line(run, both, tmp_path):
    commands = (
        ("bank", "snapshot", both, "copy"),
        ("serve", "--bank", both),
        ("serve", "--bank", f"name={both}"),
    )
    for command in commands:
        code, _, err = run(*command)
        assert code == 2 and err.count("\n") == 1 and "is a bank in PostgreSQL" in err, (command, err)
    code, _, err = run("bank", "build", both, "--seeds", tmp_path / "seeds.jsonl", "--routes", "bm25")
    assert code == 2 and "already exists; add to a bank" in err
