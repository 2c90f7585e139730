"""Training data and start of the starter reranker; see ``starter_reranker.sh``, which calls it with DATA and WORK."""

import gzip
import json
import random
import sys
from pathlib import Path

from ecom_rag import records
from ecom_rag.models.checkpoints.locate import locate
from ecom_rag.training.shrinking import shrink

HARD, RANDOM = 5, 2  # negatives of a query
UNRELATED = -2.0  # the score of a random text; grades go from 0
LAYERS, PIECES = (0, 3, 7, 11), 30_000


def main(data: Path, work: Path) -> None:
    """Write ``rr_train_*.jsonl`` and the folder ``rr_shrunk``."""
    chosen = random.Random(7)
    homedepot = [_some(row, chosen) for row in _read(work / "rr_homedepot.jsonl")]
    texts = _write(work / "rr_train_homedepot.jsonl", homedepot, chosen)
    for name, most in (("shopee", 9000), ("sample", None)):
        rows = _read(work / f"rr_{name}.jsonl")
        chosen.shuffle(rows)
        for row in rows:
            row["pos_scores"], row["neg"] = [5.0] * len(row["pos"]), row["neg"][:HARD]
            row["neg_scores"] = [1.0] * len(row["neg"])
        texts |= _write(work / f"rr_train_{name}.jsonl", rows[:most], chosen)
    texts |= _write(work / "rr_train_zh.jsonl", _chinese(work / "rr_recalled_zh.jsonl", chosen), chosen)
    everything = sorted(texts)
    for name in ("taobao_queries_zh", "taobao_titles_zh"):
        for path in sorted((data / name).glob("*.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                everything += [json.loads(line)["text"] for line in lines]
    shrink(locate("starter"), work / "rr_shrunk", everything, layers=LAYERS, vocabulary=PIECES)


def _read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _some(row: dict, chosen: random.Random) -> dict:
    """With a few of the hard negatives."""
    places = chosen.sample(range(len(row["neg"])), min(HARD, len(row["neg"])))
    return row | {name: [row[name][place] for place in places] for name in ("neg", "neg_scores")}


def _chinese(path: Path, chosen: random.Random) -> list[dict]:
    """What both routes put first, and some of the later results, each with its fused score on the scale of grades."""
    found = []
    for result in _read(path):
        sims, seeds = result["topk_sim"], result["topk_seed"]
        if not sims or sims[0] < 0.6:
            continue
        later = sorted(chosen.sample(range(3, len(seeds)), min(HARD + 1, max(0, len(seeds) - 3))))
        row = {"query": result["text"], "pos": seeds[:1], "pos_scores": [5 * sims[0]]}
        found.append(row | {"neg": [seeds[n] for n in later], "neg_scores": [5 * sims[n] for n in later]})
    return found


def _write(path: Path, rows: list[dict], chosen: random.Random) -> set[str]:
    """Add random negatives and write; returns all texts."""
    pool = sorted({text for row in rows for text in row["pos"] + row["neg"]})
    with path.open("wb") as output:
        for row in rows:
            known = {row["query"], *row["pos"], *row["neg"]}
            drawn = [text for text in chosen.sample(pool, RANDOM + 4) if text not in known][:RANDOM]
            row["neg"], row["neg_scores"] = row["neg"] + drawn, row["neg_scores"] + [UNRELATED] * len(drawn)
            output.write(records.dumps(row))
    return {text for row in rows for text in [row["query"], *row["pos"], *row["neg"]]}


main(Path(sys.argv[1]), Path(sys.argv[2]))
