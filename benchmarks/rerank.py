"""Relevance of pairs: ours in bf16 against FlagReranker at the bge-reranker-v2-m3 shape."""

import numpy as np

from common import arguments, checkpoint, heading, in_turn, quiet, texts


def main() -> None:
    options = arguments(__doc__)
    quiet()
    heading("Rerank")
    from FlagEmbedding import FlagReranker

    from ecom_rag import CrossEncoder

    folder = str(checkpoint("bge-reranker-v2-m3", options.data, options.work))
    flag = FlagReranker(folder, use_fp16=False, devices="cpu", batch_size=32)
    ours = CrossEncoder.from_pretrained(folder)
    print("| pairs | FlagReranker pairs/s | ours pairs/s | ratio | largest difference |\n|---|---|---|---|---|")
    for name, queries, candidates in (("taobao_titles_zh", 8, 10), ("homedepot", 8, 8), ("scifact", 2, 4)):
        found = texts(options.data, name, queries + queries * candidates)
        pairs = [
            (found[q][:60], found[queries + q * candidates + c]) for q in range(queries) for c in range(candidates)
        ]
        seconds = in_turn(
            {"flag": lambda p=pairs: flag.compute_score(p), "ours": lambda p=pairs: ours.score(p)}, options.rounds
        )
        difference = np.abs(np.array(flag.compute_score(pairs)) - ours.score(pairs)).max()
        print(f"| {name} ({len(pairs)}) | {len(pairs) / seconds['flag']:.1f} | {len(pairs) / seconds['ours']:.1f} "
              f"| **{seconds['flag'] / seconds['ours']:.1f}x** | {difference:.4f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
