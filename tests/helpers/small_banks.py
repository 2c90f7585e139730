"""Small banks without a network, and what it means that one equals a file."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import matches
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval.bm25 import BM25Index
from ecom_rag.retrieval.dense import DenseIndex
from ecom_rag.seeds.bank import SeedBank, build

WORDS = ["手机壳", "leather", "wallet", "全国", "销量第一", "微信", "replica", "watch", "茶", "best"]


class Hashing:
    """Vectors that depend on the text alone, without a network."""

    fingerprint = "hashing-cls"
    checkpoint = SimpleNamespace(folder=Path("nowhere"), pooling="cls")

    def __init__(self, fingerprint="hashing-cls", max_length=512):
        self.fingerprint = fingerprint
        self.settings = {"max_length": max_length, "query_instruction": "", "passage_instruction": ""}

    def check_outputs(self, outputs):
        assert set(outputs) <= {"dense"}

    def encode(self, texts, *, side="passage", outputs=("dense",), progress=None):
        rows = [np.random.default_rng(list(text.encode())).standard_normal(8) for text in texts]
        return Embeddings(dense=np.array(rows, np.float32))


def seed(number, **metadata):
    text = f"{WORDS[number % 10]} {WORDS[number * 7 % 9]} {number}"
    return {"text": text, "metadata": {"id": f"s{number}", "label": "xyz"[number % 3], **metadata}}


def built(path, records, settings=None, *, encoder=None, model=None):
    """A bank of records, open."""
    build(path, records, settings, encoder=encoder, model=model)
    return SeedBank.open(path, encoder=encoder)


def texts_found(view, found):
    return [[view.record(row)["text"] for row in ids if row >= 0] for ids in found.rows.tolist()]


def assert_equals_a_file(bank, expected, queries=("leather wallet", "茶 3", "全国 销量第一 watch"), filter=None):
    """The routes over the bank and over a list of the same documents: the same scores, the same order."""
    encoder = Hashing()
    dense = encoder.encode([record["text"] for record in expected]).dense.reshape(-1, 8)
    asked = encoder.encode(queries).dense
    fresh = {"bm25": (BM25Index([r["text"] for r in expected]), queries), "dense": (DenseIndex(dense), asked)}
    with bank.view() as view:
        assert view.live == len(expected)
        allowed = view.rows(filter)
        mask = None if filter is None else np.array([matches(parse(filter), r["metadata"]) for r in expected], bool)
        for route, (index, form) in fresh.items():
            theirs = index.search(form, 5, allowed=mask)
            ours = view.index(route).search(form, 5, allowed=allowed)
            np.testing.assert_array_equal(ours.scores, theirs.scores)
            wanted = [[expected[row] for row in ids if row >= 0] for ids in theirs.rows.tolist()]
            assert [view.records([row for row in ids if row >= 0]) for ids in ours.rows.tolist()] == wanted
