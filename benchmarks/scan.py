"""Scan: which share of the pairs of recall a reverse search finds, and what it costs per new seed.

50,000 shop queries are the stored listings, 5,000 others the bank, 200 more the new seeds. A pair is a listing with a new
seed among its ten results, by recall of every listing against the bank with the new seeds in it.
"""

import tempfile
import time

import numpy as np

from common import arguments, heading, texts

ROUTES = ("bm25", "dense")


def main() -> None:
    """Print shares and times by depth."""
    from ecom_rag import Encoder, Pipeline, Recall, SeedBank
    from ecom_rag.seeds.bank import BankSettings, build

    args = arguments(__doc__, listings={"type": int, "default": 50_000}, new={"type": int, "default": 200})
    heading("Scan")
    encoder = Encoder.from_pretrained("starter")
    found = list(dict.fromkeys(texts(args.data, "taobao_queries_zh", 100_000)))[: args.listings + 5000 + args.new]
    records = [{"text": text, "metadata": {"id": number}} for number, text in enumerate(found)]
    stored, judged = records[: args.listings], records[args.listings :]
    new = judged[-args.new :]
    names = {record["metadata"]["id"] for record in new}
    with tempfile.TemporaryDirectory() as folder:
        for name, items in (("stored", stored), ("bank", judged)):
            build(f"{folder}/{name}", items, BankSettings(routes=ROUTES), encoder=encoder)
        with (
            SeedBank.open(f"{folder}/stored", encoder=encoder) as listings,
            SeedBank.open(f"{folder}/bank", encoder=encoder) as bank,
        ):
            forward = Pipeline(bank, Recall(routes=ROUTES))
            pairs = set()
            started = time.perf_counter()
            for start in range(0, len(stored), 4096):
                for one in forward.recall(stored[start : start + 4096]):
                    mine = (metadata["id"] for metadata in one["topk_metadata"])
                    pairs |= {(one["metadata"]["id"], name) for name in mine if name in names}
            print(f"recall of all listings: {time.perf_counter() - started:.0f} s, {len(pairs)} pairs\n")
            print("| depth | pairs found | candidates per seed | ms per seed |\n|---|---|---|---|")
            for depth in (20, 100, 500, 2000, 5000):
                reverse = Pipeline(listings, Recall(routes=ROUTES, depth=depth, top_k=depth, fusion="rrf"))
                times, covered, offered = [], 0, 0
                for start in range(0, len(new), 16):
                    part = new[start : start + 16]
                    began = time.perf_counter()
                    asked = reverse.asked([one["text"] for one in part])
                    with reverse.view() as view:
                        rows = np.concatenate([one.rows for one in reverse.search(view, asked).values()], axis=1)
                    times.append((time.perf_counter() - began) / len(part) * 1000)
                    for one, own in zip(part, rows, strict=True):
                        reached = {int(row) for row in own[own >= 0]}  # rows are numbers of listings, and so are ids
                        offered += len(reached)
                        covered += sum((row, one["metadata"]["id"]) in pairs for row in reached)
                print(
                    f"| {depth} | {covered / max(len(pairs), 1):.4f} | {offered / len(new):.0f} | {np.median(times):.1f} |"
                )


if __name__ == "__main__":
    main()
