"""Several processes and sudden death: nothing acknowledged is lost, nothing deleted comes back, states are whole."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.seeds.bank import SeedBank, create
from helpers import changes

pytestmark = pytest.mark.slow


class Encoder:
    fingerprint = "hashing-cls"
    checkpoint = SimpleNamespace(folder=Path("nowhere"), pooling="cls")
    settings = {"max_length": 512, "query_instruction": "", "passage_instruction": ""}  # noqa: RUF012

    def check_outputs(self, outputs):
        pass

    def encode(self, texts, *, side="passage", outputs=("dense",), progress=None):
        return Embeddings(dense=changes.vectors([{"text": text} for text in texts]))


def start(path, first):
    command = [sys.executable, changes.__file__, str(path), str(first)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def assert_holds(bank, documents):
    """The bank has exactly these documents, and its indexes are those of a file of them."""
    expected = list(documents.values())
    assert len(bank) == len(expected)
    assert bank.get([f"s{n}" for n in range(changes.IDS)]) == [documents.get(f"s{n}") for n in range(changes.IDS)]
    vectors = changes.vectors(expected)
    with bank.view() as view:
        for route, queries, fresh in (
            ("bm25", ["common step 3"], BM25Index([r["text"] for r in expected])),
            ("dense", vectors[:2], DenseIndex(vectors)),
        ):
            ours, theirs = view.index(route).search(queries, changes.IDS), fresh.search(queries, changes.IDS)
            np.testing.assert_array_equal(ours.scores, theirs.scores)
            wanted = [[expected[row] for row in ids if row >= 0] for ids in theirs.rows.tolist()]
            assert [view.records([row for row in ids if row >= 0]) for ids in ours.rows.tolist()] == wanted


def kill_rounds(path, rounds):
    """Kill a writer at random moments; returns how many steps it had acknowledged in all."""
    create(path, encoder=Encoder()).close()
    state, number, chance = {}, 0, random.Random(rounds)
    for _ in range(rounds):
        writer = start(path, number)
        wait = chance.randrange(1, 60)
        acknowledged = [int(writer.stdout.readline()) for _ in range(wait)]
        time.sleep(chance.random() * 0.01)
        writer.send_signal(signal.SIGKILL)
        acknowledged += map(int, writer.stdout.read().split())
        writer.wait()
        assert acknowledged == list(range(number, acknowledged[-1] + 1))
        while number <= acknowledged[-1]:
            state = changes.apply(state, number)
            number += 1
        with SeedBank.open(path) as bank:
            found = {record["metadata"]["id"]: record for record in bank.get([f"s{n}" for n in range(30)]) if record}
            after = changes.apply(state, number)
            if found != state and found == after:  # done, and killed before it could say so
                state, number = after, number + 1
            assert_holds(bank, state)
            if chance.random() < 0.3:
                bank.save_indexes()
    return number


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    assert kill_rounds(tmp_path / "bank", 8) > 8


def test_a_reader_beside_a_writing_process_sees_whole_states(tmp_path):
    path = tmp_path / "bank"
    create(path, encoder=Encoder()).close()
    states = [{}]
    for number in range(200):
        states.append(changes.apply(states[-1], number))
    writer = start(path, 0)
    try:
        with SeedBank.open(path) as bank:
            at, seen = 0, set()
            while at < 150:
                acknowledged = int(writer.stdout.readline()) if at < 5 else 0
                with bank.view() as view:
                    found = view.index("bm25").search(["common"], changes.IDS) if view.live else None
                    rows = [] if found is None else [row for row in found.rows[0].tolist() if row >= 0]
                    records = sorted((r for r in view.records(rows)), key=lambda r: r["metadata"]["id"])
                    allowed = view.rows("exists(id)")
                    assert set(rows) <= set(np.flatnonzero(allowed).tolist())
                # One of the states, none older than what was seen or acknowledged before.
                whole = [sorted(state.values(), key=lambda r: r["metadata"]["id"]) for state in states]
                at = next(
                    n for n in range(max(at, acknowledged + 1 if at < 5 else at), len(states)) if whole[n] == records
                )
                seen.add(at)
                if at >= 150:
                    break
            assert len(seen) > 3
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        count = int(sys.argv[1])
        steps = kill_rounds(Path(folder) / "bank", count)
        print(f"{count} rounds of kill -9, {steps} changes acknowledged: none lost, none back, opened every time")
