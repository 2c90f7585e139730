"""Every option of every command is in the table of idle options, and one that would change nothing is refused."""

import itertools
import json

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecom_rag.cli import app, idle, main
from ecom_rag.cli.command import Command
from ecom_rag.errors import UsageError
from ecom_rag.files import records
from ecom_rag.idle import ALWAYS, Needs, refuse_idle
from ecom_rag.seeds.bank import BankSettings, create

pytestmark = pytest.mark.slow


def commands(group=None, name=""):
    for part, command in (group or typer.main.get_command(app)).commands.items():
        full = f"{name} {part}".strip()
        if hasattr(command, "commands"):
            yield from commands(command, full)
        else:
            yield full, command


def test_every_option_of_every_command_is_in_a_table():
    found = dict(commands())
    assert set(found) == set(idle.TABLES)
    for name, command in found.items():
        assert isinstance(command, Command), name
        settings_of_toml = {"rrf_constant"} if name == "recall" else set()
        assert {parameter.name for parameter in command.params} | settings_of_toml == set(idle.TABLES[name]), name


@given(st.sets(st.sampled_from("abcd")), st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)))
def test_what_counts_is_that_an_option_is_given(given_, values):
    values = dict.fromkeys("abcd", 0) | values
    table = {name: (Needs(lambda v, n=name: v[n] > 1, "with a {a}", "choose 2"),) for name in "abc"} | {"d": ALWAYS}
    without_effect = [name for name in sorted(given_) if name != "d" and values[name] < 2]
    try:
        refuse_idle(sorted(given_), values, table, spelled=lambda name: f"--{name}")
    except UsageError as error:
        expected = f"--{without_effect[0]} has no effect with a {values['a']}; leave it out, or choose 2"
        assert str(error) == expected
    else:
        assert not without_effect


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("idle")
    seeds = [{"text": f"茶 {i}", "metadata": {"id": i, "label": "ab"[i % 2]}} for i in range(6)]
    (folder / "s.jsonl").write_bytes(b"".join(map(records.dumps, seeds)))
    (folder / "t.jsonl").write_text(json.dumps({"query": "q", "pos": ["p"], "neg": ["n"]}) + "\n")
    (folder / "r.toml").write_text('routes = ["bm25"]\nblend = 1.0\n')
    (folder / "f.toml").write_text('fusion = "rrf"\nrrf_constant = 60\nweights = { bm25 = 1 }\n')
    with create(folder / "bank", BankSettings(routes=["bm25"])) as bank:
        bank.upsert(seeds)
    return folder


SCORE = ["score", "s.jsonl", "--seeds", "s.jsonl", "--model", "none", "-o", "o.jsonl"]
RECALL = ["recall", "s.jsonl", "--seeds", "s.jsonl", "-o", "o.jsonl"]
BANK = ["recall", "s.jsonl", "--bank", "bank", "-o", "o.jsonl"]
MINE = ["mine", "t.jsonl", "-o", "o.jsonl"]
TEACH = ["teach", "t.jsonl", "--model", "none", "-o", "o.jsonl"]
MERGE = ["merge", "a", "b", "-o", "o"]
BUILD = ["bank", "build", "new", "--seeds", "s.jsonl", "--routes", "bm25"]
IDLE = [
    (SCORE, ["--weights", "1,1,1"], "with --mode dense"),
    ([*SCORE, "--mode", "sparse"], ["--truncate-dim", "8"], "with --mode sparse"),
    ([*SCORE, "--mode", "multivector"], ["--pooling", "cls"], "with --mode multivector"),
    ([*RECALL, "--routes", "bm25"], ["--model", "starter"], "with --routes bm25"),
    (RECALL, ["--fusion", "weighted"], "with one route (bm25)"),
    (RECALL, ["--weights", "bm25=1"], "with one route (bm25)"),
    (RECALL, ["--depth", "100"], "with one route (bm25) and no reranker"),
    (RECALL, ["--normalize"], "without a reranker"),
    (RECALL, ["--blend", "1"], "without a reranker"),
    (RECALL, ["--exact-multivector"], "with --routes bm25"),
    ([*RECALL, "--routes", "variant"], ["--no-stem"], "with --routes variant"),
    ([*RECALL, "--routes", "variant"], ["--words", "w.txt"], "with --routes variant"),
    (RECALL, ["--query-instruction", ""], "with --routes bm25"),
    (RECALL, ["--max-length", "64"], "with --routes bm25"),
    *(
        (RECALL, option, "no model is loaded")
        for option in (["--runtime", "auto"], ["--precision", "fp32"], ["--device", "cpu"], ["--batch-tokens", "64"])
    ),
    (BANK, ["--simplify"], "with --bank"),
    (BANK, ["--model", "m"], "with --routes bm25"),
    (RECALL, ["--config", "r.toml"], "r.toml: blend has no effect without a reranker"),
    (RECALL, ["--config", "f.toml"], "f.toml: fusion has no effect with one route"),
    ([*RECALL, "--routes", "bm25,variant", "--fusion", "dbsf"], ["--config", "f.toml"], "f.toml: rrf_constant has no"),
    (MINE, ["--label", "label", "--model", "m"], "where QUERIES are not labelled records"),
    ([*MINE, "--route", "bm25"], ["--model", "m"], "with --route bm25"),
    ([*MINE, "--route", "bm25"], ["--device", "cpu"], "where no model is loaded"),
    ([*MINE, "--run", "r.jsonl"], ["--route", "dense"], "with --run"),
    (MINE, ["--split", "train"], "is not a BEIR folder"),
    (MINE, ["--pick", "top", "--seed", "1"], "with --pick top"),
    (MINE, ["--reranker-margin", "0.1"], "without a reranker"),
    (TEACH, ["--mode", "auto"], "with --teacher reranker"),
    ([*TEACH, "--teacher", "embedder"], ["--normalize"], "with --teacher embedder"),
    (MERGE, ["--device", "auto"], "where no model is run"),
    (MERGE, ["--blocks", "1"], "without --validate"),
    (MERGE, ["--density", "0.2"], "with --method linear"),
    (BUILD, ["--pooling", "cls"], "with --routes bm25"),
    (BUILD, ["--model", "starter"], "with --routes bm25"),
    (["bank", "add", "bank", "s.jsonl"], ["--precision", "auto"], "on a bank whose routes need no model"),
    (["bank", "delete", "bank", "--id", "1"], ["--yes"], "without --filter"),
    (["evaluate", "s.jsonl", "--qrels", "q"], ["--votes", "3"], "without --labels"),
    (["evaluate", "s.jsonl", "--qrels", "q"], ["--model", "m"], "without --beir"),
    (["evaluate", "s.jsonl", "--beir", "b"], ["--routes", "bm25"], "beside RESULTS"),
    (["evaluate", "--beir", "b", "--routes", "bm25"], ["--fusion", "rrf"], "with one route (bm25)"),
    (["evaluate", "--beir", "b", "--export-queries", "q.jsonl"], ["--measures", "AP"], "without RESULTS"),
    (["evaluate", "a.trec", "--qrels", "q"], ["--id-key", "id"], "without RESULTS that are records"),
]


@pytest.mark.parametrize(("command", "option", "said"), IDLE, ids=lambda value: " ".join(value)[-40:])
def test_an_idle_option_is_refused_in_one_line_before_any_work(files, monkeypatch, capfd, command, option, said):
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    monkeypatch.setattr("sys.argv", ["ecom-rag", *command, *option])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capfd.readouterr().err
    assert ended.value.code == 2 and shown.count("\n") == 1
    assert "has no effect" in shown and said in shown and "; leave it out, or " in shown
    assert sorted(files.iterdir()) == before


CHOICES = [
    ["--fusion", "rrf"],
    ["--weights", "variant=0.5"],
    ["--depth", "20"],
    ["--no-stem"],
    ["--device", "cpu"],
    ["--exact-multivector"],
    ["--normalize"],
    ["--top-k", "3"],
    ["--filter", 'label = "a"'],
]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    routes=st.sampled_from(["bm25", "variant", "bm25,variant"]),
    options=st.lists(st.sampled_from(CHOICES), unique_by=str),
)
def test_any_options_either_change_something_or_are_refused(files, tmp_path_factory, capfd, routes, options):
    """A run with an option that is accepted gives other bytes than some run without it could, or says why not."""
    has_effect = {
        "--fusion": "," in routes,
        "--weights": "," in routes,
        "--depth": "," in routes,
        "--no-stem": "bm25" in routes,
        "--device": False,
        "--exact-multivector": False,
        "--normalize": False,
        "--top-k": True,
        "--filter": True,
    }
    out = tmp_path_factory.mktemp("o") / "o.jsonl"
    arguments = [
        "recall",
        str(files / "s.jsonl"),
        "--seeds",
        str(files / "s.jsonl"),
        "-o",
        str(out),
        "--routes",
        routes,
    ]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["ecom-rag", *arguments, *itertools.chain(*options)])
        main()
    shown = capfd.readouterr().err
    refused = [option[0] for option in options if not has_effect[option[0]]]
    assert (ended.value.code == 2) is bool(refused) is ("has no effect" in shown), shown
    assert out.exists() is not bool(refused)


VARIABLES = {
    "ECOM_RAG_MODEL": "nowhere/model",
    "ECOM_RAG_PRECISION": "fp32",
    "ECOM_RAG_RUNTIME": "torch",
    "ECOM_RAG_DEVICE": "cuda:9",
    "ECOM_RAG_BATCH_TOKENS": "64",
}


@pytest.fixture
def told(files, tmp_path, monkeypatch, capfd):
    """A function that runs a command line; its exit code, what it told, and the bytes that it wrote."""
    monkeypatch.chdir(files)

    def run(*arguments):
        out = tmp_path / "o.jsonl"
        out.unlink(missing_ok=True)
        words = [str(out) if word == "o.jsonl" else word for word in arguments]
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr("sys.argv", ["ecom-rag", *words])
            main()
        return ended.value.code, capfd.readouterr().err, out.read_bytes() if out.exists() else b""

    return run


@pytest.mark.parametrize("command", [[*RECALL, "--routes", "bm25"], BANK], ids=["file", "bank"])
def test_a_value_of_the_environment_that_would_change_nothing_is_no_mistake(told, monkeypatch, command):
    plain = told(*command)
    assert plain[0] == 0
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert told(*command)[2] == plain[2]
    code, shown, _ = told(*command, "--device", "cpu")
    assert code == 2 and "--device has no effect" in shown


def test_the_environment_names_the_models_of_a_search(told, monkeypatch):
    for command, name in ((RECALL, "ECOM_RAG_MODEL"), (RECALL, "ECOM_RAG_RERANK"), (MINE, "ECOM_RAG_MODEL")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, "./nowhere")
            code, shown, _ = told(*command)
            assert code == 2 and "./nowhere: no such folder" in shown, shown
    monkeypatch.setenv("ECOM_RAG_MODEL", "./nowhere")
    required = [word for word in SCORE if word not in ("--model", "none")]
    assert "./nowhere: no such folder" in told(*required)[1]
    assert "./given: no such folder" in told(*required, "--model", "./given")[1]
    assert "Missing option '--model'" in told("teach", "t.jsonl", "-o", "o.jsonl")[1]
    monkeypatch.setenv("ECOM_RAG_RERANK", "./reranker")
    assert "./reranker: no such folder" in told("rerank", "s.jsonl", "-o", "o.jsonl")[1]


def test_an_unknown_choice_in_the_environment_is_told_by_its_name(told, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_PRECISION", "fp36")
    expected = "expected auto, fp32, bf16, fp16 or int8 (did you mean fp32?); see ecom-rag recall --help"
    assert f"ECOM_RAG_PRECISION 'fp36' is unknown; {expected}" in told(*RECALL)[1]


def test_a_configuration_goes_before_the_environment(told, files, monkeypatch):
    (files / "m.toml").write_text('model = "./configured"\n')
    monkeypatch.setenv("ECOM_RAG_MODEL", "./nowhere")
    assert "./configured: no such folder" in told(*RECALL, "--config", "m.toml")[1]


def test_help_names_the_variables():
    taking = {}
    for name, command in commands():
        for parameter in command.params:
            taking.setdefault(parameter.envvar, set()).add(f"{name} {parameter.name}")
    searching = {"score model", "recall model", "mine model", "bank build model", "calibrate model", "audit model"}
    searching.add("serve model")
    assert taking["ECOM_RAG_MODEL"] == searching
    assert taking["ECOM_RAG_RERANK"] == {"recall rerank", "rerank model", "serve rerank"}
    assert taking["ECOM_RAG_DEVICE"] >= {f"{name} device" for name in ("score", "rerank", "merge", "teach", "bank add")}
