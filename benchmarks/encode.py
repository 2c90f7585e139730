"""Encoding speed, dense: ours in three precisions against FlagEmbedding and sentence-transformers, same texts, same weights."""

import numpy as np

from common import TEXT_SETS, arguments, checkpoint, heading, in_turn, quiet, texts

TOKENS = {"starter": 8_000, "bge-small-zh": 8_000, "bge-base": 1_600, "bge-m3": 700}
BATCH = 32  # FlagEmbedding runs its first batch twice; with its default of 256 that would be most of these small inputs


def main() -> None:
    options = arguments(
        __doc__,
        shapes={"nargs": "+", "default": list(TOKENS)},
        without={"nargs": "*", "default": [], "help": "e.g. bf16"},
    )
    quiet()
    heading("Encode")
    from FlagEmbedding import BGEM3FlagModel, FlagModel
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    from ecom_rag import Encoder
    from ecom_rag.models.runtimes.cpu import prefers_bf16

    names = [name for name in ("fp32", "bf16", "int8") if name not in options.without]
    auto = "bf16" if prefers_bf16() and "bf16" in names else "fp32"
    columns = ["shape", "texts", "tokens/text", "FlagEmbedding texts/s", "sentence-transformers"]
    columns += [f"ours {name}{' (auto)' if name == auto else ''}" for name in names]
    columns += [f"{name} vs Flag" for name in names] + [f"{auto} vs ST"]
    columns += [f"{name} min cosine" for name in names if name != "fp32"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for shape in options.shapes:
        folder = str(checkpoint(shape, options.data, options.work))
        pooling = "mean" if shape == "starter" else "cls"
        same = {"runtime": "torch", "max_length": 512, "passage_instruction": ""}  # the others add none either
        ours = {p: Encoder.from_pretrained(folder, precision=p, **same) for p in names}
        if shape == "bge-m3":
            flag = BGEM3FlagModel(folder, use_fp16=False, devices="cpu", batch_size=BATCH)
        else:
            flag = FlagModel(folder, use_fp16=False, devices="cpu", pooling_method=pooling, batch_size=BATCH)
        transformer = Transformer(folder, max_seq_length=512)
        modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling), Normalize()]
        sentence = SentenceTransformer(modules=modules, device="cpu")
        for name in TEXT_SETS:
            candidates = texts(options.data, name, 20_000)
            lengths = ours[auto].prepare(candidates[:300]).tokens
            count = int(TOKENS[shape] / lengths.mean())
            sample = candidates[: max(6, count)]

            def by_flag(sample=sample, flag=flag):
                found = flag.encode(sample, max_length=512)
                return found["dense_vecs"] if isinstance(found, dict) else found

            competitors = {
                "flag": by_flag,
                "sentence": lambda sample=sample: sentence.encode(sample, batch_size=BATCH, convert_to_numpy=True),
            }
            for precision, encoder in ours.items():
                competitors[precision] = lambda sample=sample, encoder=encoder: encoder.encode(sample)
            seconds = in_turn(competitors, options.rounds)
            rates = {key: len(sample) / value for key, value in seconds.items()}
            reference = by_flag()
            cells = [shape, f"{name} ({len(sample)})", f"{lengths.mean():.0f}"] + [
                f"{rate:.0f}" for rate in rates.values()
            ]
            cells += [f"**{rates[precision] / rates['flag']:.1f}x**" for precision in names]
            cells.append(f"{rates[auto] / rates['sentence']:.1f}x")
            for precision in names:
                if precision != "fp32":
                    cosine = np.einsum("nd,nd->n", reference, ours[precision].encode(sample).dense).min()
                    cells.append(f"{cosine:.5f}")
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
