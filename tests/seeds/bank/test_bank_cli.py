"""ecom-rag bank: what the library does, one line for every mistake, and a killed build that goes on."""

import gzip
import json
import signal
import subprocess
import sys
import time

import pytest

from ecom_rag.files import records
from ecom_rag.seeds.bank import BankSettings, SeedBank, build

pytestmark = pytest.mark.slow


def run(*arguments, stdin=None):
    command = [sys.executable, "-m", "ecom_rag", "bank", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True)


@pytest.fixture
def here(monkeypatch, capfd):
    def go(*arguments):
        from ecom_rag.cli import main

        monkeypatch.setattr(sys, "argv", ["ecom-rag", "bank", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return go


def write(path, items):
    path.write_bytes(b"".join(map(records.dumps, items)))
    return path


def seeds(count, first=0):
    return [
        {"text": f"replica watch {n} 茶", "metadata": {"id": n, "label": "ab"[n % 2]}}
        for n in range(first, first + count)
    ]


def test_build_add_delete_info_snapshot_restore(here, tmp_path, bge_folder):
    file, bank = write(tmp_path / "seeds.jsonl", seeds(30)), tmp_path / "bank"
    code, _, err = here(
        "build", bank, "--seeds", file, "--model", bge_folder, "--runtime", "torch", "--index-key", "label"
    )
    assert (code, err.startswith(f"ecom-rag: built {bank} of 30 records in ")) == (0, True)
    more = tmp_path / "more.jsonl.gz"
    more.write_bytes(gzip.compress(b"".join(map(records.dumps, seeds(10, 25)))))
    code, _, err = here("add", bank, more, "--runtime", "torch")  # the bank knows its model
    assert code == 0 and "added 10 records" in err and "5 took another's place" in err
    for arguments, count in ((("--id", 1, "--id", 1, "--id", 99), 1), (("--filter", 'labl != "a"'), 35)):
        said = here("delete", bank, *arguments, "--dry-run")[2]
        assert said == f"ecom-rag: would remove {count} of 35 documents from {bank}\n"
    assert here("delete", bank, "--id", 1, "--id", 99)[2] == (
        f"ecom-rag: removed 1 documents from {bank}, 34 are left; ids that do not exist: 1\n"
    )
    assert "removed 17 documents" in here("delete", bank, "--filter", 'label = "a" and id < 34')[2]
    stats = json.loads(here("info", bank, "--json")[1])
    assert (stats["documents"], stats["labels"], stats["sequence"]) == (17, {"b": 16, "a": 1}, 4)
    shown = here("info", bank)[1]
    assert "17 (23 removed rows not yet dropped)" in shown and "label  b 16, a 1" in shown
    assert (
        here("snapshot", bank, tmp_path / "copy")[0] == here("restore", tmp_path / "copy", tmp_path / "again")[0] == 0
    )
    with SeedBank.open(bank) as one, SeedBank.open(tmp_path / "again") as two:
        ids = list(range(35))
        assert one.get(ids) == two.get(ids)
        with one.view() as ours, two.view() as theirs:
            for view in (ours, theirs):
                assert len(view.index("bm25").search(["watch"], 50).rows[0]) == 17


def test_stdin_and_refused_lines(tmp_path):
    bank = tmp_path / "bank"
    lines = b'{"text": "a", "metadata": {"id": "x"}}\nnope\n{"text": "b", "metadata": {"id": [1]}}\n{"text": "c"}\n'
    done = run("build", bank, "--seeds", "-", "--routes", "bm25", "--on-bad-line", "skip", stdin=lines)
    assert done.returncode == 0 and b"2 lines were refused and written to" in done.stderr
    rejected = [json.loads(line) for line in (tmp_path / "bank.rejected.jsonl").read_bytes().splitlines()]
    assert [item["where"] for item in rejected] == ["stdin:2", "stdin:3"]
    assert "expected a string of at least one character, or an integer" in rejected[1]["reason"]
    with SeedBank.open(bank) as opened:
        assert len(opened) == 2
    done = run("build", tmp_path / "other", "--seeds", "-", "--routes", "bm25", stdin=lines)
    assert done.returncode == 2 and done.stderr.startswith(b"ecom-rag: stdin:2: not valid JSON")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bank", "bank.rejected.jsonl"]


def test_refused_lines_are_not_held_in_memory_and_an_earlier_run_keeps_its_own(tmp_path):
    from ecom_rag.cli.incoming import Source

    file, rejected = tmp_path / "seeds.jsonl", tmp_path / "bank.rejected.jsonl"
    file.write_bytes(b'nope\n{"text": "a"}\nnor this\n{"text": "b"}\n')
    source = Source(str(file), str(tmp_path / "bank"), "id", "skip")
    for _ in source.records():
        assert not source.report.rejections
    assert source.report.rejected == 2 and source.notes == [f"2 lines were refused and written to {rejected}"]
    earlier = rejected.read_bytes()
    write(file, seeds(2))
    clean = Source(str(file), str(tmp_path / "bank"), "id", "skip")
    assert len(list(clean.records())) == 2
    assert clean.notes == [f"{rejected} was there before this run, which refused no line, and is left as it was"]
    file.write_bytes(b"else\n")
    again = Source(str(file), str(tmp_path / "bank"), "id", "skip")
    assert list(again.records()) == [] and "written to" in again.notes[0] and "rejected-2.jsonl" in again.notes[0]
    assert rejected.read_bytes() == earlier and len((tmp_path / "bank.rejected-2.jsonl").read_bytes().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "{dir}/none"], "no such folder"),
        (["info", "{dir}"], "not a seed bank"),
        (["build", "{dir}/new", "--seeds", "{dir}/none.jsonl", "--routes", "bm25"], "no such file"),
        (["build", "{dir}/new", "--seeds", "{dir}/s.jsonl"], "the routes dense need a model; give --model"),
        (["build", "{dir}/new", "--seeds", "{dir}/s.jsonl", "--routes", "bm25,magic"], "route 'magic' is unknown"),
        (["build", "{dir}/bank", "--seeds", "{dir}/s.jsonl", "--routes", "bm25"], "already exists"),
        (["build", "{dir}/a/b", "--seeds", "{dir}/s.jsonl", "--routes", "bm25"], "does not exist; create it first"),
        (["delete", "{dir}/bank"], "give one of them"),
        (["delete", "{dir}/bank", "--filter", "label ="], "filter, character 8: found the end; expected a value"),
        (["snapshot", "{dir}/bank", "{dir}/bank"], "already exists"),
        (["restore", "{dir}/bank", "{dir}/new"], "is not a snapshot"),
    ],
)
def test_mistakes_are_one_line(here, tmp_path, arguments, message):
    write(tmp_path / "s.jsonl", seeds(3))
    build(tmp_path / "bank", seeds(3), BankSettings(routes=["bm25"]))
    code, out, err = here(*[argument.replace("{dir}", str(tmp_path)) for argument in arguments])
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob("*.partial"))


def test_a_build_killed_with_kill_9_goes_on(tmp_path):
    bank = tmp_path / "bank"
    feeder = subprocess.Popen(
        [sys.executable, "-m", "ecom_rag", "bank", "build", str(bank), "--seeds", "-", "--routes", "bm25"],
        stdin=subprocess.PIPE,
    )
    feeder.stdin.write(b"".join(map(records.dumps, seeds(5000))))
    feeder.stdin.flush()
    partial = tmp_path / "bank.partial"
    for _ in range(3000):
        if (partial / "bank.db").exists():
            with SeedBank.open(partial, maintain=False) as unfinished:
                if len(unfinished) == 4096:
                    break
        time.sleep(0.01)
    feeder.send_signal(signal.SIGKILL)
    feeder.wait()
    feeder.stdin.close()
    assert not bank.exists() and partial.exists()
    file = write(tmp_path / "seeds.jsonl", seeds(6000))
    done = run("build", bank, "--seeds", file, "--routes", "bm25", "--resume")
    assert done.returncode == 0, done.stderr
    assert b"6000 records, 4096 of them before the interruption" in done.stderr
    with SeedBank.open(bank) as opened:
        assert len(opened) == 6000 and not partial.exists()
