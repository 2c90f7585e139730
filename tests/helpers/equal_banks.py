"""Two banks, on disk and in PostgreSQL, that ought to be equal."""

import numpy as np
from scipy.sparse import csr_matrix

from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.routes import Queries
from helpers.small_banks import Hashing

ROUTES = ("bm25", "dense", "sparse", "variant")
QUERIES = ["leather wallet", "销量第一 茶", "watch 3", "l3ather w.a.l.l.e.t", "销.量.弟一", "薇信", "zzz", ""]
TERMS = 40


class Encoder(Hashing):
    """Dense vectors and term weights that depend on the text alone."""

    def check_outputs(self, outputs):
        assert set(outputs) <= {"dense", "sparse"}

    def encode(self, texts, *, side="passage", outputs=("dense", "sparse"), progress=None):
        weights = np.zeros((len(texts), TERMS), np.float32)
        for row, text in zip(weights, texts, strict=True):
            chance = np.random.default_rng([1, *text.encode()])
            row[chance.integers(0, TERMS, 5)] = chance.random(5)
        return Embeddings(Hashing().encode(texts).dense, csr_matrix(weights))


def asked(texts=QUERIES):
    return Queries(texts, Encoder().encode(texts))


def assert_equal(disk, server, *, k=5, filter=None, own=False, queries=QUERIES):
    """All that a search and a reader can ask gives the same."""
    assert len(disk) == len(server) and list(disk.documents()) == list(server.documents())
    assert disk.filter_notes(filter) == server.filter_notes(filter)
    with disk.view() as ours, server.view() as theirs:
        if not len(disk):
            return
        records = [{"text": text, "metadata": {}} for text in queries]
        rows = [view.own_rows(records, "id") if own else None for view in (ours, theirs)]
        for route in disk.routes:
            a, b = (
                view.search(route, asked(queries), k, where=filter, own=mine)
                for view, mine in zip((ours, theirs), rows, strict=True)
            )
            np.testing.assert_array_equal(a.scores, b.scores, err_msg=route)
            for one, other in zip(a.rows.tolist(), b.rows.tolist(), strict=True):
                found = [row for row in one if row >= 0], [row for row in other if row >= 0]
                assert ours.records(found[0]) == theirs.records(found[1]), route
