"""50 documents of one query at the Qwen3-Reranker-0.6B shape: the query run once, once per document, by the card's code."""

import dataclasses
from pathlib import Path

import numpy as np

from common import TEXT_SETS, arguments, heading, in_turn, quiet, texts

QUERIES = {"taobao_titles_zh": 0, "homedepot": 1}
DTYPES = ("fp32", "bf16")


def folder_of(work: str, data: str, layers: int) -> Path:
    """A random checkpoint of the shape, with a byte-level tokenizer of 20,000 tokens trained on the texts."""
    folder = Path(work) / f"qwen3-reranker-{layers}"
    if (folder / "done").exists():
        return folder
    import torch
    import transformers as tf
    from tokenizers import ByteLevelBPETokenizer

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    trained = ByteLevelBPETokenizer()
    corpus = [text for which in TEXT_SETS for text in texts(data, which, 5000)]
    trained.train_from_iterator([*corpus, "yes no " * 9], 20000, special_tokens=special)
    inner = trained._tokenizer
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=special[0], eos_token=special[2])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = tf.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
        tie_word_embeddings=True,
    )
    tf.Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "done").touch()
    return folder


def card(folder: Path, precision: str):
    """``process_inputs`` and ``compute_logits`` of the model card, over one batch."""
    import torch
    import transformers as tf

    from ecom_rag.models.prompts import QWEN3

    tokenizer = tf.AutoTokenizer.from_pretrained(folder, padding_side="left")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    network = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    prefix, suffix = (tokenizer.encode(text, add_special_tokens=False) for text in (QWEN3.start[0], QWEN3.end[0]))
    yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("yes", "no"))

    def score(pairs: list[tuple[str, str]]) -> np.ndarray:
        asked = [f"<Instruct>: {QWEN3.instruction}\n<Query>: {query}\n<Document>: {text}" for query, text in pairs]
        rows = [prefix + ids + suffix for ids in tokenizer(asked)["input_ids"]]
        inputs = tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = network(**inputs, logits_to_keep=1).logits[:, -1].float()
        return (logits[:, yes] - logits[:, no]).numpy()

    return score


def main() -> None:
    numbers = {"layers": {"type": int, "default": 28}, "documents": {"type": int, "default": 50}}
    options = arguments(__doc__, precision={"choices": DTYPES, "default": "bf16"}, **numbers)
    quiet()
    heading(f"Rerank with a language model, {options.layers} layers, {options.precision}")
    from ecom_rag import CrossEncoder

    folder = folder_of(options.work, options.data, options.layers)
    theirs = card(folder, options.precision)
    ours = CrossEncoder.from_pretrained(folder, precision=options.precision, template="qwen3")
    print(
        "| documents | tokens before a document | tokens of it and after | card s | each with its query s"
        " | query once s | vs card | vs each | largest difference to card |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, place in QUERIES.items():
        found = texts(options.data, name, 2000)
        ids = ours.prepare([(found[place], text) for text in found])
        after = ids.tokens - ids.second_starts[ids.rows]
        fitting = np.flatnonzero((after >= 30) & (after <= 55))
        pairs = [(found[place], found[row]) for row in fitting[: options.documents]]
        ids = ours.prepare(pairs)
        apart = dataclasses.replace(ids, second_starts=np.ones_like(ids.second_starts))
        after = ids.tokens - ids.second_starts
        competitors = {
            "card": lambda pairs=pairs: theirs(pairs),
            "each": lambda apart=apart: ours.run(apart),
            "once": lambda ids=ids: ours.run(ids),
        }
        seconds = in_turn(competitors, options.rounds)
        shown = " | ".join(f"{value:.1f}" for value in seconds.values())
        ratios = " | ".join(f"**{seconds[other] / seconds['once']:.1f}x**" for other in ("card", "each"))
        difference = np.abs(theirs(pairs) - ours.run(ids)).max()
        print(
            f"| {name} ({len(pairs)}) | {ids.second_starts[0]} | {after.min()} to {after.max()}, mean {after.mean():.0f}"
            f" | {shown} | {ratios} | {difference:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
