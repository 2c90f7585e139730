"""Random command lines over random files, in one process: what must hold of every one of them.

``python tests/fuzzing.py --rounds 5000`` is the long run by hand; ``test_fuzz_commands.py`` runs a few rounds. A round
is a number: the same number builds the same files and the same command line, so a fault that is found can be repeated
with ``--first NUMBER --rounds 1``.
"""

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from helpers.decided import policy_file

ALLOWED = (0, 2, 130)
WORDS = [
    "茶",
    "微信",
    "leather",
    "wallet",
    "replica",
    "１:１",
    "a",
    "v\u200bx",
    "👍",
    "case 手机壳",
    "50%",
    "<b>",
    "\x1b[31mred",
]
ODD_NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "nan",
    "inf",
    "1e308",
    "1e-320",
    "9" * 30,
    "0.5",
    "1.0",
    "",
    "x",
    "0x10",
    "1,1,1",
]
ODD_TEXTS = [
    "",
    "-",
    "\x00",
    "../..",
    "a" * 5000,
    "bm25",
    "dense,bm25",
    "bm25,bm25",
    "label = 'a'",
    'label != "x',
    "🙂",
    "=",
    "$(x)",
]
_WRITING = [
    "--output",
    "-o",
    "--report",
    "--plot",
    "--per-query",
    "--fit-fusion",
    "--write-run",
    "--write-qrels",
    "--export-queries",
    "--export-seeds",
    "--folder",
]
# Seconds each, and nothing of it depends on files; or it serves until it is stopped. Both have tests of their own.
SLOW = {"demo", "serve"}


@dataclass
class Outcome:
    """What one round did."""

    command: list[str]
    code: Any
    out: str
    err: str
    complaint: str  # empty where everything held


def commands() -> dict[str, Any]:
    """Every command by its words, e.g. ``bank build``."""
    from ecom_rag.cli import app

    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():
        below = getattr(command, "commands", None)
        found |= {name: command} if below is None else {f"{name} {part}": own for part, own in below.items()}
    return found


class World:
    """Files that are right, made once; each round copies them and spoils some.

    Args:
        folder: Where they go.
        make_models: Writes ``encoder``, ``m3`` and ``reranker`` checkpoints into a folder.
    """

    def __init__(self, folder: Path, make_models: Callable[[Path], None]) -> None:
        self.folder = folder
        self.sound = folder / "sound"
        self.sound.mkdir(parents=True)
        make_models(self.sound)
        records = [{"text": f"{WORDS[i % 5]} {i}", "metadata": {"id": i, "label": "ab"[i % 2]}} for i in range(12)]
        _write_lines(self.sound / "seeds.jsonl", records)
        _write_lines(self.sound / "queries.jsonl", records[:4])
        results = [
            {**item, "topk_sim": [0.9, 0.5], "topk_seed": ["a", "茶 b"], "topk_metadata": [{"label": "a"}, {}]}
            for item in records[:4]
        ]
        _write_lines(self.sound / "results.jsonl", results)
        _write_decided(self.sound, results)
        _write_lines(self.sound / "triples.jsonl", [{"query": "茶", "pos": ["茶 1"], "neg": ["wallet"]}] * 3)
        (self.sound / "recipe.toml").write_text(
            'model = "encoder"\noutput = "trained"\n[data]\ntrain = "triples.jsonl"\nnegatives = 1\n'
            "[schedule]\nmax_steps = 1\n",
            "utf-8",
        )
        (self.sound / "settings.toml").write_text('routes = ["bm25"]\ntop_k = 2\n', "utf-8")
        beir = self.sound / "beir"
        (beir / "qrels").mkdir(parents=True)
        _write_lines(beir / "corpus.jsonl", [{"_id": str(i), "title": "", "text": f"wallet {i}"} for i in range(6)])
        _write_lines(beir / "queries.jsonl", [{"_id": "q1", "text": "wallet 1"}])
        (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t1\n")
        with _inside(self.sound):
            for words in (
                ["bank", "build", "bank", "--seeds", "seeds.jsonl", "--routes", "bm25"],
                ["bank", "snapshot", "bank", "snapshot"],
            ):
                outcome = _run(words, b"")
                assert outcome[0] == 0, outcome

    def round(self, number: int) -> Outcome:
        """Copy the files, spoil some, run one command line, and look whether all that must hold does."""
        chance = random.Random(number)
        work = self.folder / f"round-{number}"
        shutil.copytree(self.sound, work, symlinks=True)
        try:
            for _ in range(chance.choice((0, 1, 1, 2, 3))):
                _spoil(chance, work)
            names = sorted(name for name in commands() if name not in SLOW)
            words = _command_line(chance, chance.choice(names), work)
            stdin = _bytes(chance) if chance.random() < 0.5 else (work / "queries.jsonl").read_bytes()
            before = _digests(work)
            with _inside(work):
                code, out, err = _run(words, stdin)
            complaint = _complaint(code, out, err, before, _digests(work), words)
            return Outcome(words, code, out, err, complaint)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _complaint(code: Any, out: str, err: str, before: dict[str, str], after: dict[str, str], words: list[str]) -> str:
    if code not in ALLOWED and not (code == 3 and words[0] == "monitor"):
        return f"exit {code!r}"
    if "Traceback" in out + err or "internal error" in err:
        return "a traceback"
    if code == 2 and not (err.strip().splitlines() or [""])[-1].startswith("ecom-rag: "):
        return "exit 2 without a line that says why"
    changed = [
        name
        for name, digest in before.items()
        if after.get(name) != digest and name.partition("/")[0] not in ("bank", *_outputs(words))
    ]
    return f"changed or removed: {', '.join(changed[:3])}" if changed else ""


def _outputs(words: list[str]) -> set[str]:
    """First parts of the paths that the command line names as outputs."""
    named = {after for before, after in pairwise(words) if before in _WRITING}
    named |= {word.partition("=")[2] for word in words if word.startswith(tuple(f"{name}=" for name in _WRITING))}
    return {name.removeprefix("./").partition("/")[0] for name in named if name}


# --- files ------------------------------------------------------------------------------------------------------------


def _write_decided(folder: Path, results: list[Any]) -> None:
    """Decided records, half of them wrong, and the policy that decided them."""
    decision = {"action": "label", "label": "a", "threshold": 0.9, "probabilities": {"a": 0.95, "b": 0.02}}
    decided = [
        {**results[n % 4], "decision": {**decision, "campaign": f"c{n}"}, "chosen": {"by": "audit"}} for n in range(20)
    ]
    _write_lines(folder / "decided.jsonl", decided)
    policy_file(folder / "policy.json", a=(0.95, 0.9))


def _write_lines(path: Path, items: list[Any]) -> None:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), "utf-8")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(item.relative_to(folder)): hashlib.sha256(item.read_bytes()).hexdigest()
        for item in folder.rglob("*")
        if item.is_file()
    }


def _spoil(chance: random.Random, work: Path) -> None:
    """Change one small file: random bytes, random JSON, a cut, a flipped byte, or nothing left of it."""
    files = sorted(item for item in work.rglob("*") if item.is_file() and item.stat().st_size < 1 << 20)
    path = chance.choice([item for item in files if item.suffix in (".jsonl", ".toml", ".tsv", ".json", ".db", ".npy")])
    raw = path.read_bytes()
    how = chance.randrange(7)
    if how == 0:
        raw = _bytes(chance)
    elif how == 1:
        raw = b"\n".join(
            json.dumps(_json(chance), ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
            for _ in range(chance.randrange(4))
        )
    elif how == 2:
        raw = raw[: chance.randrange(len(raw) + 1)]
    elif how == 3 and raw:
        place = chance.randrange(len(raw))
        raw = raw[:place] + bytes([raw[place] ^ (1 << chance.randrange(8))]) + raw[place + 1 :]
    elif how == 4:
        raw = b"[" * 100_000 if chance.random() < 0.5 else b'{"a":' * 3000 + b"1" + b"}" * 3000
    elif how == 5:
        raw = raw.replace(b'"label"', b'"lab\\u0000el"').replace(b"0.9", b"9" * 400).replace(b": 1", b": NaN")
    else:
        raw = _mutated_lines(chance, raw)
    path.write_bytes(raw)


def _mutated_lines(chance: random.Random, raw: bytes) -> bytes:
    """JSON lines with one key of one object given another value."""
    lines = raw.splitlines()
    if not lines:
        return raw
    place = chance.randrange(len(lines))
    try:
        item = json.loads(lines[place])
    except ValueError:
        return raw
    if isinstance(item, dict) and item:
        item[chance.choice(list(item))] = _json(chance)
        lines[place] = json.dumps(item).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _bytes(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(200))


def _json(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value, and some that are none (NaN, infinities, lone surrogates)."""
    kind = chance.randrange(10 if depth < 4 else 7)
    simple: list[Any] = [
        None,
        chance.random() < 0.5,
        chance.randrange(-5, 5),
        chance.choice([10**30, -(10**400), 2**63, 0]),
        chance.choice([0.5, -0.0, 1e308, math.nan, math.inf]),
        chance.choice(WORDS),
        chance.choice(["\ud800", "", "\x00", "1.0"]),
    ]
    if kind < 7:
        return simple[kind]
    if kind < 9:
        keys = [
            "text",
            "metadata",
            "label",
            "id",
            "topk_sim",
            "topk_seed",
            "query",
            "pos",
            "neg",
            "_id",
            chance.choice(WORDS),
        ]
        return {chance.choice(keys): _json(chance, depth + 1) for _ in range(chance.randrange(4))}
    return [_json(chance, depth + 1) for _ in range(chance.randrange(4))]


# --- command lines ----------------------------------------------------------------------------------------------------


def _command_line(chance: random.Random, name: str, work: Path) -> list[str]:
    """The words of a command: what it requires nearly always, a few further options, now and then nonsense."""
    words = name.split()
    for parameter in commands()[name].params:
        option = parameter.opts[0].startswith("-")
        if chance.random() > (0.98 if parameter.required else 0.13):
            continue
        if option and (getattr(parameter, "is_flag", False)):
            words.append(chance.choice(parameter.opts + parameter.secondary_opts))
            continue
        value = _value(chance, parameter, work)
        words += [parameter.opts[0], value] if option else [value]
    if chance.random() < 0.05:
        words.insert(chance.randrange(len(words) + 1), chance.choice([*ODD_TEXTS, "--nonsense", "--help"]))
    return [word.replace("\x00", "\ufffd") for word in words]  # no process can be given a NUL


def _value(chance: random.Random, parameter: Any, work: Path) -> str:
    """Something that fits the parameter's name in most cases, and anything in the others."""
    if chance.random() < 0.06:
        return chance.choice(ODD_TEXTS + ODD_NUMBERS)
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", str)
    if hasattr(annotation, "__members__"):
        return str(chance.choice(list(annotation)))
    if "float" in str(annotation):
        return chance.choice(ODD_NUMBERS)
    if "int" in str(annotation):
        return chance.choice(["0", "1", "2", "5", "16", "64"] if chance.random() < 0.9 else ODD_NUMBERS)
    paths = sorted(item.name for item in work.iterdir())
    fitting = {
        "queries": ["queries.jsonl", "-"],
        "results": ["results.jsonl", "-"],
        "runs": ["results.jsonl"],
        "seeds": ["seeds.jsonl"],
        "file": ["seeds.jsonl", "-"],
        "source": ["triples.jsonl", "beir", "seeds.jsonl"],
        "bank": ["bank", "new-bank"],
        "snapshot": ["snapshot"],
        "out": ["copy"],
        "recipe": ["recipe.toml"],
        "config": ["settings.toml"],
        "beir": ["beir"],
        "model": ["encoder", "m3", "starter"],
        "rerank": ["reranker"],
        "reranker": ["reranker"],
        "teacher": ["reranker", "encoder"],
        "models": ["encoder=0.5", "m3=1"],
        "output": [
            "out.jsonl",
            "out.jsonl.gz",
            "out.json",
            "out.csv",
            "out.parquet",
            "-",
            "bank/out.jsonl",
            "nowhere/out.jsonl",
        ],
        "decided": ["decided.jsonl", "-"],
        "audited": ["decided.jsonl", "-"],
        "policy": ["policy.json"],
        "plot": ["out.svg", "out.html"],
        "count": ["1", "5", "100"],
        "routes": ["bm25", "bm25,variant", "dense", "bm25,dense"],
        "filter": ['label = "a"', "not exists(id)", "id < 3"],
        "weights": ["bm25=1", "1,0.3,1"],
        "measures": ["nDCG@10", "R@1,MAP"],
        "device": ["auto", "cpu", "cuda:9"],
        "split": ["test"],
        "route": ["bm25", "dense"],
        "range": ["1-5", "10-100"],
    }
    choices = fitting.get(str(parameter.name), [])
    return chance.choice(choices) if choices and chance.random() < 0.93 else chance.choice(paths + WORDS)


# --- running ----------------------------------------------------------------------------------------------------------


class _Standard(io.TextIOWrapper):
    """A standard stream in memory, with the bytes below it that commands write to."""

    def __init__(self, content: bytes = b"") -> None:
        self.memory = io.BytesIO(content)
        super().__init__(self.memory, encoding="utf-8", errors="replace", write_through=True)

    def close(self) -> None:
        """Stay readable."""


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _run(words: list[str], stdin: bytes) -> tuple[Any, str, str]:
    """Exit code, standard output and standard error of the command line, in this process."""
    from ecom_rag.cli import main

    kept = sys.argv, sys.stdin, sys.stdout, sys.stderr
    out, err = _Standard(), _Standard()
    sys.argv, sys.stdin, sys.stdout, sys.stderr = ["ecom-rag", *words], _Standard(stdin), out, err
    code: Any = "no exit"
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr = kept
    return code, *(stream.memory.getvalue().decode("utf-8", "replace") for stream in (out, err))


def make_models(folder: Path) -> None:
    """Tiny random checkpoints, as those of the tests."""
    from conftest import make_encoder, make_reranker

    make_encoder(folder / "encoder", "bert", pooling="cls")
    make_encoder(folder / "m3", "xlmr", m3=True)
    make_reranker(folder / "reranker", "bert")


def main() -> None:
    """Run rounds and print the faults; exits 1 where there was one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print every command line and its last message")
    asked = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as place:
        os.environ["ECOM_RAG_CACHE"] = str(Path(place) / "cache")
        world = World(Path(place), make_models)
        codes: dict[Any, int] = {}
        for number in range(asked.first, asked.first + asked.rounds):
            done = world.round(number)
            codes[done.code] = codes.get(done.code, 0) + 1
            if done.complaint or asked.show:
                last = (done.err.strip().splitlines() or [""])[-1]
                print(
                    f"{number}: {done.complaint or 'held'}: exit {done.code}: {done.command!r:.300}\n   {last:.300}",
                    flush=True,
                )
            faults += bool(done.complaint)
        print(f"{asked.rounds} rounds, {faults} faults, exits {codes}")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
