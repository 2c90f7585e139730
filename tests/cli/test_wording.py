"""The library names its own arguments, and the command line says options in their place."""

import ast
import logging
import re

import pytest

import structure
from ecom_rag.cli import _call, console, wording
from ecom_rag.cli.guard import guarded
from ecom_rag.cli.wording import worded
from ecom_rag.errors import UsageError

COMMANDS = {"cli", "demo"}  # the demo prints commands to type next
OPTION = re.compile(r'(?<![\w"-])--[a-z][a-z-]+')  # after a quote it is a property of a style sheet


def strings(tree: ast.Module) -> list[str]:
    """The strings of a module but for its docstrings."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in bare]
    return [text.value for text in texts if isinstance(text.value, str)]


def test_the_library_never_speaks_of_options():
    found = {
        (structure.layer(name), text)
        for name, module in structure.modules().items()
        for text in strings(module.tree)
        if structure.layer(name) not in COMMANDS and OPTION.search(text)
    }
    assert found == set()


def run(*words: str, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["ecom-rag", *words])
    guarded(_call)


@pytest.fixture
def recall(monkeypatch, tmp_path):
    """Recall was called last, and ended in an error: its options are those that messages name."""
    monkeypatch.setattr(wording, "_options", {})
    run("recall", "q.jsonl", "--seeds", str(tmp_path / "no.jsonl"), "--output", "o.jsonl", monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("run again without `resume`", "run again without --resume"),
        ("`top_k` is 0; expected at least 1", "--top-k is 0; expected at least 1"),
        ("`output`, `bank` or (`id_key`)", "--output, --bank or (--id-key)"),
        ("`queries` is empty", "QUERIES is empty"),
        ("give `encoder`", "give --model"),
        ("without `cross_encoder`, or `reranker`", "without --rerank, or --rerank"),
        ("fit one with `fit_fusion`", "fit one with ecom-rag evaluate --fit-fusion"),
        ("`embeddings` is of type int", "embeddings is of type int"),
        ("`allow_most` is 1", "allow_most is 1"),
        ("use it inside `with bank.view() as view:`", "use it inside `with bank.view() as view:`"),
        ("`a b`, ``top_k``, x`top_k`y, `Top`, `top_k", "`a b`, ``top_k``, x`top_k`y, `Top`, `top_k"),
    ],
)
def test_names_become_options(recall, said, read):
    assert worded(said) == read


def test_each_command_has_its_own_names(recall, monkeypatch, tmp_path):
    run("rerank", str(tmp_path / "no.jsonl"), "--model", "m", "--output", "o.jsonl", monkeypatch=monkeypatch)
    assert worded("`cross_encoder` and `fusion` over `results`") == "--model and fusion over RESULTS"
    run("bank", "delete", str(tmp_path), monkeypatch=monkeypatch)
    assert worded("`bank`: pass `allow_most`; `top_k` 9") == "BANK: pass --yes; --top-k 9"
    run("mine", str(tmp_path), "--output", "o.jsonl", monkeypatch=monkeypatch)
    assert worded("`cross_encoder`, `seeds`, `first` or `last`") == "--reranker, --seeds, --range or --range"


def test_a_setting_of_a_file_is_named_there(monkeypatch, tmp_path, capsys):
    config = tmp_path / "r.toml"
    config.write_text("top_k = 0\n", encoding="utf-8")
    call = ["recall", "q.jsonl", "--seeds", "s.jsonl", "--output", "o.jsonl", "--config", str(config)]
    run(*call, monkeypatch=monkeypatch)
    assert f"ecom-rag: {config}: top_k is 0; expected at least 1\n" == capsys.readouterr().err
    run(*call, "--top-k", "-1", monkeypatch=monkeypatch)
    assert capsys.readouterr().err == "ecom-rag: --top-k is -1; expected at least 1\n"


def test_errors_notes_and_the_log_are_reworded(recall, capsys):
    def fail() -> None:
        raise UsageError("`resume` needs a file")

    guarded(fail)
    console.tell_notes(["`exclude_self` leaves them out"])
    record = logging.LogRecord("ecom_rag", logging.WARNING, "", 0, "take %s", ("`precision` fp32",), None)
    console.Log().emit(record)
    told = capsys.readouterr().err.splitlines()[-3:]
    assert told == [
        "ecom-rag: --resume needs a file",
        "ecom-rag: note: --exclude-self leaves them out",
        "ecom-rag: take --precision fp32",
    ]
