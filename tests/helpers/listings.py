"""Listings whose words tell their class, most of the time: enough of them to calibrate on."""

import numpy as np

from ecom_rag.pipeline import Pipeline, Recall, Seeds

ROUTES = ("bm25", "variant")
LABELS = ("fraud", "medical", "ok")


def listings(count, *, seed, start=0, noise=0.01):
    """Records of three classes and one that is rare; ``noise`` of them have the words of another class."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = "rare" if number % 50 == 49 else LABELS[number % 3]
        told = str(random.choice(LABELS)) if random.uniform() < noise else label
        words = [f"{told}{random.integers(12)}" for _ in range(4)] + [f"x{random.integers(3000)}" for _ in range(6)]
        random.shuffle(words)
        found.append({"text": " ".join(words), "metadata": {"id": f"r{start + number}", "label": label}})
    return found


def pipeline(seeds, *, top_k=10, routes=ROUTES):
    return Pipeline(Seeds(seeds, routes=routes), Recall(routes=routes, top_k=top_k))
