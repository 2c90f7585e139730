"""A bank in Milvus beside the same bank on disk, with many real rows: is every answer the same?

The server is started as the tests start theirs: ``PYTHONPATH=tests python benchmarks/milvus_bank.py --server Lite``, or
``Standalone``, where the package `milvus` is installed. Texts are those of shops; dense vectors are embeddings of shop
queries, of their own text where it is one of them and near copies otherwise; learned weights are of hashed words. The
last part asks random filters over random metadata, and SQLite the same.
"""

import contextlib
import random
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.sparse import csr_matrix

from common import arguments, heading, listings, texts
from ecom_rag import Recall
from ecom_rag.filters.milvus import conditions, facts
from ecom_rag.filters.tree import matches
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.pipeline import Pipeline
from ecom_rag.retrieval.routes import Queries
from ecom_rag.seeds.address import Address
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from ecom_rag.seeds.migrating import migrate
from ecom_rag.seeds.milvus.client import Client
from ecom_rag.seeds.opening import open_remote
from helpers import milvus_server
from helpers.random_filters import KEYS, by_sql, tree, value
from topk import embedded, near

TERMS = 30_000  # of the learned weights
TOGETHER = 50  # queries in one question: Milvus Lite needs seconds for each over many rows
FILTER = 'label = "class 3" or id < 20000'


class Encoder:
    """Vectors of texts that were encoded before, and of others vectors near those."""

    fingerprint = "milvus-bank-cls"
    checkpoint = SimpleNamespace(folder=Path("nowhere"), pooling="cls")

    def __init__(self, vectors: np.ndarray, known: list[str]) -> None:
        self.settings = {"max_length": 512, "query_instruction": "", "passage_instruction": ""}
        self._vectors, self._places = vectors, {text: place for place, text in enumerate(known)}

    def check_outputs(self, outputs) -> None:
        """Both that banks in Milvus have."""
        assert set(outputs) <= {"dense", "sparse"}

    def encode(self, texts, *, side="passage", outputs=("dense", "sparse"), progress=None) -> Embeddings:
        """Vectors and weights that depend on the text alone."""
        dense = np.array([self._vector(text) for text in texts], np.float32)
        words = [sorted({zlib.crc32(text[at : at + 2].encode()) % TERMS for at in range(len(text))}) for text in texts]
        offsets = np.cumsum([0, *map(len, words)])
        terms = np.array([term for own in words for term in own], np.int32)
        weights = (terms * 7919 % 997 / 997 + 0.1).astype(np.float32)
        return Embeddings(dense, csr_matrix((weights, terms, offsets), shape=(len(texts), TERMS)))

    def _vector(self, text: str) -> np.ndarray:
        place = self._places.get(text)
        if place is not None:
            return self._vectors[place]
        origin = zlib.crc32(text.encode())
        return near(np.random.default_rng(origin), self._vectors[origin % len(self._vectors)][None], 0.27)[0]


def main() -> None:
    options = arguments(
        __doc__,
        server={"default": "Lite", "choices": ["Lite", "Standalone"]},
        records={"type": int, "default": 200_000},
        queries={"type": int, "default": 300},
        filters={"type": int, "default": 5000},
        seed={"type": int, "default": 1, "help": "of the random filters"},
    )
    heading(f"Milvus {options.server} beside a bank on disk, {options.records:,} rows")
    server = getattr(milvus_server, options.server)()
    try:
        if options.records:
            answers(server, options)
        random_filters(server, options.filters, options.seed)
    finally:
        server.remove()


def answers(server, options) -> None:
    """The same bank on disk and in the server, and all their answers compared."""
    vectors = embedded("starter", 100_000, options)
    encoder = Encoder(vectors, texts(options.data, "taobao_queries_zh", len(vectors)))
    records = listings(options.data, options.records)
    path, url = Path(options.work) / f"milvus-bank-{server.routes[0]}-{options.records}", server.url("bank")
    if not path.exists():
        build(path, records, BankSettings(routes=server.routes), encoder=encoder)
    began = time.monotonic()
    migrate(str(path), url)
    print(f"copied in {time.monotonic() - began:.0f} s", flush=True)
    draw = random.Random(0)
    asked = [draw.choice(records)["text"] for _ in range(options.queries)]
    asked = [text if number % 2 else text[: len(text) // 2 + 1] for number, text in enumerate(asked)]
    parts = [asked[at : at + TOGETHER] for at in range(0, len(asked), TOGETHER)]
    queries = [Queries(part, encoder.encode(part)) for part in parts]
    with SeedBank.open(path, encoder=encoder) as disk, open_remote(url, encoder=encoder) as there:
        print("| route | k | filter | queries | equal | s on disk | s in Milvus |\n|---|---|---|---|---|---|---|")
        for route in server.routes:
            for k, filter in ((10, None), (100, None), (100, FILTER)):
                compare(disk, there, route, queries, k, filter)
        fused(disk, there, parts, server.routes, encoder)


def compare(disk, there, route: str, queries: list[Queries], k: int, filter: str | None) -> None:
    """One line: how many queries have the same rows and the same scores, to the last bit."""
    found, seconds = [], []
    for bank in (disk, there):
        began = time.monotonic()
        with bank.view() as view:
            parts = [view.search(route, some, k, where=filter) for some in queries]
        seconds.append(time.monotonic() - began)
        found.append([np.concatenate([getattr(part, what) for part in parts]) for what in ("rows", "scores")])
    same = np.logical_and(*((a == b).all(axis=1) for a, b in zip(*found, strict=True)))
    cells = (route, k, filter or "", len(same), int(same.sum()), *(f"{one:.1f}" for one in seconds))
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def fused(disk, there, parts: list[list[str]], routes, encoder: Encoder) -> None:
    """The results of whole recalls."""
    for wanted in (Recall(routes=routes), Recall(routes=routes, fusion="rrf", filter=FILTER)):
        ours, theirs = (
            [one for part in parts for one in made.recall([{"text": text} for text in part])]
            for made in (Pipeline(bank, wanted, encoder=encoder) for bank in (disk, there))
        )
        same = sum(one == other for one, other in zip(ours, theirs, strict=True))
        print(
            f"recall by {'+'.join(routes)}, {wanted.fusion or 'auto'}: {same} of {len(ours)} results are equal",
            flush=True,
        )


def random_filters(server, count: int, seed: int) -> None:
    """How many of so many filters, 50 at a time over 40 documents, find what their definition and SQLite find."""
    chance, same, told = random.Random(seed), 0, 0
    fields = [("row", "INT64", {}), ("filter", "JSON", {}), ("none", "FLOAT_VECTOR", {"dim": 2})]
    with contextlib.closing(Client(Address.of(server.url("filters")))) as client:
        client.create("filters", fields, {"none": "FLAT"})
        for first in range(0, count, 50):
            documents = [{chance.choice(KEYS): value(chance) for _ in range(chance.randrange(6))} for _ in range(40)]
            rows = [{"row": first + n, "filter": facts(one), "none": [0, 0]} for n, one in enumerate(documents)]
            client.insert("filters", rows)
            for one in (tree(chance) for _ in range(min(50, count - first))):
                where = f"row >= {first} and row < {first + 40} and {conditions(one, field='filter')}"
                found = sorted(hit["row"] - first for hit in client.query("filters", where, ["row"]))
                expected = [n for n, metadata in enumerate(documents) if matches(one, metadata)]
                told += 0 < len(expected) < 40
                same += found == expected == by_sql(one, documents)
        client.drop("filters")
    print(f"filters: {same} of {count} find what SQLite finds; {told} of them tell documents apart", flush=True)


if __name__ == "__main__":
    main()
