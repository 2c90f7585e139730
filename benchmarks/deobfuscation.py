"""What an encoder finds of disguised texts, as they are written and with ``deobfuscate``; what that changes in clean ones."""

import gzip
import json
from pathlib import Path

import numpy as np

from common import TITLE_SETS, arguments, heading, texts

DISGUISED, SEEDS = 500, 5000
KINDS = ("leet", "symbol", "spacing", "lookalike", "mixed")
CORPORA = {"English titles": "homedepot", "Chinese titles": "taobao_titles_zh", "Chinese queries": "taobao_queries_zh"}
LABELLED = ("fbs_sms_zh", "chinese_harm")


def main() -> None:
    options = arguments(__doc__, model={"default": "starter"}, strengths={"default": "middle,heavy"})
    heading("Deobfuscation")
    from ecom_rag import Encoder

    encoders = [Encoder.from_pretrained(options.model, deobfuscate=read) for read in (False, True)]
    changed_texts(options, encoders)
    print("Share of disguised texts whose clean text the dense route ranks first among 5,000, %.\n")
    print("| texts | kind | strength | as written | read |\n|---|---|---|---|---|")
    for name, corpus in CORPORA.items():
        found_again(options, name, texts(options.data, corpus, SEEDS), encoders)


def changed_texts(options, encoders: list) -> None:
    """Clean texts whose tokens are not the same."""
    print("| clean texts | number | other tokens |\n|---|---|---|")
    for name in (*TITLE_SETS, *LABELLED):
        found = texts(options.data, name, 20_000) if name in TITLE_SETS else messages(options.data, name)
        written, read = (encoder.prepare(found) for encoder in encoders)
        changed = sum(
            not np.array_equal(written.ids[a], read.ids[b]) for a, b in zip(written.rows, read.rows, strict=True)
        )
        print(f"| {name} | {len(found):,} | {changed} ({100 * changed / len(found):.2f} %) |", flush=True)
    print()


def messages(data: str, name: str) -> list[str]:
    with gzip.open(Path(data) / name / "train.jsonl.gz", "rt", encoding="utf-8") as source:
        return [json.loads(line)["text"] for line in source]


def found_again(options, name: str, corpus: list[str], encoders: list) -> None:
    from ecom_rag.evaluation import evasion
    from ecom_rag.retrieval.dense import DenseIndex

    clean = [{"text": text, "metadata": {"id": row}} for row, text in enumerate(corpus[:DISGUISED])]
    indexes = [DenseIndex(encoder.encode(corpus).dense) for encoder in encoders]
    for kind in KINDS:
        for strength in options.strengths.split(","):
            made = evasion.variants(clean, kinds=[kind], strength=strength)
            if not made:
                continue
            source = np.array([record["metadata"]["source_id"] for record in made])
            cells = []
            for encoder, index in zip(encoders, indexes, strict=True):
                queries = encoder.encode([record["text"] for record in made], side="query").dense
                rows = index.search(queries, 1).rows
                cells.append(f"{100 * (rows[:, 0] == source).mean():.1f}")
            print(f"| {name} | {kind} | {strength} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
