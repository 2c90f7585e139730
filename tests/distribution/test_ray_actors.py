"""Blocks on a real Ray cluster of this machine: the same file, whatever dies."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

from ecom_rag.distribution.ray_actors import RayActors
from ecom_rag.errors import BankError, DistributionError, EmbeddingError, UsageError
from ecom_rag.files import jobs, json_text, records
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.spec import ModelSpec
from ecom_rag.pipeline import Recall, recall_file, rerank_file, score_file
from ecom_rag.pipeline.file_search import Search, SearchWork
from ecom_rag.pipeline.places import Asked
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from ecom_rag.text.analysis import Analyzer
from helpers.ray_cluster import actors, running
from helpers.ray_works import DyingEarly, Marking, Refusing
from helpers.small_banks import seed

FP32 = {"runtime": "torch", "precision": "fp32"}


@pytest.fixture(scope="module")
def cluster():
    with running(cpus=2):
        yield RayActors(workers=2)


@pytest.fixture(scope="module")
def bank(tmp_path_factory, m3_folder):
    encoder = Encoder.from_pretrained(m3_folder, **FP32)
    path = tmp_path_factory.mktemp("ray") / "bank"
    settings = BankSettings(routes=["bm25", "dense", "sparse"])
    build(path, [seed(number) for number in range(60)], settings, encoder=encoder, model=str(m3_folder))
    return path


@pytest.fixture
def queries(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK_RECORDS", 7)  # many blocks of few records
    path = tmp_path / "queries.jsonl"
    path.write_bytes(b"".join(records.dumps(seed(number)) for number in range(0, 300, 3)))
    return path


def blocks_of(*texts, size=2):
    items = [{"text": text, "metadata": {}} for text in texts]
    return iter([items[start : start + size] for start in range(0, len(items), size)])


def made(found):
    """All results of blocks."""
    return [one for _, (lines, _) in found for one in json_text.loads_all(lines)]


def test_blocks_come_back_in_their_order(cluster):
    texts = ["is slow", "a", "b", "is slow", *map(str, range(80))]
    found = list(cluster.each(Marking(), blocks_of(*texts)))
    assert [one["done"] for one in made(found)] == [text.upper() for text in texts]
    assert [one["text"] for block, _ in found for one in block] == texts
    assert sum(counts["records"] for _, (_, counts) in found) == len(texts)
    assert list(cluster.each(Marking(), iter([]))) == []


def test_workers_collect_garbage_as_rarely_as_the_command(cluster):
    """Else the same block takes them 40 % longer."""
    [result] = made(cluster.each(Marking(), blocks_of("collects how often")))
    assert tuple(result["done"]) == jobs.COLLECTED


def test_a_block_whose_worker_dies_goes_to_another(cluster, tmp_path):
    texts = ["a", "dies once", *map(str, range(30))]
    found = cluster.each(Marking(folder=str(tmp_path)), blocks_of(*texts))
    assert [one["text"] for one in made(found)] == texts
    assert (tmp_path / "died").exists()


def test_a_record_that_ends_every_worker_is_named(cluster):
    found = cluster.each(Marking(), blocks_of("a", "b", "c", "dies", "e", "f"))
    assert [one["text"] for one in next(found)[0]] == ["a", "b"]
    with pytest.raises(DistributionError, match="records 3 to 4 ended 3 workers, one after the other"):
        list(found)


def test_what_the_work_raises_comes_out(cluster):
    with pytest.raises(EmbeddingError, match=r"^text 7 gave NaN$"):
        list(cluster.each(Marking(), blocks_of("a", "raises", "b")))


def test_a_worker_that_cannot_do_the_work_is_refused(cluster):
    with pytest.raises(DistributionError, match=r"the worker on \S+ cannot do what this machine does: precision fp16"):
        list(cluster.each(Refusing(), blocks_of("a")))
    with pytest.raises(DistributionError, match="3 workers ended while they loaded"):
        list(cluster.each(DyingEarly(), blocks_of("a", "b", "c")))


def test_workers_that_end_together_count_once(cluster, tmp_path):
    """As those of a machine that goes: a pair of starts fails and one more, not three one after the other."""
    found = cluster.each(DyingEarly(folder=str(tmp_path), processes=3), blocks_of("a", "b", "c", "d"))
    assert [one["done"] for one in made(found)] == ["A", "B", "C", "D"]
    assert len(list(tmp_path.iterdir())) == 3


def test_nobody_is_left_behind(cluster):
    import ray

    list(cluster.each(Marking(), blocks_of("a", "b", "c")))
    with pytest.raises(EmbeddingError):
        list(cluster.each(Marking(), blocks_of("raises")))
    for _ in range(100):
        if ray.available_resources().get("CPU") == 2:
            break
        time.sleep(0.1)
    assert ray.available_resources().get("CPU") == 2


@pytest.mark.slow
def test_recall_score_and_rerank_write_the_local_file(cluster, bank, queries, xlmr_reranker, tmp_path):
    settings = Recall(depth=20, top_k=5)
    for name, workers in (("local", None), ("ray", cluster)):
        recall_file(
            queries,
            tmp_path / f"{name}.jsonl",
            settings,
            bank=bank,
            model=ModelSpec(None, FP32),
            reranker=ModelSpec(xlmr_reranker, FP32),
            workers=workers,
        )
        score_file(queries, tmp_path / f"score_{name}.jsonl", bank=bank, model=ModelSpec(None, FP32), workers=workers)
        ranked = tmp_path / f"ranked_{name}.jsonl"
        rerank_file(tmp_path / f"score_{name}.jsonl", ranked, ModelSpec(xlmr_reranker, FP32), workers=workers)
    for kind in ("", "score_", "ranked_"):
        assert (tmp_path / f"{kind}ray.jsonl").read_bytes() == (tmp_path / f"{kind}local.jsonl").read_bytes()


class Numbering:
    """Done after the search, as a policy is: depends on what came before, and counts."""

    def __init__(self):
        self.settings, self.seen = {"after": "numbers"}, 0

    def begin(self, made, cache):
        self.replay([])

    def block(self, results):
        first, self.seen = self.seen, self.seen + len(results)
        return [{**one, "number": first + place} for place, one in enumerate(results)], {"numbered": len(results)}

    def replay(self, written):
        self.seen += len(list(written))

    def end(self):
        return []

    def close(self):
        pass


def test_what_is_done_after_the_search_is_done_here_in_order(cluster, bank, queries, tmp_path):
    """And what travels as lines comes back as it was."""
    odd = {"a": [10**400, -0.0, 1e300, 2**64 + 1, None, "\u2028\r"], "b": {"c": [[[{}]]]}, "": "\x00"}
    with queries.open("ab") as more:
        more.write(records.dumps({"text": "leather \u2028 wallet", "metadata": odd, "other": odd}))
    counts = []
    for name, workers in (("local", None), ("ray", cluster)):
        made = recall_file(
            queries, tmp_path / f"{name}.jsonl", Recall(routes=["bm25"]), bank=bank, after=Numbering(), workers=workers
        )
        counts.append(made.counts)
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert counts[0] == counts[1] and counts[0]["numbered"] == 101


@pytest.mark.slow
def test_kills_at_random_change_nothing(cluster, bank, queries, tmp_path):
    """Workers are killed while they load, search, and wait."""
    recall_file(queries, tmp_path / "local.jsonl", Recall(), bank=bank, model=ModelSpec(None, FP32))
    expected = (tmp_path / "local.jsonl").read_bytes()
    draw = random.Random(3)
    over = threading.Event()
    killed = []

    def kill():
        while not over.wait(draw.uniform(0.5, 4)) and len(killed) < 6:
            if found := actors(psutil.process_iter()):
                killed.append(draw.choice(found))
                killed[-1].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    rounds = 0
    try:
        while len(killed) < 6 or not rounds:
            rounds += 1
            output, resume = tmp_path / f"{rounds}.jsonl", False
            while True:
                try:
                    model = ModelSpec(None, FP32)
                    recall_file(queries, output, Recall(), bank=bank, model=model, workers=cluster, resume=resume)
                    break
                except DistributionError:  # three workers in a row, or one block three times
                    resume = True
            assert output.read_bytes() == expected
    finally:
        over.set()
        killer.join()
    assert len(killed) == 6


def test_another_model_or_a_changed_bank_is_refused(bank, queries, tmp_path):
    bank = shutil.copytree(bank, tmp_path / "bank")
    asked = Asked(
        "recall",
        queries,
        tmp_path / "out.jsonl",
        Recall(),
        None,
        bank,
        ModelSpec(None, FP32),
        None,
        Analyzer(),
        "fail",
    )
    search = Search(asked)
    search.pipeline()
    work = search.work()
    block = [{"text": "leather", "metadata": {}}]
    assert work.start()(block)[0][0]["topk_seed"]
    other = {**work.expected, "model": ["another", {}]}
    with pytest.raises(DistributionError, match=r"^model is .* instead of .*another"):
        SearchWork(work.asked, work.fitted, other, 0).start()
    process = work.start()
    with SeedBank.open(bank) as opened:
        opened.delete(["s3"])
    with pytest.raises(BankError, match="has changed since the run began"):
        process(block)
    with pytest.raises(DistributionError, match=r"^seeds is .* instead of"):
        work.start()


def test_precision_is_settled_by_the_process_that_begins(bank, queries, tmp_path):
    asked = Asked(
        "recall", queries, tmp_path / "o.jsonl", Recall(), None, bank, ModelSpec(None), None, Analyzer(), "fail"
    )
    search = Search(asked)
    search.pipeline()
    sent = search.work().asked.model
    found = search.decisive()["model"][1]
    assert sent.options["precision"] == found["precision"] in ("fp32", "bf16")
    assert (sent.options["runtime"], sent.options["batch_tokens"]) == (found["runtime"], found["batch_tokens"])


def test_only_what_can_be_sent(bank, queries, xlmr_reranker, m3_folder, tmp_path):
    class Nobody:
        def each(self, work, blocks):
            raise AssertionError

    place = tmp_path / "out.jsonl"
    with pytest.raises(UsageError, match="workers search a bank"):
        score_file(queries, place, seeds=queries, model=m3_folder, workers=Nobody())
    judge = CrossEncoder.from_pretrained(xlmr_reranker, **FP32)
    with pytest.raises(UsageError, match="workers load models by name; give `reranker`"):
        recall_file(queries, place, Recall(), bank=bank, reranker=judge, workers=Nobody())
    results = tmp_path / "results.jsonl"
    item = {"text": "a", "metadata": {}, "topk_sim": [1.0], "topk_seed": ["b"], "topk_metadata": [{}]}
    results.write_bytes(records.dumps(item))
    with pytest.raises(UsageError, match="leave out `reuse`"):
        rerank_file(results, place, xlmr_reranker, reuse=tmp_path / "known.db", workers=Nobody())


def test_auto_joins_the_cluster_of_the_machine_and_no_other(cluster):
    """Another run's cluster would end with that run."""
    import ray

    code = "import ray\nfrom ecom_rag.distribution.ray_actors import RayActors\nRayActors()\n"
    code += "print(ray.get_runtime_context().gcs_address)"
    own = ray.get_runtime_context().gcs_address
    for told, joins in (({}, False), ({"RAY_ADDRESS": own}, True)):
        found = subprocess.run([sys.executable, "-c", code], env=os.environ | told, capture_output=True, timeout=300)
        assert (found.stdout.decode().strip() == own) is joins, found.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "localhost:99999999", ":", "[::1]:1"])
def test_no_cluster_at_an_address(address):
    code = f"from ecom_rag.distribution.ray_actors import RayActors\nRayActors({address!r})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert f"DistributionError: no Ray cluster answers at {address}" in found.stderr


@pytest.mark.slow
def test_a_killed_driver_goes_on(bank, queries, tmp_path):
    """The command itself, on a cluster that it starts: killed in the middle, resumed to the same bytes."""
    lines = queries.read_bytes() * 120  # 12,000 records: three blocks
    queries.write_bytes(lines)
    command = [sys.executable, "-m", "ecom_rag", "recall", str(queries), "--bank", str(bank), "--precision", "fp32"]
    local, out = tmp_path / "local.jsonl", tmp_path / "out.jsonl"
    subprocess.run([*command, "-o", local], check=True, timeout=600)
    ray = [*command, "-o", str(out), "--ray", "auto", "--workers", "2"]
    journal = tmp_path / "out.jsonl.partial" / "journal.json"
    started = subprocess.Popen(ray, start_new_session=True)
    for _ in range(3000):
        if journal.exists() and json.loads(journal.read_text())["blocks"] >= 1:
            break
        time.sleep(0.05)
    assert started.poll() is None
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    done = json.loads(journal.read_text())["blocks"]
    again = subprocess.run([*ray, "--resume"], capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert "before the interruption" in again.stderr and done >= 1
    assert out.read_bytes() == local.read_bytes()
    assert len(out.read_bytes().splitlines()) == 12_000


@pytest.mark.slow
def test_standard_output_is_for_results(bank, queries, tmp_path):
    """A worker is killed; Ray would print that among the results. Before that, it was as nice as the command."""
    queries.write_bytes(queries.read_bytes() * 1000)
    command = [sys.executable, "-m", "ecom_rag", "recall", str(queries), "--bank", str(bank), "--routes", "bm25"]
    local = subprocess.run([*command, "-o", "-"], check=True, capture_output=True, timeout=600)
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        ray = subprocess.Popen([*command, "-o", "-", "--ray", "auto", "--workers", "1"], stdout=out, stderr=err)
    while not (tmp_path / "out").stat().st_size and ray.poll() is None:
        time.sleep(0.05)
    worker = actors(psutil.Process(ray.pid).children(recursive=True))[0]
    assert worker.nice() == psutil.Process(ray.pid).nice()
    worker.kill()
    assert ray.wait(timeout=600) == 0
    assert (tmp_path / "out").read_bytes() == local.stdout
    assert b"a worker that had records" in (tmp_path / "err").read_bytes()
