"""The command line is the library: same results, one line for every mistake, and a kill at any moment loses nothing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ecom_rag.files import records
from helpers.forked import Forked

pytestmark = pytest.mark.slow


COMMAND = "import runpy; runpy.run_module('ecom_rag', run_name='__main__', alter_sys=True)"


def run(*arguments, stdin=None):
    command = [sys.executable, "-m", "ecom_rag", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True)


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    processes = Forked(tmp_path_factory.mktemp("forked"))
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def run_forked(forked):
    """``run`` for commands whose streams are of no interest, in a process that need not import the libraries."""
    return lambda *arguments: forked.run(COMMAND, *arguments)


@pytest.fixture
def run_here(monkeypatch, capfdbinary):
    """The same without a new process: for what ends before any lasting state is made."""

    def go(*arguments):
        from ecom_rag.cli import main

        monkeypatch.setattr(sys, "argv", ["ecom-rag", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capfdbinary.readouterr().err.decode()

    return go


def write(path, items):
    path.write_bytes(b"".join(map(records.dumps, items)))
    return path


def read(path):
    return list(records.read(str(path)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("files")
    seeds = [{"text": f"seed {i} 茶 wallet {i % 7}", "metadata": {"id": i, "label": str(i % 3)}} for i in range(60)]
    queries = [{"text": f"wallet {i} 茶 best {i % 11}", "metadata": {"id": i}, "shop": "s"} for i in range(300)]
    write(target / "seeds.jsonl", seeds)
    write(target / "queries.jsonl", queries)
    return target


@pytest.fixture(scope="module")
def score(folder, bge_folder, run_forked):
    def call(*extra, queries="queries.jsonl", go=run_forked):
        base = ["score", folder / queries, "--seeds", folder / "seeds.jsonl", "--model", bge_folder]
        return go(*base, "--runtime", "torch", *extra)

    return call


def test_score_equals_the_library_and_brute_force(folder, bge_folder, score):
    import numpy as np

    from ecom_rag import Encoder
    from ecom_rag import score as score_records

    done = score("--output", folder / "out.jsonl", "--top-k", "7")
    assert done.returncode == 0, done.stderr
    assert b"scored 300 records against 60 seeds" in done.stderr
    found = read(folder / "out.jsonl")
    queries, seeds = read(folder / "queries.jsonl"), read(folder / "seeds.jsonl")
    encoder = Encoder.from_pretrained(str(bge_folder), runtime="torch")
    assert found == score_records(queries, seeds, encoder, top_k=7)
    sides = [
        encoder.encode([r["text"] for r in part], side=side).dense
        for part, side in ((queries, "query"), (seeds, "passage"))
    ]
    brute = sides[0] @ sides[1].T
    for record, query, row in zip(found, queries, brute, strict=True):
        assert {key: record[key] for key in query} == query  # other keys pass through
        np.testing.assert_allclose(record["topk_sim"], np.sort(row)[::-1][:7], atol=2e-6)
        assert [len(record[key]) for key in ("topk_seed", "topk_metadata")] == [7, 7]
        for text, metadata in zip(record["topk_seed"], record["topk_metadata"], strict=True):
            assert seeds[metadata["id"]]["text"] == text


@pytest.fixture(scope="module")
def piped(score):
    return score("--output", "-", go=run)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".json", ".csv", ".parquet"])
def test_formats_and_pipes_agree(folder, score, piped, suffix):
    assert piped.returncode == 0
    expected = [json.loads(line) for line in piped.stdout.splitlines()]
    assert score("--output", folder / f"o{suffix}").returncode == 0
    assert read(folder / f"o{suffix}") == expected
    records.convert(folder / "queries.jsonl", folder / f"q{suffix}", suffix)
    assert score("--output", folder / "again.jsonl", queries=f"q{suffix}").returncode == 0
    assert read(folder / "again.jsonl") == expected


def test_stdin_and_rag_scripts(folder, score, bge_folder, xlmr_reranker, tmp_path):
    direct = score("-o", folder / "direct.jsonl")
    assert direct.returncode == 0
    script = Path(__file__).parents[2] / "rag_scripts"
    arguments = ["-", "--seeds", folder / "seeds.jsonl", "--model", bge_folder, "--runtime", "torch", "-o", "-"]
    done = subprocess.run(
        [sys.executable, script / "1_scorer.py", *arguments],
        input=(folder / "queries.jsonl").read_bytes(),
        capture_output=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (folder / "direct.jsonl").read_bytes()
    arguments = ["-", "--model", xlmr_reranker, "--runtime", "torch", "-o", "-"]
    again = subprocess.run(
        [sys.executable, script / "2_reranker.py", *arguments],
        input=done.stdout,
        capture_output=True,
        cwd=tmp_path,
    )
    assert again.returncode == 0, again.stderr
    assert len(again.stdout.splitlines()) == 300


def test_rerank_moves_the_lists_together(folder, score, run_forked, xlmr_reranker, tmp_path):
    from ecom_rag import CrossEncoder

    assert score("-o", tmp_path / "scored.jsonl", "-k", "6").returncode == 0
    before = read(tmp_path / "scored.jsonl")
    done = run_forked(
        "rerank",
        tmp_path / "scored.jsonl",
        "--model",
        xlmr_reranker,
        "-o",
        tmp_path / "r.jsonl",
        "-k",
        "4",
        "--normalize",
        "--precision",
        "fp32",
    )
    assert done.returncode == 0, done.stderr
    cross_encoder = CrossEncoder.from_pretrained(str(xlmr_reranker), precision="fp32")
    for old, new in zip(before, read(tmp_path / "r.jsonl"), strict=True):
        relevance = cross_encoder.score([(old["text"], seed) for seed in old["topk_seed"]], normalize=True)
        assert new["topk_sim"] == sorted(new["topk_sim"], reverse=True)
        assert len(new["topk_sim"]) == 4
        for sim, seed, metadata, evidence in zip(
            new["topk_sim"], new["topk_seed"], new["topk_metadata"], new["topk_evidence"], strict=True
        ):
            rank = evidence["retrieval"]["rank"]
            assert old["topk_seed"][rank - 1] == seed
            assert old["topk_metadata"][rank - 1] == metadata
            assert old["topk_sim"][rank - 1] == evidence["retrieval"]["score"]
            assert sim == pytest.approx(relevance[rank - 1], abs=1e-5)
    half = run_forked(
        "rerank",
        tmp_path / "scored.jsonl",
        "--model",
        xlmr_reranker,
        "-o",
        tmp_path / "half.jsonl",
        "--precision",
        "fp32",
        "--blend",
        "0.25",
    )
    assert half.returncode == 0, half.stderr
    for old, new in zip(before, read(tmp_path / "half.jsonl"), strict=True):
        relevance = cross_encoder.score([(old["text"], seed) for seed in old["topk_seed"]]).astype(float)
        earlier = np.array(old["topk_sim"])
        parts = [(x - x.min()) / (x.std() or 1) for x in (relevance, earlier)]
        blended = 0.25 * parts[0] + 0.75 * parts[1]
        order = [evidence["retrieval"]["rank"] - 1 for evidence in new["topk_evidence"]]
        assert sorted(order) == list(range(6))
        np.testing.assert_allclose(new["topk_sim"], blended[order], atol=2e-2)
        assert new["topk_sim"] == sorted(new["topk_sim"], reverse=True)
        own = [evidence["reranker"] for evidence in new["topk_evidence"]]
        np.testing.assert_allclose([item["score"] for item in own], relevance[order], atol=1e-5)
        assert sorted(item["rank"] for item in own) == [1, 2, 3, 4, 5, 6]
    twice = run_forked("rerank", tmp_path / "r.jsonl", "--model", xlmr_reranker, "-o", tmp_path / "rr.jsonl")
    assert twice.returncode == 0
    assert set(read(tmp_path / "rr.jsonl")[0]["topk_evidence"][0]) == {"retrieval", "retrieval_2"}


def test_hybrid_brings_evidence(folder, run_forked, m3_folder, tmp_path):
    done = run_forked(
        "score",
        folder / "queries.jsonl",
        "--seeds",
        folder / "seeds.jsonl",
        "--model",
        m3_folder,
        "--mode",
        "hybrid",
        "--weights",
        "1,0.3,1",
        "--precision",
        "fp32",
        "-o",
        tmp_path / "h.jsonl",
    )
    assert done.returncode == 0, done.stderr
    for record in read(tmp_path / "h.jsonl"):
        for sim, evidence in zip(record["topk_sim"], record["topk_evidence"], strict=True):
            parts = [evidence[name]["score"] for name in ("dense", "sparse", "multivector")]
            assert sim == pytest.approx((parts[0] + 0.3 * parts[1] + parts[2]) / 2.3, abs=3e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such"], "No such option: --no-such"),
        (["--topk", "3"], "--top-k"),
        (["--top-k", "0"], "--top-k is 0; expected at least 1"),
        (
            ["--mode", "dens"],
            "--mode 'dens' is unknown; expected dense, sparse, multivector or hybrid (did you mean dense?); see"
            " ecom-rag score --help",
        ),
        (["--on-bad-line", "x"], "--on-bad-line 'x' is unknown; expected fail or skip; see ecom-rag score --help"),
        (["--mode", "sparse"], "sparse_linear.pt is missing"),
        (["--mode", "hybrid", "--weights", "1,2"], "expected three numbers"),
        (["--mode", "hybrid", "--weights", "a,b,c"], "are not numbers"),
        (["--weights", "1,1,1"], "--weights has no effect with --mode dense; leave it out, or choose --mode hybrid"),
        (["--model", "no/such-model"], "the hub cannot be reached"),
        (["--model", "./nowhere"], "no such folder; pass a local folder, or 'starter' for"),
        (["--max-length", "100000"], "expected 8 to 512"),
        (["--precision", "fp16"], "fp16 needs a GPU"),
        (["--device", "cuda"], "no CUDA GPU"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--output", "no/such/folder/o.jsonl"], "does not exist; create it first"),
        (["--output", "o.unknown"], "unknown file type"),
        (["--output", "-", "--resume"], "--resume needs a file"),
        (["--output", "-", "--on-bad-line", "skip"], "give --output a path"),
        (["--seeds", "-"], "give the seeds as a file"),
    ],
)
def test_every_mistake_is_one_line_and_exit_2(folder, bge_folder, tmp_path, run_here, arguments, message):
    options = {"--seeds": folder / "seeds.jsonl", "--model": bge_folder, "--output": tmp_path / "o.jsonl"}
    base = [part for key, value in options.items() if key not in arguments for part in (key, value)]
    code, stderr = run_here("score", folder / "queries.jsonl", *base, *arguments)
    assert code == 2, stderr
    assert message in stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_lines_fail_or_are_kept_beside_the_output(folder, score, tmp_path):
    lines = (folder / "queries.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "bad.jsonl").write_bytes(b"".join([*lines[:5], b'{"text": ""}\n', b"nonsense\n", *lines[5:9]]))
    failed = score("-o", tmp_path / "o.jsonl", queries="bad.jsonl")
    assert failed.returncode == 2
    assert b"bad.jsonl:6: " in failed.stderr and len(failed.stderr.splitlines()) == 1
    assert not (tmp_path / "o.jsonl").exists()
    done = score("-o", tmp_path / "o.jsonl", "--on-bad-line", "skip", queries="bad.jsonl")
    assert done.returncode == 0
    assert b"2 lines were refused" in done.stderr
    assert len(read(tmp_path / "o.jsonl")) == 9
    refused = [json.loads(line) for line in (tmp_path / "o.jsonl.rejected.jsonl").read_bytes().splitlines()]
    assert [item["where"].rsplit(":", 1)[1] for item in refused] == ["6", "7"]
    assert refused[1]["raw"] == "nonsense"


def test_empty_files_duplicate_ids_and_more_k_than_seeds(folder, bge_folder, score, tmp_path):
    (folder / "empty.jsonl").write_bytes(b"")
    done = score("-o", tmp_path / "o.jsonl", queries="empty.jsonl")
    assert done.returncode == 0 and (tmp_path / "o.jsonl").read_bytes() == b""
    assert b"held no records" in done.stderr
    done = run("score", folder / "queries.jsonl", "--seeds", folder / "empty.jsonl", "--model", bge_folder, "-o", "-")
    assert done.returncode == 2 and b"holds no seeds" in done.stderr
    write(folder / "twins.jsonl", [{"text": "a", "metadata": {"id": 1}}, {"text": "b", "metadata": {"id": 1}}])
    done = run("score", folder / "queries.jsonl", "--seeds", folder / "twins.jsonl", "--model", bge_folder, "-o", "-")
    assert done.returncode == 0
    assert b"top-k 10 is more than the 2 seeds" in done.stderr and b"seed ids occur more than once" in done.stderr
    assert len(json.loads(done.stdout.splitlines()[0])["topk_sim"]) == 2


def test_reranker_input_is_checked(folder, xlmr_reranker, bge_folder, tmp_path, run_here):
    good = {"text": "a", "metadata": {}, "topk_sim": [1.0], "topk_seed": ["s"], "topk_metadata": [{}]}
    for change, message in [
        ({"topk_sim": [1.0, 2.0]}, "lists differ in length"),
        ({"topk_seed": [3]}, '"topk_seed" holds something else'),
        ({"topk_sim": ["x"]}, '"topk_sim" holds something else'),
        ({"topk_metadata": {}}, '"topk_metadata" is not an array'),
    ]:
        path = write(tmp_path / "r.jsonl", [good, {**good, **change}])
        code, stderr = run_here("rerank", path, "--model", xlmr_reranker, "-o", tmp_path / "o.jsonl")
        assert code == 2 and message in stderr and "r.jsonl:2: " in stderr
    path = write(tmp_path / "r.jsonl", [good])
    code, stderr = run_here("rerank", path, "--model", bge_folder, "-o", tmp_path / "o.jsonl")
    assert code == 2 and "is not a reranker" in stderr


KILLED = """
import os, sys
from ecom_rag.files import jobs, publish, resumable, workfolders
from ecom_rag.models import kept
from ecom_rag.pipeline import search
jobs.BLOCK_RECORDS = 16
point, count = sys.argv[1], int(sys.argv[2])
def dying(owner, name):
    original, calls = getattr(owner, name), []
    def wrapper(*arguments, **options):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), 9)
        return original(*arguments, **options)
    setattr(owner, name, wrapper)
if point != "never":
    owner, name = point.split(":")
    dying(eval(owner), name)
sys.argv = ["ecom-rag", *sys.argv[3:]]
from ecom_rag.cli import main
main()
"""
KILL_POINTS = [
    ("resumable:_sync", 3),
    ("resumable.ResumableOutput:_save_journal", 1),
    ("resumable.ResumableOutput:_save_journal", 4),
    ("resumable.records:dumps", 90),
    ("kept.Embeddings:save", 2),
    ("search.Pipeline:recall", 1),
    ("search.Pipeline:recall", 11),
    ("resumable.ResumableOutput:_final_source", 1),
    ("publish.shutil:copyfileobj", 1),
    ("resumable.disk:sync_folder", 22),
    ("workfolders.shutil:rmtree", 1),
]


@pytest.fixture(scope="module")
def killable(forked):
    """The command line in small blocks, killed by SIGKILL at the ``count``-th call of a function."""
    return lambda point, count, *arguments: forked.run(KILLED, point, count, *arguments)


@pytest.fixture(scope="module")
def uninterrupted(folder, bge_folder, killable, tmp_path_factory):
    target = tmp_path_factory.mktemp("whole")
    lines = (folder / "queries.jsonl").read_bytes().splitlines(keepends=True)
    lines[3:3] = [b"nonsense\n"]
    lines[200:200] = [b"[]\n"]
    (target / "queries.jsonl").write_bytes(b"".join(lines))
    arguments = [
        "score",
        target / "queries.jsonl",
        "--seeds",
        folder / "seeds.jsonl",
        "--model",
        bge_folder,
        "--runtime",
        "torch",
        "--on-bad-line",
        "skip",
    ]
    for suffix in (".jsonl", ".csv", ".parquet"):
        assert killable("never", 0, *arguments, "-o", target / f"whole{suffix}").returncode == 0
    return target, arguments


@pytest.mark.parametrize(
    ("point", "count", "suffix"),
    [(p, c, ".jsonl") for p, c in KILL_POINTS]
    + [(p, c, suffix) for p, c in KILL_POINTS[-4:] for suffix in (".csv", ".parquet")],
)
def test_kill_and_resume_gives_the_same_bytes(uninterrupted, killable, tmp_path, point, count, suffix):
    target, arguments = uninterrupted
    whole, cut = target / f"whole{suffix}", tmp_path / f"cut{suffix}"
    killed = killable(point, count, *arguments, "-o", cut)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if cut.exists():
        assert cut.read_bytes() == whole.read_bytes()
    again = killable(point, count, *arguments, "-o", cut, "--resume")  # killed once more where the moment comes again
    if again.returncode:
        again = killable("never", 0, *arguments, "-o", cut, "--resume")
    assert again.returncode == 0, again.stderr
    assert cut.read_bytes() == whole.read_bytes()
    rejected = [Path(f"{path}.rejected.jsonl").read_bytes() for path in (whole, cut)]
    assert rejected[0] == rejected[1] and len(rejected[0].splitlines()) == 2
    assert not Path(f"{cut}.partial").exists()


def test_resume_refuses_other_settings_and_changed_input(folder, bge_folder, killable, tmp_path, run_here):
    queries = tmp_path / "queries.jsonl"
    queries.write_bytes((folder / "queries.jsonl").read_bytes())
    arguments = [
        "score",
        queries,
        "--seeds",
        folder / "seeds.jsonl",
        "--model",
        bge_folder,
        "--runtime",
        "torch",
        "-o",
        tmp_path / "o.jsonl",
    ]
    assert killable("search.Pipeline:recall", 5, *arguments).returncode == -signal.SIGKILL
    code, stderr = run_here(*arguments, "--resume", "--top-k", "3")
    assert code == 2 and "other settings (top_k: 10, now 3)" in stderr
    queries.write_bytes(queries.read_bytes().replace(b"wallet 2 ", b"WALLET 2 "))
    code, stderr = run_here(*arguments, "--resume")
    assert code == 2 and "the input changed" in stderr


def test_interrupt_exits_130(folder, bge_folder, tmp_path):
    """A pipe that never ends, interrupted by Ctrl-C."""
    command = [
        sys.executable,
        "-m",
        "ecom_rag",
        "score",
        "-",
        "--seeds",
        folder / "seeds.jsonl",
        "--model",
        bge_folder,
        "--runtime",
        "torch",
        "-o",
        tmp_path / "o.jsonl",
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    for _ in range(600):
        if (tmp_path / "o.jsonl.partial" / "journal.json").exists():
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted" in stderr and b"Traceback" not in stderr


def test_help_and_import_load_no_torch():
    for code in ("import ecom_rag", "import ecom_rag.cli"):
        check = f"import sys; {code}; assert not {{'torch', 'numba', 'transformers', 'openvino'}} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", check], check=True)
    for command in ([], ["score"], ["rerank"], ["recall"], ["evaluate"], ["bank", "build"], ["demo"]):
        done = run(*command, "--help")
        assert done.returncode == 0
        assert not command or b"Example" in done.stdout
    assert run("--version").stdout.startswith(b"ecom-rag 0.")
