"""Whatever state the standard streams are handed over in, a command ends well: one line or the right output.

A process for each closed descriptor and command.
"""

import io
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecom_rag.cli import guard, main
from ecom_rag.files import records
from ecom_rag.models.checkpoints.locate import locate
from ecom_rag.seeds.bank import BankSettings, build

pytestmark = pytest.mark.slow

RECORDS = [{"text": f"wallet {i} case", "metadata": {"id": str(i), "label": "ab"[i % 2]}} for i in range(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("streams")
    lists = {"topk_sim": [0.9, 0.1], "topk_seed": ["a", "b"], "topk_metadata": [{"id": "1", "label": "a"}] * 2}
    for name, items in (
        ("s.jsonl", RECORDS),
        ("r.jsonl", [{**item, **lists} for item in RECORDS]),
        ("t.jsonl", [{"query": "q", "pos": ["p"], "neg": ["n"]}]),
    ):
        (target / name).write_bytes(b"".join(map(records.dumps, items)))
    build(target / "bank", RECORDS, BankSettings(routes=["bm25"]))
    (target / "recipe.toml").write_text('model = "nowhere"\noutput = "t"\n[data]\ntrain = "t.jsonl"\n')
    return target


RECALL = ["recall", "s.jsonl", "--seeds", "s.jsonl", "--routes", "bm25", "-o"]
COMMANDS = {
    "help": ["--help"],
    "version": ["--version"],
    "nothing": [],
    "wrong": ["recall", "--no-such"],
    "recall": [*RECALL, "-"],
    "recall a pipe": ["recall", "-", *RECALL[2:], "-"],
    "recall to a file": [*RECALL, "out.jsonl"],
    "score": ["score", "s.jsonl", "--seeds", "s.jsonl", "--model", "./nowhere", "-o", "-"],
    "rerank": ["rerank", "r.jsonl", "--model", "./nowhere", "-o", "-"],
    "mine": ["mine", "s.jsonl", "--route", "bm25", "--range", "1-9", "-o", "mined.jsonl"],
    "teach": ["teach", "t.jsonl", "--model", "./nowhere", "-o", "taught.jsonl"],
    "evaluate": ["evaluate", "r.jsonl", "--labels", "--resamples", "100"],
    "evaluate as json": ["evaluate", "-", "--labels", "--resamples", "100", "-o", "-"],
    "bank build": ["bank", "build", "new", "--seeds", "-", "--routes", "bm25"],
    "bank add": ["bank", "add", "bank", "s.jsonl"],
    "bank delete": ["bank", "delete", "bank", "--id", "none"],
    "bank info": ["bank", "info", "bank"],
    "bank info as json": ["bank", "info", "bank", "--json"],
    "bank list": ["bank", "list", "bank"],
    "bank list to a file": ["bank", "list", "bank", "-o", "out.parquet"],
    "bank get": ["bank", "get", "bank", "1", "none"],
    "bank export": ["bank", "export", "bank", "-o", "-"],
    "bank export to a file": ["bank", "export", "bank", "-o", "out.json"],
    "bank snapshot": ["bank", "snapshot", "bank", "copy"],
    "bank restore": ["bank", "restore", "none", "restored"],
    "merge": ["merge", "./nowhere", "./no", "-o", "merged"],
    "train": ["train", "embedder", "recipe.toml"],
    "demo": ["demo", "--folder", "demo"],
}
READ_STDIN = {"recall a pipe", "evaluate as json", "bank build"}
PRINT = {
    "help",
    "version",
    "recall",
    "recall a pipe",
    "evaluate",
    "evaluate as json",
    "bank info",
    "bank info as json",
    "bank list",
    "bank get",
    "bank export",
    "demo",
}


def run(folder, arguments, *, closed=None, stdin=b"", **environment):
    """A command with one of its descriptors closed, as ``>&-`` does."""
    line = 'exec "$@"' + ("" if closed is None else f" {closed}{'<' if closed == 0 else '>'}&-")
    return subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, "-m", "ecom_rag", *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.fixture
def fresh(folder, tmp_path):
    """A folder with the inputs, for outputs of one test."""
    for item in folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    return tmp_path


@pytest.mark.parametrize("closed", [0, 1, 2])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_a_closed_descriptor(fresh, name, closed):
    done = run(fresh, COMMANDS[name], closed=closed, stdin=b"" if closed == 0 else (fresh / "r.jsonl").read_bytes())
    assert done.returncode in (0, 2) and b"Traceback" not in done.stderr and b"internal error" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    if (closed == 0 and name in READ_STDIN) or (closed == 1 and name in PRINT):
        which = b"input" if closed == 0 else b"output"
        assert done.returncode == 2, done
        lines = done.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith(b"ecom-rag: standard %s is closed; " % which), done
    if closed == 1 and name == "recall to a file":
        assert done.returncode == 0 and len((fresh / "out.jsonl").read_bytes().splitlines()) == len(RECORDS)
    if closed == 2:
        assert done.stderr == b""


def test_no_file_is_opened_under_the_number_of_a_closed_stream(fresh):
    """What is meant for the terminal went into the first file that was opened."""
    done = run(fresh, COMMANDS["recall to a file"], closed=2)
    assert done.returncode == 0
    assert all(json.loads(line) for line in (fresh / "out.jsonl").read_bytes().splitlines())


@pytest.mark.parametrize(
    "name", ["help", "recall", "evaluate", "evaluate as json", "bank info", "bank list", "bank get"]
)
def test_a_reader_that_leaves_ends_the_run_quietly(fresh, name):
    process = subprocess.Popen(
        [sys.executable, "-m", "ecom_rag", *COMMANDS[name]],
        cwd=fresh,
        stdin=(fresh / "r.jsonl").open("rb"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()  # before anything is written
    said = process.stderr.read()
    assert process.wait() == 0 and said == b""


@pytest.mark.parametrize("name", ["recall to a file", "wrong", "nothing"])
def test_nobody_reads_the_messages(fresh, name):
    process = subprocess.Popen(
        [sys.executable, "-m", "ecom_rag", *COMMANDS[name]], cwd=fresh, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stderr.close()
    assert process.stdout.read() == b""
    assert process.wait() == (0 if name == "recall to a file" else 2)
    assert name != "recall to a file" or len((fresh / "out.jsonl").read_bytes().splitlines()) == len(RECORDS)


@pytest.mark.parametrize("name", ["recall", "evaluate", "bank info", "bank list", "bank get"])
def test_a_full_disk_behind_standard_output(fresh, name):
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "ecom_rag", *COMMANDS[name]]
        done = subprocess.run(command, cwd=fresh, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and b"No space left" in done.stderr
    assert b"--resume" not in done.stderr


@pytest.mark.parametrize("name", ["recall to a file", "bank build", "merge the starter", "evaluate to a file"])
def test_a_full_disk_is_one_line_that_names_the_place(fresh, name):
    """A limit on the size of files stands for the disk: the system says it at the same calls."""
    more = {
        "merge the starter": ["merge", "starter", "starter", "-o", "out.merged"],
        "evaluate to a file": [*COMMANDS["evaluate"], "--report", "out.html"],
    }
    if name in more:
        locate("starter")  # unpacked while there is room
    process = subprocess.run(
        [sys.executable, "-m", "ecom_rag", *{**COMMANDS, **more}[name]],
        cwd=fresh,
        input=(fresh / "s.jsonl").read_bytes(),
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert process.returncode == 2, process
    lines = [line for line in process.stderr.decode().splitlines() if "ECOM_RAG_CACHE" not in line]  # full as well
    assert len(lines) == 1 and "internal error" not in lines[0]
    assert ("out." in lines[0] and "too large" in lines[0]) or "new.partial" in lines[0]
    assert not [path for path in fresh.iterdir() if path.name.startswith(("out.", ".ecom"))]


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
@pytest.mark.parametrize("arguments", [["demo", "--all"], ["recall", "茶.jsonl", "--seeds", "茶", "-o", "-"]])
def test_a_terminal_that_knows_ascii_alone(tmp_path, environment, arguments):
    done = run(tmp_path, arguments, **environment)
    assert done.returncode == (0 if arguments[0] == "demo" else 2), done
    assert b"Traceback" not in done.stderr and len(done.stderr.splitlines()) == (0 if arguments[0] == "demo" else 1)
    assert b"\\u" in (done.stdout if arguments[0] == "demo" else done.stderr) or b"\\x" in done.stderr


# --- the guard --------------------------------------------------------------------------------------------------------


def unknown():
    raise RuntimeError("a\nb\x1b[31m")


ERRORS = [
    (MemoryError(), "the memory is full"),
    (RecursionError(), "nested too deep"),
    (PermissionError(13, "Permission denied", b"/a/\xff"), "Permission denied"),
    (OSError(28, "No space left on device"), "No space left on device; mend that, then run again"),
    (OSError("bare"), "bare; mend that"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "convert it to UTF-8"),
    (__import__("sqlite3").OperationalError("disk I/O error"), "disk I/O error"),
    (RuntimeError("x: No space left on device (os error 28)"), "the disk is full"),
    (RuntimeError("a\nb\x1b[31m"), "internal error: RuntimeError: a b\\x1b[31m; this is a bug of ecom_rag"),
    (KeyError("k"), "internal error: KeyError: 'k'"),
]


@pytest.mark.parametrize(("error", "said"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_every_error_is_one_line(capsys, error, said):
    def command():
        raise error

    assert guard.guarded(command) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.startswith("ecom-rag: ") and shown.count("\n") == 1 and "\x1b" not in shown


def test_a_traceback_is_shown_to_who_asks_for_it(capsys, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_TRACEBACK", "1")
    assert guard.guarded(unknown) == 2
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown and "in unknown" in shown
    assert shown.splitlines()[-1].startswith("ecom-rag: internal error")


@pytest.mark.parametrize("arguments", [["recall", "q", "-o", "o"], ["recall", "-", "-o", "o"]])
@pytest.mark.parametrize("resumable", [True, False])
def test_resume_is_advised_where_it_works(capsys, monkeypatch, arguments, resumable):
    from ecom_rag.errors import mark_resumable

    def command():
        error = KeyboardInterrupt()
        if resumable:
            mark_resumable(error)
        raise error

    monkeypatch.setattr(sys, "argv", ["ecom-rag", *arguments])
    assert guard.guarded(command) == 130
    shown = capsys.readouterr().err
    assert ("--resume" in shown) == resumable
    assert ("standard input brings the same records" in shown) == (resumable and "-" in arguments)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("output", ["o.jsonl", "-", "/dev/null"])
def test_only_a_run_that_kept_something_can_be_resumed(tmp_path, monkeypatch, output, kept):
    from ecom_rag.errors import is_resumable
    from ecom_rag.files import jobs

    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt) as raised, jobs.open_output(output, settings={}) as sink:
        if kept:
            sink.write_block([{"q": 1}], b"", [], {})
        raise KeyboardInterrupt
    assert is_resumable(raised.value) == (kept and output == "o.jsonl")


@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.4])
def test_an_interruption_at_the_start_is_quiet(fresh, after):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
            "print('up', flush=True); from ecom_rag.__main__ import main; main()",
            "recall",
            "-",
            *RECALL[2:],
            "-",
        ],
        cwd=fresh,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    try:
        process.wait(after + 0.1)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in said and len(said.splitlines()) <= 1


@settings(deadline=None)
@given(st.text().filter(lambda value: value not in ("dense", "sparse", "multivector", "hybrid", "-h", "--help")))
@example("a' is not one of 'b'")
@example("\"'")
def test_whatever_is_given_for_a_choice_is_one_line_with_the_choices(value):
    context = {"q": "q", "--seeds": "s", "--model": "m", "-o": "o"}
    words = [*itertools.chain(*context.items())][1:]
    heard = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ecom-rag", "score", *words, f"--mode={value}"])
        patch.setattr(sys, "stderr", heard)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 2 and heard.getvalue().count("\n") == 1
    assert " is unknown; expected dense, sparse, multivector or hybrid" in heard.getvalue()
