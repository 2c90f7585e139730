"""Relevance of pairs: ours, by default and in int8, against FlagReranker at the bge-reranker-v2-m3 shape."""

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
    ours = {name: CrossEncoder.from_pretrained(folder, precision=name) for name in ("auto", "int8")}
    auto = ours["auto"].placement.precision
    print(
        f"| pairs | FlagReranker pairs/s | ours {auto} (auto) | ours int8 | {auto} vs Flag | int8 vs Flag "
        f"| {auto} largest difference | int8 largest difference |\n|---|---|---|---|---|---|---|---|"
    )
    for name, queries, candidates in (("taobao_titles_zh", 8, 10), ("homedepot", 8, 8), ("scifact", 2, 4)):
        found = texts(options.data, name, queries + queries * candidates)
        pairs = [
            (found[q][:60], found[queries + q * candidates + c]) for q in range(queries) for c in range(candidates)
        ]
        competitors = {"flag": lambda p=pairs: flag.compute_score(p)}
        for precision, encoder in ours.items():
            competitors[precision] = lambda p=pairs, encoder=encoder: encoder.score(p)
        seconds = in_turn(competitors, options.rounds)
        reference = np.array(flag.compute_score(pairs))
        rates = [f"{len(pairs) / value:.1f}" for value in seconds.values()]
        ratios = [f"**{seconds['flag'] / seconds[precision]:.1f}x**" for precision in ours]
        differences = [f"{np.abs(reference - encoder.score(pairs)).max():.4f}" for encoder in ours.values()]
        print(f"| {name} ({len(pairs)}) | {' | '.join([*rates, *ratios, *differences])} |", flush=True)


if __name__ == "__main__":
    main()
