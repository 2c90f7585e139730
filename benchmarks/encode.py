"""Encoding speed, dense: ours in bf16 and fp32 against FlagEmbedding and sentence-transformers, same texts, same weights."""

import numpy as np

from common import TEXT_SETS, arguments, checkpoint, heading, in_turn, quiet, texts

TOKENS = {"starter": 8_000, "bge-small-zh": 8_000, "bge-base": 1_600, "bge-m3": 700}
BATCH = 32  # FlagEmbedding runs its first batch twice; with its default of 256 that would be most of these small inputs


def main() -> None:
    options = arguments(__doc__, shapes={"nargs": "+", "default": list(TOKENS)})
    quiet()
    heading("Encode")
    from FlagEmbedding import BGEM3FlagModel, FlagModel
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    from ecom_rag import Encoder

    print("| shape | texts | tokens/text | FlagEmbedding texts/s | sentence-transformers | ours fp32 | ours bf16 "
          "| bf16 vs Flag | bf16 vs ST | fp32 vs Flag | bf16 min cosine |\n|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for shape in options.shapes:
        folder = str(checkpoint(shape, options.data, options.work))
        pooling = "mean" if shape == "starter" else "cls"
        ours = {p: Encoder.from_pretrained(folder, precision=p, max_length=512) for p in ("bf16", "fp32")}
        if shape == "bge-m3":
            flag = BGEM3FlagModel(folder, use_fp16=False, devices="cpu", batch_size=BATCH)
        else:
            flag = FlagModel(folder, use_fp16=False, devices="cpu", pooling_method=pooling, batch_size=BATCH)
        transformer = Transformer(folder, max_seq_length=512)
        modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling), Normalize()]
        sentence = SentenceTransformer(modules=modules, device="cpu")
        for name in TEXT_SETS:
            candidates = texts(options.data, name, 20_000)
            lengths = ours["fp32"]._tokenizer.ids(candidates[:300], 510).lengths + 2
            count = int(TOKENS[shape] / lengths.mean())
            sample = candidates[: max(6, count)]

            def by_flag(sample=sample, flag=flag):
                found = flag.encode(sample, max_length=512)
                return found["dense_vecs"] if isinstance(found, dict) else found

            seconds = in_turn(
                {
                    "flag": by_flag,
                    "sentence": lambda sample=sample: sentence.encode(sample, batch_size=BATCH, convert_to_numpy=True),
                    "fp32": lambda sample=sample: ours["fp32"].encode(sample),
                    "bf16": lambda sample=sample: ours["bf16"].encode(sample),
                },
                options.rounds,
            )
            cosine = np.einsum("nd,nd->n", by_flag(), ours["bf16"].encode(sample).dense).min()
            rates = {key: len(sample) / value for key, value in seconds.items()}
            print(f"| {shape} | {name} ({len(sample)}) | {lengths.mean():.0f} | {rates['flag']:.0f} | {rates['sentence']:.0f} "
                  f"| {rates['fp32']:.0f} | {rates['bf16']:.0f} | **{rates['bf16'] / rates['flag']:.1f}x** "
                  f"| {rates['bf16'] / rates['sentence']:.1f}x | {rates['fp32'] / rates['flag']:.1f}x | {cosine:.5f} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
