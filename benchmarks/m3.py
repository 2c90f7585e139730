"""bge-m3: the three outputs in one pass, and scores of pairs, against BGEM3FlagModel at the true shape."""

import numpy as np

from common import arguments, checkpoint, heading, in_turn, quiet, texts


def main() -> None:
    options = arguments(__doc__)
    quiet()
    heading("bge-m3: three outputs and pair scores")
    from FlagEmbedding import BGEM3FlagModel

    from ecom_rag import Encoder
    from ecom_rag.retrieval import pair_scores

    folder = str(checkpoint("bge-m3", options.data, options.work))
    flag = BGEM3FlagModel(folder, use_fp16=False, devices="cpu", batch_size=32)
    ours = Encoder.from_pretrained(folder)
    outputs = ("dense", "sparse", "multivector")
    print("| task | input | FlagEmbedding s | ours s | ratio |\n|---|---|---|---|---|")
    for name, count in (("taobao_queries_zh", 192), ("homedepot", 96), ("scifact", 8)):
        sample = texts(options.data, name, count)
        seconds = in_turn(
            {
                "flag": lambda s=sample: flag.encode(
                    s, return_dense=True, return_sparse=True, return_colbert_vecs=True
                ),
                "ours": lambda s=sample: ours.encode(s, outputs=outputs),
            },
            options.rounds,
        )
        print(
            f"| three outputs | {name} ({count}) | {seconds['flag']:.2f} | {seconds['ours']:.2f} "
            f"| **{seconds['flag'] / seconds['ours']:.1f}x** |",
            flush=True,
        )
    queries, seeds = texts(options.data, "taobao_queries_zh", 30), texts(options.data, "taobao_titles_zh", 50)
    rng = np.random.default_rng(0)
    chosen = np.array([[q, s] for q in range(30) for s in rng.choice(50, 10, replace=False)])
    pairs = [(queries[q], seeds[s]) for q, s in chosen]

    def score():
        return pair_scores(
            ours.encode(queries, side="query", outputs=outputs), ours.encode(seeds, outputs=outputs), chosen
        )

    seconds = in_turn({"flag": lambda: flag.compute_score(pairs), "ours": score}, options.rounds)
    theirs = np.array(flag.compute_score(pairs)["colbert+sparse+dense"])
    print(
        f"| pair scores | 300 pairs of 30 queries and 50 titles | {seconds['flag']:.2f} | {seconds['ours']:.2f} "
        f"| **{seconds['flag'] / seconds['ours']:.1f}x** |"
    )
    print(
        f"\nLargest difference of a hybrid pair score (ours {ours.placement.precision}): {np.abs(score()['hybrid'] - theirs).max():.5f}"
    )


if __name__ == "__main__":
    main()
