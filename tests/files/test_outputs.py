"""A run never deletes or overwrites what no run made, whatever lies where its output, its work or its rejects go.

Every command meets every kind of thing at each of these places. Whatever was there before the run is there afterwards,
byte for byte; only the plain file that the user named as the output, or that his link leads to, may be another one.
"""

import json
import os
import shutil
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ecom_rag.errors import UsageError
from ecom_rag.files import jobs, publish, records, workfolders
from ecom_rag.seeds.bank import BankSettings, SeedBank, build, snapshot

pytestmark = pytest.mark.slow

LABELS = ("fraud", "ad", "medical")


def record(number):
    return {"text": f"wallet {number} case {number % 7}", "metadata": {"id": str(number), "label": LABELS[number % 3]}}


def result(number):
    found = {
        "topk_sim": [0.9, 0.1],
        "topk_seed": ["wallet 1", "case 2"],
        "topk_metadata": [{"id": "1", "label": "fraud"}, {"id": "2", "label": "ad"}],
    }
    evidence = [
        {"bm25": {"score": 1.0, "rank": 1}, "dense": {"score": 0.5, "rank": 2}},
        {"bm25": {"score": 0.5, "rank": 2}, "dense": {"score": 0.9, "rank": 1}},
    ]
    return {**record(number), **found, "topk_evidence": evidence}


def write(path, items, *, bad=0):
    path.write_bytes(b"".join(map(records.dumps, items)) + b"nonsense\n" * bad)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Inputs, some lines of which are bad, that no run may touch."""
    folder = tmp_path_factory.mktemp("inputs")
    write(folder / "q.jsonl", [record(i) for i in range(12)], bad=2)
    write(folder / "s.jsonl", [record(i) for i in range(12)])
    write(folder / "results.jsonl", [result(i) for i in range(30)])
    write(folder / "triples.jsonl", [{"query": "wallet 1", "pos": ["wallet 1 case"], "neg": ["tea"]}])
    build(folder / "bank", [record(i) for i in range(4)], BankSettings(routes=["bm25"]))
    with SeedBank.open(folder / "bank") as bank:
        snapshot(bank, folder / "copy")
    return folder


@pytest.fixture
def here(inputs, bge_folder, xlmr_reranker, monkeypatch, capfdbinary):
    """Run a command by its name, with an output; the exit code and what it said."""

    def go(command, output, *extra):
        from ecom_rag.cli import main

        found = arguments(command, inputs, output, bge_folder, xlmr_reranker)
        monkeypatch.setattr(sys, "argv", ["ecom-rag", *map(str, [*found, *extra])])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfdbinary.readouterr().err.decode()
        assert ended.value.code in (0, 2) and "Traceback" not in said and "internal error" not in said, said
        if ended.value.code == 2:
            assert said.startswith("ecom-rag: ") and len(said.splitlines()) == 1, said
        return ended.value.code, said

    return go


def arguments(command, inputs, output, encoder, reranker):
    skip = ["--on-bad-line", "skip"]
    model = ["--runtime", "torch", "--model"]
    results, quick = inputs / "results.jsonl", ["--resamples", 100]
    if command == "train":
        recipe = output.with_name("recipe.toml")
        recipe.write_text(
            f'model = "{encoder}"\noutput = "{output}"\n[data]\ntrain = "{inputs / "triples.jsonl"}"\n'
            '[schedule]\nepochs = 1\ndevice = "cpu"\n'
        )
    return {
        "score": ["score", inputs / "q.jsonl", "--seeds", inputs / "s.jsonl", "-o", output, *skip, *model, encoder],
        "recall": ["recall", inputs / "q.jsonl", "--seeds", inputs / "s.jsonl", "-o", output, *skip],
        "rerank": ["rerank", results, "-o", output, *model, reranker],
        "mine": ["mine", inputs / "s.jsonl", "--route", "bm25", "--range", "1-9", "-o", output],
        "teach": ["teach", inputs / "triples.jsonl", "-o", output, *model, reranker],
        "evaluate": ["evaluate", results, "--labels", *quick, "-o", output],
        "evaluate --report": ["evaluate", results, "--labels", *quick, "--report", output],
        "evaluate --per-query": ["evaluate", results, "--labels", *quick, "--per-query", output],
        "evaluate --write-run": ["evaluate", results, "--labels", *quick, "--write-run", output],
        "evaluate --fit-fusion": ["evaluate", results, "--labels", *quick, "--fit-fusion", output],
        "bank build": ["bank", "build", output, "--seeds", inputs / "q.jsonl", "--routes", "bm25", *skip],
        "bank snapshot": ["bank", "snapshot", inputs / "bank", output],
        "bank restore": ["bank", "restore", inputs / "copy", output],
        "merge": ["merge", encoder, encoder, "-o", output],
        "train": ["train", "embedder", output.with_name("recipe.toml")],
    }[command]


RESUMABLE = ["score", "recall", "rerank", "mine", "teach"]
FILES = [
    *RESUMABLE,
    *(f"evaluate{option}" for option in ("", " --report", " --per-query", " --write-run", " --fit-fusion")),
]
FOLDERS = ["bank build", "bank snapshot", "bank restore", "merge", "train"]
REJECTING = ["score", "recall", "bank build"]


def put(kind, path):
    """Something of the user's at a place, and what it leads to."""
    own = path.with_name(f"own-{path.name}")
    if kind in ("file", "link to a file"):
        (path if kind == "file" else own).write_bytes(b"mine\n")
    elif kind in ("folder", "link to a folder"):
        target = path if kind == "folder" else own
        target.mkdir()
        for name in ("results.jsonl", "journal.json", "settings.json", "bank.db", "run.json"):  # as ours are named
            (target / name).write_bytes(b"mine\n")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    if kind.startswith("link"):
        path.symlink_to(own.name)


KINDS = ["file", "link to a file", "folder", "link to a folder", "link to nothing", "pipe", "socket"]


def state(folder):
    """Everything in a folder: kind, where a link leads, content."""
    found = {}
    for item in sorted(folder.rglob("*")):
        mode = item.lstat().st_mode
        content = str(item.readlink()) if stat.S_ISLNK(mode) else item.read_bytes() if stat.S_ISREG(mode) else b""
        found[str(item.relative_to(folder))] = (stat.S_IFMT(mode), content)
    return found


def read_pipe(path):
    """A reader for a pipe, as a shell would have one."""
    found = []
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    thread.start()
    return thread, found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", [*FILES, *FOLDERS])
def test_what_is_at_the_output(tmp_path, here, inputs, command, kind):
    output = tmp_path / "out.jsonl"
    put(kind, output)
    before, theirs = state(tmp_path), state(inputs)
    streamed = kind == "pipe" and command in FILES
    reader = read_pipe(output) if streamed else None
    code, said = here(command, output, *(["--on-bad-line", "fail"] if streamed and command in REJECTING else []))
    after = state(tmp_path)
    assert state(inputs) == theirs
    replaced = {"file": "out.jsonl", "link to a file": "own-out.jsonl", "link to nothing": "own-out.jsonl"}.get(kind)
    if command in FILES and replaced is not None:
        assert code == 0, said
        assert after.pop(replaced)[1] not in (b"mine\n", b"")
        before.pop(replaced, None)
    elif streamed:
        if command in REJECTING:
            assert code == 2 and "q.jsonl:13" in said
        else:
            assert code == 0, said
            reader[0].join(timeout=10)
            assert reader[1][0]
    else:
        assert code == 2 and "out.jsonl" in said, said
    assert before.items() <= after.items()
    assert set(after) - set(before) <= {"out.jsonl.rejected.jsonl", "out.jsonl.about.json", "recipe.toml"}


def work_of(command, output):
    return Path(f"{output}.copying" if command in ("bank snapshot", "bank restore") else f"{output}.partial")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", [*FILES, *FOLDERS])
def test_what_is_where_unfinished_work_goes(tmp_path, here, inputs, command, kind):
    output = tmp_path / "out.jsonl"
    put(kind, work_of(command, output))
    before = state(tmp_path)
    code, said = here(command, output)
    assert before.items() <= state(tmp_path).items()
    if command.startswith("evaluate"):  # has no use for that name
        assert code == 0, said
    else:
        assert code == 2 and work_of(command, output).name in said and not output.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", REJECTING)
def test_what_is_where_refused_lines_go(tmp_path, here, command, kind):
    put(kind, tmp_path / "out.jsonl.rejected.jsonl")
    before = state(tmp_path)
    code, said = here(command, tmp_path / "out.jsonl")
    assert code == 0 and before.items() <= state(tmp_path).items()
    second = tmp_path / "out.jsonl.rejected-2.jsonl"
    assert len(second.read_bytes().splitlines()) == 2 and f"2 lines were refused and written to {second}" in said
    assert "out.jsonl.rejected.jsonl was there before this run" in said


@pytest.mark.parametrize("command", ["score", "recall", "rerank", "bank build"])
def test_a_clean_run_leaves_refused_lines_that_it_did_not_write(tmp_path, inputs, command, bge_folder, xlmr_reranker):
    write(tmp_path / "q.jsonl", [record(1)])
    for name in ("s.jsonl", "results.jsonl"):
        shutil.copy(inputs / name, tmp_path / name)
    rejected = tmp_path / "out.jsonl.rejected.jsonl"
    write(rejected, [record(2)])
    before = state(tmp_path)
    code, said = run_with(command, tmp_path, tmp_path / "out.jsonl", bge_folder, xlmr_reranker)
    assert code == 0 and f"{rejected} was there before this run, which refused no line" in said
    assert before.items() <= state(tmp_path).items()


@pytest.mark.parametrize("role", ["queries", "seeds"])
def test_refused_lines_that_are_mended_and_run_again_are_not_lost(tmp_path, role):
    """The name that rejects would get is an input of the run."""
    from ecom_rag.pipeline import Recall, recall_file

    rejected, other, output = tmp_path / "o.jsonl.rejected.jsonl", tmp_path / "other.jsonl", tmp_path / "o.jsonl"
    write(rejected, [record(1), record(2)])
    write(other, [record(3)])
    before = state(tmp_path)
    queries, seeds = (rejected, other) if role == "queries" else (other, rejected)
    recall_file(str(queries), str(output), Recall(routes=("bm25",)), seeds=str(seeds), on_bad_line="skip")
    assert before.items() <= state(tmp_path).items()
    with pytest.raises(UsageError, match="is also an input of this run"):
        recall_file(str(queries), str(rejected), Recall(routes=("bm25",)), seeds=str(seeds))
    assert before.items() <= state(tmp_path).items()


def test_the_same_refused_lines_are_written_once(tmp_path):
    lines = tmp_path / "lines"
    lines.write_bytes(b"1\n")
    names = [publish.publish_rejects(lines, str(tmp_path / "o")) for _ in range(2)]
    lines.write_bytes(b"2\n")
    names += [publish.publish_rejects(lines, str(tmp_path / "o")) for _ in range(2)]
    first, second = f"{tmp_path}/o.rejected.jsonl", f"{tmp_path}/o.rejected-2.jsonl"
    assert names == [first, first, second, second]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines", "o.rejected-2.jsonl", "o.rejected.jsonl"]


def test_refused_lines_find_a_name_without_hard_links_too(tmp_path, monkeypatch):
    def none(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", none)
    lines = tmp_path / "lines"
    lines.write_bytes(b"1\n")
    assert Path(publish.publish_rejects(lines, str(tmp_path / "o"))).read_bytes() == b"1\n"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("how", ["name", "link", "hard link", "link to the folder"])
@pytest.mark.parametrize("command", [*RESUMABLE, "evaluate", "evaluate --report"])
def test_no_output_is_an_input(tmp_path, inputs, command, how, bge_folder, xlmr_reranker):
    for name in ("q.jsonl", "s.jsonl", "results.jsonl", "triples.jsonl"):
        shutil.copy(inputs / name, tmp_path / name)
    before = state(tmp_path)
    read = {
        path
        for path in arguments(command, tmp_path, tmp_path / "o", bge_folder, xlmr_reranker)
        if isinstance(path, Path) and path.exists() and path.is_file()
    }
    assert read
    for path in read:
        output = tmp_path / f"again-{path.name}"
        if how == "name":
            output = path
        elif how == "link":
            output.symlink_to(path)
        elif how == "hard link":
            output.hardlink_to(path)
        else:
            (tmp_path / "again").symlink_to(tmp_path)
            output = tmp_path / "again" / path.name
        code, said = run_with(command, tmp_path, output, bge_folder, xlmr_reranker)
        assert code == 2 and "is also an input of this run" in said
        assert before.items() <= state(tmp_path).items()
        (tmp_path / "again").unlink(missing_ok=True)


def run_with(command, inputs, output, encoder, reranker):
    """The command over copies of the inputs."""
    from ecom_rag.cli import _call as call
    from ecom_rag.cli import console, guard, incoming, options

    said = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["ecom-rag", *map(str, arguments(command, inputs, output, encoder, reranker))])
        for module in (console, guard, options, incoming):
            patched.setattr(module, "tell", said.append)
        return guard.guarded(call), "\n".join(said)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "1_Pooling/config.json"])
def test_no_output_is_a_file_of_the_model(tmp_path, inputs, bge_folder, name):
    shutil.copytree(bge_folder, tmp_path / "model")
    before = state(tmp_path)
    output = tmp_path / "model" / name
    code, said = run_with("score", inputs, output, tmp_path / "model", None)
    assert code == 2 and "is also an input of this run" in said and state(tmp_path) == before


def test_an_output_keeps_the_permissions_of_the_file_that_it_replaces(tmp_path):
    output = tmp_path / "o.json"
    output.write_bytes(b"")
    output.chmod(0o600)
    with publish.writing(output) as sink:
        sink.write(b"{}")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600 and output.read_bytes() == b"{}"


def test_a_failed_output_leaves_the_old_one(tmp_path):
    output = tmp_path / "o.json"
    output.write_bytes(b"old")
    before = state(tmp_path)
    with pytest.raises(ZeroDivisionError), publish.writing(output) as sink:
        sink.write(b"new")
        raise ZeroDivisionError
    assert state(tmp_path) == before


def test_folders_of_runs_are_as_readable_as_others(tmp_path, here):
    assert here("merge", tmp_path / "merged")[0] == 0
    assert load_file(tmp_path / "merged" / "model.safetensors")
    other = tmp_path / "other"
    other.write_bytes(b"")
    modes = {path.stat().st_mode for path in (tmp_path / "merged").rglob("*") if path.is_file()}
    assert modes == {other.stat().st_mode}


def test_a_search_of_weights_overwrites_no_log_of_another_kind(tmp_path, here):
    log = tmp_path / "merged.search.jsonl"
    for content in (b'{"text": "mine"}\n', b"mine\n", b""):
        log.write_bytes(content)
        before = state(tmp_path)
        code, said = here("merge", tmp_path / "merged", "--validate", "sets.toml")
        assert code == 2 and "merged.search.jsonl: is no log of a search" in said and state(tmp_path) == before


# --- unfinished work --------------------------------------------------------------------------------------------------


def test_one_kind_of_work_does_not_empty_the_folder_of_another(tmp_path):
    folder = tmp_path / "o.partial"
    with workfolders.held(folder, "training"):
        (folder / "run.json").write_text("{}")
    before = state(tmp_path)
    with (
        pytest.raises(UsageError, match="holds unfinished training"),
        workfolders.new_folder(tmp_path / "o", kind="merge"),
    ):
        pass
    assert state(tmp_path) == before


def test_a_folder_that_a_kill_left_without_a_mark_is_taken(tmp_path):
    folder = tmp_path / "o.partial"
    folder.mkdir()
    (folder / "lock").write_bytes(b"")
    with workfolders.held(folder, "results"):
        assert workfolders.is_ours(folder, "results")
    (folder / "lock").write_bytes(b"a lock of another program\n")
    with pytest.raises(UsageError, match="holds lock, which no run"), workfolders.held(folder, "results"):
        pass


def test_a_folder_in_use_is_refused(tmp_path):
    with workfolders.held(tmp_path / "o.partial", "results"), pytest.raises(UsageError, match="another run is at work"):
        workfolders.take(tmp_path / "o.partial", "results")


def test_a_run_without_resume_says_what_it_discards(tmp_path, caplog):
    output = str(tmp_path / "o.jsonl")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), jobs.open_output(output, settings={}) as run:
            run.write_block([{"q": 1}, {"q": 2}], b'{"r":1}\n', [], {})
            raise KeyboardInterrupt
    note = "2 finished records of an interrupted run were discarded; `resume` would have continued it"
    assert run.notes == [note] and note in caplog.text
    caplog.clear()
    with jobs.open_output(output, settings={}, resume=True) as run:
        run.finish()
    assert run.notes == [] and not caplog.text


def test_a_bank_built_without_resume_says_what_it_discards(tmp_path, caplog):
    from ecom_rag.seeds.bank import building

    def cut():
        yield from (record(i) for i in range(5000))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        building.build(tmp_path / "bank", cut(), BankSettings(routes=["bm25"]))
    built = building.build(tmp_path / "bank", [record(1)], BankSettings(routes=["bm25"]))
    assert built.notes[0].startswith("4096 finished records of an interrupted build were discarded")
    assert built.notes[0] in caplog.text


# --- demo -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["seeds.jsonl", "bank.jsonl", "policy.json", "demo.html", "else.txt"])
@pytest.mark.parametrize("kind", KINDS)
def test_demo_writes_into_no_folder_of_the_user(tmp_path, kind, name):
    from ecom_rag import demo

    put(kind, tmp_path / name)
    before = state(tmp_path)
    with pytest.raises(UsageError, match="did not make"):
        demo.run(str(tmp_path))
    assert state(tmp_path) == before


def test_demo_goes_on_where_it_was_before(tmp_path):
    from ecom_rag.demo import folder as demo

    target = tmp_path / "demo"
    demo.check_folder(target)
    target.mkdir()
    demo.check_folder(target)
    for name in (*demo.SAMPLES, demo.RESULTS[0]):  # as a killed one leaves it
        (target / name).write_bytes(demo.sample(name) if name in demo.SAMPLES else b"")
        demo.check_folder(target)
    (target / "seeds.jsonl").write_text(json.dumps(record(1)))
    with pytest.raises(UsageError, match="did not make"):
        demo.check_folder(target)
