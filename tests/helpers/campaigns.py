"""Texts in small variations, and their similarity counted by hand."""

import numpy as np

from ecom_rag.text.minhash import plain


def similarities(texts):
    """``(texts, texts)`` Jaccard similarities of the sets of trigrams."""
    padded = [form.ljust(3, "\0") for form in plain(texts)]
    grams = [{text[i : i + 3] for i in range(len(text) - 2)} for text in padded]
    return [[len(left & right) / len(left | right) for right in grams] for left in grams]


def variations(count, *, templates, length, edits, seed):
    """Texts of random templates, each with up to ``edits`` characters changed; without edits, the templates."""
    random = np.random.default_rng(seed)
    alphabet = np.array([chr(code) for code in range(0x4E00, 0x4E00 + 400)])
    patterns = random.choice(alphabet, (templates, length))
    if not edits:
        return ["".join(pattern) for pattern in patterns[:count]]
    texts = []
    for _ in range(count):
        text = patterns[random.integers(templates)].copy()
        for _ in range(random.integers(0, edits + 1)):
            text[random.integers(length)] = random.choice(alphabet)
        texts.append("".join(text))
    return texts
