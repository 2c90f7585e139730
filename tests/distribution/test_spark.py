"""The Spark recipe on a cluster of two executors on this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecom_rag.distribution.arrow import ArrowBlocks
from ecom_rag.errors import DistributionError, RecordError
from ecom_rag.models import Encoder
from ecom_rag.models.spec import ModelSpec
from ecom_rag.pipeline import Pipeline, Recall, recall_work
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from helpers.small_banks import seed

FP32 = ModelSpec(None, {"precision": "fp32"})
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def bank(tmp_path_factory, bge_folder):
    path = tmp_path_factory.mktemp("spark") / "bank"
    settings = BankSettings(routes=["bm25", "dense"])
    encoder = Encoder.from_pretrained(bge_folder, precision="fp32")
    build(path, [seed(number) for number in range(50)], settings, encoder=encoder, model=str(bge_folder))
    return path


@pytest.fixture(scope="module")
def expected(bank, bge_folder):
    with SeedBank.open(bank, encoder=Encoder.from_pretrained(bge_folder, precision="fp32")) as opened:
        return Pipeline(opened, Recall()).recall([seed(number) for number in range(200)])


def listings():
    return [{"text": one["text"], "metadata": json.dumps(one["metadata"])} for one in map(seed, range(200))]


def assert_same(rows, expected):
    by_text = {row["text"]: row for row in rows}
    assert len(rows) == len(expected)
    for one in expected:
        row = by_text[one["text"]]
        assert json.loads(row["metadata"]) == one["metadata"]
        assert row["topk_seed"] == one["topk_seed"]
        assert row["topk_sim"] == pytest.approx(one["topk_sim"], abs=1e-5)
        assert json.loads(row["topk_metadata"]) == one["topk_metadata"]
        assert [list(item) for item in json.loads(row["topk_evidence"])] == [list(i) for i in one["topk_evidence"]]


def test_batches_in_this_process(bank, expected):
    blocks = ArrowBlocks(recall_work(Recall(), bank=bank, model=FP32))
    table = pa.Table.from_pylist(listings())
    found = list(blocks(iter(table.to_batches(max_chunksize=64))))
    assert [len(batch) for batch in found] == [64, 64, 64, 8]
    assert_same([row for batch in found for row in batch.to_pylist()], expected)
    [alone] = blocks(iter([pa.RecordBatch.from_pylist([{"text": listings()[3]["text"]}])]))
    assert alone.to_pylist()[0]["topk_seed"] == expected[3]["topk_seed"] and alone.to_pylist()[0]["metadata"] == "{}"


def test_what_is_no_record_is_refused(bank):
    blocks = ArrowBlocks(recall_work(Recall(), bank=bank, model=FP32))
    with pytest.raises(RecordError, match="query 0"):
        list(blocks(iter([pa.RecordBatch.from_pylist([{"text": None}])])))


def test_a_bank_that_has_changed_is_refused(bank, tmp_path):
    copy = shutil.copytree(bank, tmp_path / "bank")
    blocks = ArrowBlocks(recall_work(Recall(), bank=copy))
    with SeedBank.open(copy) as opened:
        opened.delete(["s3"])
    with pytest.raises(DistributionError, match="seeds is"):
        list(blocks(iter([pa.RecordBatch.from_pylist(listings()[:2])])))


@pytest.mark.slow
def test_the_example_on_two_executors(bank, expected, tmp_path):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    pq.write_table(pa.Table.from_pylist(listings()), tmp_path / "in.parquet")
    places = [ROOT / "examples" / "spark_recall.py", tmp_path / "in.parquet", bank, tmp_path / "out.parquet"]
    command = [sys.executable, *map(str, places)]
    options = "--master local-cluster[2,1,1024] --conf spark.sql.execution.arrow.maxRecordsPerBatch=40 pyspark-shell"
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    told = {"PYSPARK_SUBMIT_ARGS": options, "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": paths}
    told |= {"SPARK_LOCAL_IP": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        command, env={**os.environ, **told}, capture_output=True, text=True, timeout=900, cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert_same(pq.read_table(tmp_path / "out.parquet").to_pylist(), expected)
