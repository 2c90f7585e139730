"""What chosen labels are worth: a bank of 500 labels that ``choose`` picked beside banks of 500 and 900 random ones.

A run begins with 100 random texts of fbs_sms_zh's train and grows by 100 texts at a time: the bank so far decides
all other campaigns by the vote of the first ten, ``choose`` picks from these, and their labels join the bank. Every
label counts, the first 100 and those of the audit too. Measured is the macro-F1 of the vote on dev, which no choice saw.
"""

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from common import arguments, heading

FIRST, ROUND, CHOSEN, RANDOM = 100, 100, 500, 900
HOW = {
    "margin x novelty": {},
    "margin x novelty, a fifth of it the audit": {"audit_share": 0.2},
    "margin alone": {"novel": False},
    "novelty alone": {"unsure": False},
}


def main() -> None:
    options = arguments(
        __doc__,
        draws={"type": int, "default": 5},
        routes={"default": "bm25,dense"},
        how={"type": int, "default": len(HOW), "help": "how many of the ways to choose, from the first"},
    )
    heading("Choose")
    train, dev = (read(options.data, split) for split in ("train", "dev"))
    mark_campaigns(train)
    search = Search(tuple(options.routes.split(",")), [*train, *dev])
    count = len({record["campaign"] for record in train})
    print(f"Routes {options.routes}; {len(train):,} texts, {count:,} campaigns in train, {len(dev):,} texts in dev.\n")
    print(
        "| bank | macro-F1 on dev: mean | lowest | highest | above 900 random | common classes: mean | above 900 random |"
    )
    print("|---|---|---|---|---|---|---|")
    runs = range(options.draws)
    line(f"{CHOSEN} random texts", [search.figures(shuffled(train, n)[:CHOSEN], dev) for n in runs])
    line(f"{CHOSEN} random texts, one per campaign", [search.figures(campaigns(train, n)[:CHOSEN], dev) for n in runs])
    line(f"{RANDOM} random texts", [search.figures(shuffled(train, n)[:RANDOM], dev) for n in runs])
    bar = [search.figures(campaigns(train, n)[:RANDOM], dev) for n in runs]
    line(f"{RANDOM} random texts, one per campaign", bar)
    for name, how in list(HOW.items())[: options.how]:
        found = [search.figures(grown(train, n, search, **how), dev) for n in runs]
        line(f"{CHOSEN} chosen: {name}", found, against=bar)


def line(name: str, figures: list[tuple[float, float]], *, against: list[tuple[float, float]] | None = None) -> None:
    cells = []
    for place in (0, 1):
        values = [own[place] for own in figures]
        ends = [f"{min(values):.3f}", f"{max(values):.3f}"] if place == 0 else []
        above = sum(own > other[place] for own, other in zip(values, against or (), strict=against is not None))
        cells += [f"{mean(values):.3f}", *ends, f"{above} of {len(values)}" if against else ""]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def read(data: str, split: str) -> list[dict[str, Any]]:
    with gzip.open(Path(data) / "fbs_sms_zh" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as source:
        return [json.loads(text) for text in source]


def mark_campaigns(records: list[dict[str, Any]]) -> None:
    from ecom_rag.text.near_duplicates import near_duplicates

    groups = near_duplicates([record["text"] for record in records])
    for record, group in zip(records, groups.tolist(), strict=True):
        record["campaign"] = str(group)


def shuffled(records: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    return random.Random(seed).sample(records, len(records))


def campaigns(records: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Texts in random order, of each campaign the first."""
    found: dict[str, dict[str, Any]] = {}
    for record in shuffled(records, seed):
        found.setdefault(record["campaign"], record)
    return list(found.values())


def grown(records, seed: int, search, *, audit_share: float = 0.0, unsure: bool = True, novel: bool = True):
    """A bank of labels that were chosen round by round."""
    from ecom_rag.decision.choose import choose

    bank = campaigns(records, seed)[:FIRST]
    while len(bank) < CHOSEN:
        known = {record["campaign"] for record in bank}
        open_ones = [record for record in records if record["campaign"] not in known]
        results = search.recall(bank, open_ones)
        decided = [decision_of(result, unsure=unsure, novel=novel) for result in results]
        found = choose(decided, count=ROUND, audit_share=audit_share, seed=seed)
        bank += found.records
    return [{key: record[key] for key in ("text", "metadata")} for record in bank]


def decision_of(result: dict[str, Any], *, unsure: bool, novel: bool) -> dict[str, Any]:
    """The vote of the first ten as a decision; a factor of the score that is left out is 1 for all."""
    votes = Counter(found["label"] for found in result["topk_metadata"])
    shares = {label: votes[label] / votes.total() for label in sorted(votes, key=votes.__getitem__, reverse=True)}
    decision = {"action": "review", "campaign": result["campaign"], "probabilities": shares if unsure else {}}
    return {**result, "decision": decision, "topk_seed": result["topk_seed"] if novel else []}


class Search:
    """Recall over banks of some texts; each text is encoded once for all of them."""

    def __init__(self, routes: tuple[str, ...], records: list[dict[str, Any]]) -> None:
        from ecom_rag import Encoder

        self.routes = routes
        self._encoder = Remembering(Encoder.from_pretrained("starter")) if "dense" in routes else None
        if self._encoder is not None:
            self._encoder.encode([record["text"] for record in records], side="query", outputs=("dense",))

    def recall(self, bank: list[dict[str, Any]], queries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Results of the bank's first ten for each query."""
        from ecom_rag import Pipeline, Recall, Seeds

        seeds = Seeds(bank, routes=self.routes, encoder=self._encoder)
        fusion = "weighted" if len(self.routes) > 1 else None
        return Pipeline(seeds, Recall(routes=self.routes, fusion=fusion, top_k=10)).recall(queries)

    def figures(self, bank: list[dict[str, Any]], queries: list[dict[str, Any]]) -> tuple[float, float]:
        """Macro-F1 of the vote of the first ten: over all classes, and over those with ten texts or more."""
        from ecom_rag.evaluation.labels import class_figures, macro_f1, vote

        found = self.recall(bank, queries)
        labels = [record["metadata"]["label"] for record in queries]
        votes = vote(labels, [[seed["label"] for seed in one["topk_metadata"]] for one in found], k=10)
        return macro_f1(votes), mean(one.f1 for one in class_figures(votes) if one.support >= 10)


class Remembering:
    """An encoder that encodes each text once."""

    def __init__(self, encoder) -> None:
        self._encoder = encoder
        self._known: dict[tuple[str, str], np.ndarray] = {}
        self.fingerprint = encoder.fingerprint
        self.check_outputs = encoder.check_outputs

    def encode(self, texts, *, side: str = "passage", outputs=("dense",), progress=None):
        """As ``Encoder.encode``."""
        from ecom_rag import Embeddings

        new = [text for text in dict.fromkeys(texts) if (side, text) not in self._known]
        if new:
            found = self._encoder.encode(new, side=side, outputs=outputs).dense
            self._known |= {(side, text): row for text, row in zip(new, found, strict=True)}
        return Embeddings(dense=np.stack([self._known[side, text] for text in texts]))


if __name__ == "__main__":
    main()
