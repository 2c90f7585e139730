"""Evasive spellings of 1,000 real Chinese texts: which route finds the clean text again, by kind."""

import random
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import nDCG

from common import arguments, heading
from lexical import beir, lines

TEXTS, DEPTH = 1000, 100
WEIGHTS = {"bm25": 1.0, "variant": 1.0}


def main() -> None:
    options = arguments(__doc__, strengths={"default": "light,middle,heavy"})
    heading("Evasive spellings")
    from ecom_rag.evaluation import evasion

    held_out = {
        "lookalikes": unknown_lookalikes(evasion.builtin("lookalike")),
        "splits": unknown_splits(evasion.builtin("split")),
    }
    for name, corpus in (("titles and messages", chinese(options.data)), ("short queries", short(options.data))):
        print(f"**{name}**", end=": ")
        one_corpus(options, corpus, held_out)
    clean_queries(options)


def one_corpus(options, corpus: list[str], held_out: dict) -> None:
    from ecom_rag.evaluation import evasion
    from ecom_rag.retrieval.bm25 import BM25Index
    from ecom_rag.retrieval.variant import VariantIndex

    chosen = random.Random(0).sample(range(len(corpus)), TEXTS)
    clean = [{"text": corpus[row], "metadata": {"id": row}} for row in chosen]
    routes = {"bm25": BM25Index(corpus), "variant": VariantIndex(corpus)}
    print(f"{len(corpus):,} clean texts; the queries are variants of {TEXTS} of them. Success@10, %.\n")
    for strength in options.strengths.split(","):
        print(f"| {strength} | texts | changed % | bm25 | variant | bm25 + variant |\n|---|---|---|---|---|---|")
        for kind in evasion.KINDS:
            table_row(kind, evasion.variants(clean, kinds=[kind], strength=strength), routes)
        for kind in ("lookalike", "split"):
            made = evasion.variants(clean, kinds=[kind], strength=strength, **held_out)
            table_row(f"{kind}, only what the route's tables lack", made, routes)
        table_row(
            "clean",
            [{"text": r["text"], "metadata": {"source_id": r["metadata"]["id"], "changed": 0, "of": 1}} for r in clean],
            routes,
        )
        print()


def table_row(name: str, made: list[dict], routes: dict) -> None:
    if not made:
        print(f"| {name} | 0 | | | | |")
        return
    source = np.array([record["metadata"]["source_id"] for record in made])
    changed = sum(r["metadata"]["changed"] for r in made) / sum(r["metadata"]["of"] for r in made)
    found = search(routes, [record["text"] for record in made])
    success = {route: 100 * (ids[:, :10] == source[:, None]).any(axis=1).mean() for route, ids in found.items()}
    cells = " | ".join(f"{success[route]:.1f}" for route in ("bm25", "variant", "fused"))
    print(f"| {name} | {len(made)} | {100 * changed:.0f} | {cells} |", flush=True)


def search(routes: dict, queries: list[str]) -> dict[str, np.ndarray]:
    from ecom_rag.retrieval.fusion import fuse

    found = {name: index.search(queries, DEPTH) for name, index in routes.items()}
    fused = fuse(found, k=10, method="rrf", weights=WEIGHTS)
    return {**{name: top.rows for name, top in found.items()}, "fused": fused.rows}


def chinese(data: str) -> list[str]:
    """Titles and messages, each text once."""
    found = [line["text"] for line in lines(Path(data) / "taobao_titles_zh" / "titles.jsonl.gz")]
    for part in ("train", "dev"):
        found += [line["text"] for line in lines(Path(data) / "fbs_sms_zh" / f"{part}.jsonl.gz")]
    found = [text for text in found if sum("一" <= character <= "鿿" for character in text) >= 6]
    return list(dict.fromkeys(found))


def short(data: str) -> list[str]:
    """What people type: 6 to 12 characters, mostly Chinese."""
    found = [line["text"] for line in lines(Path(data) / "taobao_queries_zh" / "queries.jsonl.gz")]
    found = [t for t in found if 6 <= len(t) <= 12 and sum("一" <= character <= "鿿" for character in t) >= 5]
    return list(dict.fromkeys(found))


def unknown_lookalikes(table: dict) -> dict:
    """The generator's pairs that the route does not fold, neither by shape nor by sound."""
    from ecom_rag.text.spelling import codes

    pairs = [(one, other) for one, others in table.items() for other in others]
    left, right = codes([one for one, _ in pairs]), codes([other for _, other in pairs])
    same = np.zeros(len(pairs), bool)
    for channel in ("sound", "shape"):
        same |= left[channel].values == right[channel].values
    kept: dict[str, list[str]] = {}
    for (one, other), known in zip(pairs, same, strict=True):
        if not known:
            kept.setdefault(one, []).append(other)
    print(f"Of the generator's {len(pairs):,} look-alike pairs the route folds {100 * same.mean():.0f} %.", end=" ")
    return kept


def unknown_splits(table: dict) -> dict:
    from ecom_rag.text.spelling import codes

    kept = {}
    for one, (halves,) in table.items():
        a, b = codes([one])["shape"].values, codes([halves])["shape"].values
        if len(a) != len(b) or (a != b).any():
            kept[one] = [halves]
    print(f"Of its {len(table)} splits, {100 - 100 * len(kept) / len(table):.0f} %.\n")
    return kept


def clean_queries(options) -> None:
    """What adding the route costs where nothing is evasive."""
    from ecom_rag.retrieval.bm25 import BM25Index
    from ecom_rag.retrieval.variant import VariantIndex

    print(
        "| clean queries | bm25 nDCG@10 | bm25 + variant | loss | queries with a variant result |\n|---|---|---|---|---|"
    )
    for name, split in (("jd_titles_zh", "dev"), ("homedepot", "dev"), ("abt_buy", "test"), ("scifact", "test")):
        rows, documents, queries, qrels = beir(options.data, name, split)
        found = search({"bm25": BM25Index(documents), "variant": VariantIndex(documents)}, list(queries.values()))
        got = {}
        for route in ("bm25", "fused"):
            run = {
                query: {rows[row]: -rank for rank, row in enumerate(ids) if row >= 0}
                for query, ids in zip(queries, found[route], strict=True)
            }
            got[route] = ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]
        share = 100 * (found["variant"][:, 0] >= 0).mean()
        print(
            f"| {name} | {got['bm25']:.4f} | {got['fused']:.4f} | {got['bm25'] - got['fused']:+.4f} | {share:.1f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
