"""A model's numbers depend on its input alone: not on how many threads there are, nor on what else has run."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import numpy as np, torch
from ecom_rag import Encoder
from ecom_rag.pipeline import score
encoder = Encoder.from_pretrained(sys.argv[1], runtime="torch", precision="fp32")
records = [{"text": f"leather wallet {n} 茶 " * (1 + n % 5), "metadata": {}} for n in range(40)]
digest = lambda: encoder.encode([r["text"] for r in records]).dense.tobytes().hex()
before, threads = digest(), torch.get_num_threads()
score(records, records, encoder, top_k=3)  # compiled loops, which set threads for themselves
assert digest() == before
assert torch.get_num_threads() == threads
print(before)
"""


@pytest.mark.parametrize("folder", ["bge_folder", "m3_folder"])
def test_threads_and_searches_change_no_bit(folder, request):
    found = set()
    for threads in ("1", "2", None):
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = threads
        command = [sys.executable, "-c", SCRIPT, str(request.getfixturevalue(folder))]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        found.add(done.stdout.splitlines()[-1])
    assert len(found) == 1
