"""Threads that stay: one batch's failure is its own, and they go with the model, the process and a fork."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch

from conftest import TEXTS
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.embeddings import Ragged
from ecom_rag.models.runtimes.batching import batches
from ecom_rag.models.runtimes.fused import FusedRuntime
from ecom_rag.models.runtimes.placement import Placement
from ecom_rag.models.runtimes.workers import Workers

pytestmark = pytest.mark.slow

BAD = 13


class Picky(torch.nn.Module):
    """Fails on one token."""

    def forward(self, ids, mask, outputs):
        if (ids == BAD).any():
            raise ValueError("bad token")
        return (ids.float().sum(dim=1),)


def rows(*lists):
    return list(batches(Ragged.of([np.array(row, np.int32) for row in lists]), pad_id=0, token_budget=3))


def test_a_failing_batch_fails_its_own_future_only():
    runtime = FusedRuntime(Picky())
    work = rows([1, 2, 3], [4, BAD, 6], [7, 8, 9], [1, 1, 1])
    futures = [runtime.submit(batch, [0]) for batch in work]
    assert [future.result()[0].tolist() for future in futures[:1] + futures[2:]] == [[6.0], [24.0], [3.0]]
    with pytest.raises(ValueError, match="bad token"):
        futures[1].result()
    with pytest.raises(ValueError, match="bad token"):
        list(runtime.run(work, [0]))
    assert [arrays[0].tolist() for _, arrays in runtime.run(rows([1, 2], [3]), [0])] == [[3.0], [3.0]]


def test_calls_share_threads_which_end_with_the_model(bge_folder):
    encoder = Encoder.from_pretrained(str(bge_folder), runtime="torch", precision="fp32", batch_tokens=16)
    before = set(threading.enumerate())
    found = []
    for _ in range(3):
        encoder.encode(TEXTS)
        found.append(set(threading.enumerate()) - before)
    assert found[0] and found[0] == found[1] == found[2]
    del encoder
    gc.collect()
    for thread in found[0]:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in found[0])


@pytest.mark.parametrize("how", [{"precision": "fp32"}, {"precision": "fp32", "runtime": "openvino"}])
@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_a_dropped_model_frees_its_memory_at_once(kind, how, bge_folder, bert_reranker):
    """Weights that wait for the garbage collector pile up, since it counts objects and not bytes."""
    gc.collect()
    gc.disable()
    try:
        if kind == "encoder":
            model = Encoder.from_pretrained(str(bge_folder), **how)
            model.encode(TEXTS)
        else:
            model = CrossEncoder.from_pretrained(str(bert_reranker), **how)
            model.score([("a", "b")])
        held = [weakref.ref(one) for one in (model, model._loaded.tokenizer, model._loaded.runtime)]
        del model
        assert [ref() for ref in held] == [None] * 3
    finally:
        gc.enable()


def test_a_small_input_keeps_all_cores_busy(bge_folder, monkeypatch):
    encoder = Encoder.from_pretrained(str(bge_folder), runtime="torch", precision="fp32")
    sizes = []
    submit = FusedRuntime.submit
    monkeypatch.setattr(
        FusedRuntime,
        "submit",
        lambda self, batch, out: (sizes.append(batch.input_ids.size), submit(self, batch, out))[1],
    )
    encoder.encode([f"leather wallet number {n} for men and women" for n in range(32)])
    assert 4 <= len(sizes) <= 16 and max(sizes) < sum(sizes) / 3


@pytest.mark.parametrize(
    ("placement", "tokens", "budget"),
    [
        (Placement("torch", "fp32", "cpu", fused=True), 20, 64),  # too little to be cut
        (Placement("torch", "fp32", "cpu", fused=True), 2_000, 250),
        (Placement("openvino", "fp32", "cpu"), 2_000, 250),
        (Placement("torch", "fp32", "cpu", fused=True), 1_000_000, 1024),
        (Placement("torch", "fp32", "cpu"), 2_000, 1024),  # all cores work on one batch
        (Placement("torch", "fp16", "cuda"), 2_000, 1024),
    ],
)
def test_the_cut_depends_on_the_input_alone(placement, tokens, budget):
    assert placement.batch_budget(tokens, 1024) == budget


def test_a_call_that_is_given_up_leaves_nothing_waiting():
    runtime = FusedRuntime(Picky())
    results = runtime.run(rows(*([n, n, n] for n in range(100, 200))), [0])
    next(results)
    results.close()
    assert runtime.submit(rows([1, 2, 3])[0], [0]).result()[0].tolist() == [6.0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_child_starts_its_own_threads(bge_folder):
    encoder = Encoder.from_pretrained(str(bge_folder), runtime="torch", precision="fp32", batch_tokens=16)
    expected = encoder.encode(TEXTS).dense
    encoder._loaded.runtime._workers._lock.acquire()  # as if another thread were just handing in a batch
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that waits for its parent's threads is a failure
        os._exit(0 if np.array_equal(encoder.encode(TEXTS).dense, expected) else 1)
    encoder._loaded.runtime._workers._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(encoder.encode(TEXTS).dense, expected)


def test_the_interpreter_ends_with_work_in_hand():
    code = (
        "import time\nfrom ecom_rag.models.runtimes.workers import Workers\nworkers = Workers(2)\n"
        "[workers.submit(lambda: time.sleep(0.1)) for _ in range(4)]\nprint('done')\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout) == (0, "done\n"), found.stderr


def test_no_more_work_at_a_time_than_there_are_threads():
    workers, running, most = Workers(2), [], []

    def work(number):
        running.append(number)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(number)
        return number

    futures = [workers.submit(lambda n=n: work(n)) for n in range(8)]
    assert [future.result() for future in futures] == list(range(8)) and max(most) <= 2
