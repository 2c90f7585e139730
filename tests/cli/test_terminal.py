"""What a terminal shows: data are shown and never obeyed, and who asks for quiet is told of errors alone."""

import os
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ecom_rag.cli import app, main
from ecom_rag.cli.options import bars
from ecom_rag.evaluation import tables
from ecom_rag.files import records
from ecom_rag.files.keys import written
from ecom_rag.files.progress import stage
from ecom_rag.seeds.bank import BankSettings, create

pytestmark = pytest.mark.slow

ODD = st.text(st.sampled_from("\x1b\x07\x9b\r\u202ea[31mb"), min_size=1)


def obeyed(text):
    return {character for character in text if character in "\x1b\x07\x9b\r\u202e"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=ODD)
def test_bank_info_shows_labels_and_keys(tmp_path_factory, label):
    path = tmp_path_factory.mktemp("b") / "bank"
    with create(path, BankSettings(routes=["bm25"], id_key=written(label))) as bank:
        bank.upsert([{"text": "t", "metadata": {label: "x", "label": label}}])
    done = CliRunner().invoke(app, ["bank", "info", str(path)])
    assert done.exit_code == 0 and not obeyed(done.stdout)
    assert len(done.stdout.splitlines()) == 8


@given(st.lists(st.lists(ODD, min_size=2, max_size=2), min_size=1))
def test_tables_are_aligned_whatever_is_in_a_cell(body):
    shown = tables.table(["label", "figure"], body)
    assert not obeyed(shown) and len(shown.split("\n")) == 1 + len(body)


@pytest.fixture
def told(tmp_path, monkeypatch, capfd):
    """A function that runs a command line in a folder with seeds; its exit code and what it told."""
    lines = [{"text": f"wallet {i}", "metadata": {"id": str(i % 3)}} for i in range(6)]
    (tmp_path / "s.jsonl").write_bytes(b"".join(map(records.dumps, lines)))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ecom-rag", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capfd.readouterr().err

    return run


RECALL = ("recall", "s.jsonl", "--seeds", "s.jsonl", "-o", "o.jsonl")


@pytest.mark.parametrize("option", ["--quiet", "-q"])
def test_quiet_tells_nothing_but_errors(told, monkeypatch, option):
    assert "recalled for 6 records" in told(*RECALL)[1] and "note: " in told(*RECALL)[1]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert told(*RECALL, option) == (0, "")
    assert told("bank", "build", "b", "--seeds", "s.jsonl", "--routes", "bm25", "--id-key", "no", option) == (0, "")
    code, shown = told("recall", "none.jsonl", *RECALL[2:], option)
    assert code == 2 and "none.jsonl: no such file" in shown and shown.count("\n") == 1
    assert "recalled for 6 records" in told(*RECALL)[1]  # the next command is not quiet


def test_quiet_and_verbose_contradict_each_other(told):
    assert told(*RECALL, "-q", "-v") == (
        2,
        "ecom-rag: --verbose and --quiet contradict each other; leave one of them out\n",
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ecom-rag re", {"rerank", "recall"}),
        ("ecom-rag score --prec", {"--precision"}),
        ("ecom-rag score --mode ", {"dense", "sparse", "multivector", "hybrid"}),
        ("ecom-rag bank rest", {"restore"}),
    ],
)
def test_a_shell_is_told_what_may_follow_without_loading_models(words, expected):
    code = (
        "import atexit, sys; atexit.register(lambda: print(*{'torch', 'numba'} & set(sys.modules), file=sys.stderr));"
    )
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_ECOM_RAG_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", f"{code} from ecom_rag.__main__ import main; main()"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True)
    assert (done.returncode, set(done.stdout.split()), done.stderr.strip()) == (0, expected, "")


def test_every_bar_has_the_clock_of_its_own_stage(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with bars() as progress:
        step = stage(progress, "encoding", 4)
        now += 7
        step(4)
        other = stage(progress, "scoring", None)
        now += 20
        other(3)
        step = stage(progress, "encoding", 9)  # comes back
        now += 5
        step(5)
        now += 1
    lines = [line.split("\r")[-1] for line in capsys.readouterr().err.rstrip("\n").split("\n")]
    assert [re.findall(r"^(\w+): .*?(\d+)(?:/\d+)? \[(\d\d:\d\d)", line) for line in lines] == [
        [("encoding", "4", "00:07")],
        [("scoring", "3", "00:20")],
        [("encoding", "9", "00:13")],
    ]
