"""A bank in shards on a real Ray cluster of this machine: the local file, whatever dies."""

import random
import shutil
import subprocess
import sys
import threading

import psutil
import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

from ecom_rag.distribution.ray_actors import RayActors
from ecom_rag.distribution.ray_parts import RayParts
from ecom_rag.errors import BankError, DistributionError, UsageError
from ecom_rag.files import jobs, records
from ecom_rag.models import Encoder
from ecom_rag.models.spec import ModelSpec
from ecom_rag.pipeline import Recall, recall_file, score_file
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from helpers.ray_cluster import actors, running
from helpers.ray_works import Counting
from helpers.small_banks import seed

FP32 = {"runtime": "torch", "precision": "fp32"}
HOLDER = "ray::_Holder"


@pytest.fixture(scope="module")
def cluster():
    """Three shards, which stay until others are held, a worker, and two parts of a test's own."""
    with running(cpus=6):
        workers = RayActors(workers=1, shards=3)
        yield workers
        workers.close()


@pytest.fixture(scope="module")
def bank(tmp_path_factory, m3_folder):
    encoder = Encoder.from_pretrained(m3_folder, **FP32)
    path = tmp_path_factory.mktemp("shards") / "bank"
    settings = BankSettings(routes=["bm25", "dense", "sparse", "multivector", "variant"])
    items = [seed(number % 50) for number in range(120)]  # copies, which other shards hold
    for number, item in enumerate(items):
        item["metadata"]["id"] = f"n{number}"
    build(path, items, settings, encoder=encoder, model=str(m3_folder))
    with SeedBank.open(path) as opened:
        opened.delete([f"n{number}" for number in range(30, 50)])
    return path


@pytest.fixture
def queries(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK_RECORDS", 7)
    path = tmp_path / "queries.jsonl"
    path.write_bytes(b"".join(records.dumps(seed(number)) for number in range(0, 300, 6)))
    return path


class Stopping:
    """Workers of which each opens the whole bank, that stop after some blocks."""

    shards = None

    def each(self, work, blocks):
        process = work.start()
        for number, block in enumerate(blocks):
            if number == 4:
                raise DistributionError("stopped")
            yield block, jobs.written(process(block))


@pytest.mark.slow
def test_recall_and_score_write_the_local_file(cluster, bank, queries, tmp_path):
    """The first goes on with what was begun without shards."""
    model = ModelSpec(None, FP32)
    cases = {
        "all": Recall(depth=20, top_k=5),
        "filtered": Recall(filter='label = "x"', exclude_self=True, fusion="rrf", exact_multivector=True),
    }
    begun = tmp_path / "ray_all.jsonl"
    with pytest.raises(DistributionError, match="stopped"):
        recall_file(queries, begun, cases["all"], bank=bank, model=model, workers=Stopping())
    for where, workers in (("local", None), ("ray", cluster)):
        for name, settings in cases.items():
            output, resume = tmp_path / f"{where}_{name}.jsonl", (where, name) == ("ray", "all")
            done = recall_file(queries, output, settings, bank=bank, model=model, workers=workers, resume=resume)
            assert done.resumed == (28 if resume else 0)
        output = tmp_path / f"{where}_score.jsonl"
        score_file(queries, output, bank=bank, model=model, mode="sparse", workers=workers)
    files = [one.name.removeprefix("local") for one in tmp_path.glob("local_*")]
    assert len(files) == 5  # two with a note of how they were made
    for name in files:
        assert (tmp_path / f"ray{name}").read_bytes() == (tmp_path / f"local{name}").read_bytes(), name


@pytest.mark.slow
def test_killed_shards_and_workers_change_nothing(cluster, bank, queries, tmp_path):
    model = ModelSpec(None, FP32)
    recall_file(queries, tmp_path / "local.jsonl", Recall(), bank=bank, model=model)
    draw, over, killed = random.Random(5), threading.Event(), []

    def kill():
        while not over.wait(draw.uniform(1, 4)) and len(killed) < 6:
            kind = HOLDER if len(killed) % 3 < 2 else "ray::_Actor"
            if found := actors(psutil.process_iter(), kind):
                killed.append(kind)
                draw.choice(found).kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        rounds = 0
        while len(killed) < 6:
            rounds += 1
            recall_file(queries, tmp_path / f"{rounds}.jsonl", Recall(), bank=bank, model=model, workers=cluster)
            assert (tmp_path / f"{rounds}.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    finally:
        over.set()
        killer.join()
    assert killed.count(HOLDER) == 4


def test_a_part_is_opened_again_where_its_process_dies(cluster, tmp_path):
    parts = RayParts([Counting(str(tmp_path), number) for number in range(2)])
    try:
        parts.wait()
        assert parts.ask("add", 10) == [10, 11]
        assert parts.ask("add_or_die_once", 20) == [20, 21]
        assert len(list(tmp_path.glob("opened 1 *"))) == 2 and len(list(tmp_path.glob("opened 0 *"))) == 1
        with pytest.raises(BankError, match=r"^shard 1 raises$"):
            parts.ask("raise_in", 1)
        with pytest.raises(DistributionError, match=r"shard 2 of 2 ended 4 processes, one after the other"):
            parts.ask("die_in", 1)
        assert parts.ask("add", 1) == [1, 2]
    finally:
        parts.close()


def test_a_part_that_cannot_be_opened_is_told(cluster):
    parts = RayParts([Counting("", 0)])
    try:
        with pytest.raises(DistributionError, match=r"the process on \S+ cannot hold shard 1: no folder"):
            parts.wait()
    finally:
        parts.close()


@pytest.mark.slow
def test_a_bank_that_changes_in_the_middle_ends_the_run(cluster, bank, queries, tmp_path):
    bank = shutil.copytree(bank, tmp_path / "bank")
    output = tmp_path / "out.jsonl"
    told = []

    def progress(stage, done, total):
        if stage == "recalling" and done and not told:
            told.append(done)
            with SeedBank.open(bank) as opened:
                opened.delete(["n3"])

    model = ModelSpec(None, FP32)
    with pytest.raises(BankError, match="has changed since the run began"):
        recall_file(queries, output, Recall(), bank=bank, model=model, workers=cluster, progress=progress)
    assert told and not output.exists()


def test_what_cannot_be_searched_so_is_refused(cluster, bank, queries, tmp_path):
    with pytest.raises(UsageError, match="route 'hybrid' ranks all rows"):
        score_file(
            queries, tmp_path / "o.jsonl", bank=bank, model=ModelSpec(None, FP32), mode="hybrid", workers=cluster
        )


@pytest.mark.slow
def test_the_command_on_a_cluster_that_it_starts(bank, queries, tmp_path):
    queries.write_bytes(queries.read_bytes() * 20)
    command = [sys.executable, "-m", "ecom_rag", "recall", str(queries), "--bank", str(bank), "--precision", "fp32"]
    command += ["--routes", "bm25,dense,variant", "-o"]
    local, out = tmp_path / "local.jsonl", tmp_path / "out.jsonl"
    subprocess.run([*command, local], check=True, timeout=600)
    ray = subprocess.run([*command, out, "--ray", "auto", "--shards", "2"], capture_output=True, text=True, timeout=600)
    assert ray.returncode == 0, ray.stderr
    assert out.read_bytes() == local.read_bytes()
