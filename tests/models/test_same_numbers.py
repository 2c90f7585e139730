"""A model's numbers depend on its input alone: not on how many threads there are, nor on what else has run."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import hashlib, sys
import torch
from ecom_rag import Encoder
from ecom_rag.pipeline import Pipeline, Recall, Seeds, score
encoder = Encoder.from_pretrained(sys.argv[1], runtime="torch", precision="fp32")
records = [{"text": f"leather wallet {n} 茶 " * (1 + n % 5), "metadata": {}} for n in range(40)]
digest = lambda: encoder.encode([r["text"] for r in records]).dense.tobytes().hex()
before, threads = digest(), torch.get_num_threads()
score(records, records, encoder, top_k=3)  # compiled loops, which set threads for themselves
routes = ("bm25", "variant", "dense", *sys.argv[2:])
recall = Pipeline(Seeds(records, routes=routes, encoder=encoder), Recall(routes=routes, top_k=5), encoder=encoder)
found = recall.recall(records)  # the kernels of every route, on their threads
assert digest() == before
assert torch.get_num_threads() == threads
print(before, hashlib.sha256(repr(list(found)).encode()).hexdigest())
"""


@pytest.mark.parametrize(
    ("folder", "more_routes"), [("bge_folder", []), ("m3_folder", ["sparse", "multivector"])], ids=["bge", "m3"]
)
def test_threads_and_searches_change_no_bit(folder, more_routes, request):
    """The tests run with one thread per process; this one alone compares one with two and with all."""
    found = set()
    for threads in ("1", "2", None):
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = threads
        command = [sys.executable, "-c", SCRIPT, str(request.getfixturevalue(folder)), *more_routes]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        found.add(done.stdout.splitlines()[-1])
    assert len(found) == 1
