"""A writer that changes a bank for ever, one known step after another, and says when each is acknowledged."""

import random
import sys

import numpy as np

IDS = 30


def step(number):
    """Step ``number``: records to write, or ids to delete."""
    chance = random.Random(number)
    if number % 3 == 2:
        return "delete", [f"s{chance.randrange(IDS)}" for _ in range(2)]
    ids = sorted({chance.randrange(IDS) for _ in range(4)})
    return "upsert", [{"text": f"common seed {id_} step {number}", "metadata": {"id": f"s{id_}"}} for id_ in ids]


def apply(state, number):
    """The documents by id after a step, in the order they were written."""
    kind, what = step(number)
    gone = what if kind == "delete" else [record["metadata"]["id"] for record in what]
    state = {id_: record for id_, record in state.items() if id_ not in gone}
    return state | ({} if kind == "delete" else {record["metadata"]["id"]: record for record in what})


def vectors(records):
    rows = [np.random.default_rng(list(r["text"].encode())).standard_normal(8) for r in records]
    return np.array(rows, np.float32)


def main(path, first):
    from ecom_rag.models.embeddings import Embeddings
    from ecom_rag.seeds.bank import SeedBank
    from ecom_rag.seeds.opening import open_remote

    on_disk = "://" not in path
    bank = SeedBank.open(path, maintain=False) if on_disk else open_remote(path)
    number = first
    while True:
        kind, what = step(number)
        if kind == "delete":
            bank.delete(what)
        else:
            bank.upsert(what, embeddings=Embeddings(dense=vectors(what)), fingerprint="hashing-cls")
        if number % 50 == 49:
            bank.compact() if on_disk else bank.refresh()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        number += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
