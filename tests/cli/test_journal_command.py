"""journal verify finds what was changed; export writes what people said."""

import shutil
import sqlite3

import pytest

from ecom_rag.cli import main
from ecom_rag.files import records
from ecom_rag.serving.journal import Journal
from helpers import journals


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def call(*words: str):
        monkeypatch.setattr("sys.argv", ["ecom-rag", "journal", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capfd.readouterr()
        return ended.value.code, shown.out, shown.err

    return call


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "journal.db") as own:
        first, second = journals.put(own, journals.to_review("one", id=1), journals.automatic("two", id=2))
        own.verdict(first, actor="li", label="spam")
        own.verdict(second, actor="li", label="fraud")
        yield own


def test_verify_prints_the_head_also_while_the_journal_is_open(run, journal):
    code, out, err = run("verify", "journal.db")
    head = journal.head()
    assert (code, out) == (0, f"{head.sequence}:{head.hash}\n") and "4 entries, all as they were written" in err
    journal.verdict(journal.decisions().items[0].id, actor="wang", label="ok")
    assert run("verify", "journal.db", "--known", out.strip())[0] == 0
    code, _, err = run("verify", "journal.db", "--known", f"{head.sequence}:{'0' * 64}")
    assert code == 2 and f"entry {head.sequence} is not the one whose hash was kept elsewhere" in err


def test_verify_names_a_changed_entry(run, journal, tmp_path):
    journal.close()
    shutil.copy(tmp_path / "journal.db", tmp_path / "changed.db")
    with sqlite3.connect(tmp_path / "changed.db") as db:
        db.execute("DROP TRIGGER no_update")
        db.execute("UPDATE entries SET actor = 'wang' WHERE sequence = 3")
    code, out, err = run("verify", "changed.db")
    assert code == 2 and not out and "entry 3 was changed" in err


@pytest.mark.parametrize(
    ("kind", "keys"), [("verdicts", {"topk_sim"}), ("training", set()), ("decided", {"topk_sim", "decision"})]
)
def test_export(run, journal, tmp_path, kind, keys):
    code, _, err = run("export", "journal.db", "--kind", kind, "--label-key", "said.label", "--output", "out.jsonl")
    assert code == 0 and "2 records -> out.jsonl" in err
    found = list(records.read(str(tmp_path / "out.jsonl")))
    assert [(one["text"], one["metadata"]["said"]) for one in found] == [
        ("one", {"label": "spam"}),
        ("two", {"label": "fraud"}),
    ]
    assert all(set(one) & {"topk_sim", "decision"} == keys for one in found)
    assert run("export", "journal.db", "--bank", "other", "--output", "none.jsonl")[0] == 0
    assert (tmp_path / "none.jsonl").read_bytes() == b""


@pytest.mark.parametrize("words", [["verify", "no.db"], ["export", "no.db", "--output", "o.jsonl"]])
def test_a_journal_that_is_not_there_is_not_made(run, tmp_path, words):
    code, _, err = run(*words)
    assert code == 2 and "no.db: is not a file; expected journal.db" in err and not list(tmp_path.iterdir())


def test_known_must_be_a_head(run, journal):
    code, _, err = run("verify", "journal.db", "--known", "abc")
    assert code == 2 and "'abc' is not SEQUENCE:HASH" in err
