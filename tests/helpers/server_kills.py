"""A server is killed again and again under a writer, and what it holds afterwards."""

import random
import subprocess
import sys
import time

import numpy as np

from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.retrieval.routes import Queries
from ecom_rag.seeds.opening import create, open_remote
from helpers import changes
from helpers.small_banks import Hashing


def assert_holds(bank, documents):
    """The bank has exactly these documents, and finds what indexes of them find."""
    expected = list(documents.values())
    assert list(bank.documents()) == expected and len(bank) == len(expected)
    vectors = changes.vectors(expected)
    queries = Queries(["common step 3"], Embeddings(vectors[:1]))
    with bank.view() as view:
        for route, fresh, form in (
            ("bm25", BM25Index([record["text"] for record in expected]), queries.texts),
            ("dense", DenseIndex(vectors), queries.embeddings.dense),
        ):
            ours, theirs = view.search(route, queries, changes.IDS), fresh.search(form, changes.IDS)
            np.testing.assert_array_equal(ours.scores, theirs.scores)
            wanted = [expected[row] for row in theirs.rows[0].tolist() if row >= 0]
            assert view.records([row for row in ours.rows[0].tolist() if row >= 0]) == wanted


def kill_rounds(server, rounds, *, restarted=lambda bank: None):
    """Kill the server at random moments; returns how many changes were made in all."""
    url = server.url("crashes")
    create(url, encoder=Hashing()).close()
    state, number, chance = {}, 0, random.Random(rounds)
    for _ in range(rounds):
        writer = subprocess.Popen(
            [sys.executable, changes.__file__, url, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        acknowledged = [int(writer.stdout.readline()) for _ in range(chance.randrange(1, 60))]
        time.sleep(chance.random() * 0.01)
        server.kill()
        acknowledged += map(int, writer.stdout.read().split())  # not by communicate, which passes over what is buffered
        why = writer.stderr.read()
        writer.wait()
        assert "BankError" in why and "the server says" in why, why
        assert acknowledged == list(range(number, acknowledged[-1] + 1))
        while number <= acknowledged[-1]:
            state = changes.apply(state, number)
            number += 1
        server.start()
        with open_remote(url) as bank:
            restarted(bank)
            after = changes.apply(state, number)
            if list(bank.documents()) == list(after.values()):  # made, and killed before it could say so
                state, number = after, number + 1
            assert_holds(bank, state)
    return number
