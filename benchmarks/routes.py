"""Every route, every fusion and learned fusion on four public sets: nDCG@10 with 95 % intervals, and who beats whom.

Fusion weights are fitted on the train split where there is one, else by cross-validation on the split itself (the figure
shown is then out of fold). p is that of the paired randomisation test against the best single route.
"""

import logging
from pathlib import Path

import numpy as np

from common import arguments, heading

ROUTES = ("bm25", "dense", "variant")
SETS = (
    ("scifact", "test", "train"),
    ("homedepot", "dev", "train"),
    ("abt_buy", "test", None),
    ("jd_titles_zh", "dev", None),
)
MEASURES = "nDCG@10,R@100"
DEPTH = 100


class Searched:
    """One split of one set, searched by every route."""

    def __init__(self, folder: str, split: str, seeds, names: list[str], encoder) -> None:
        from ecom_rag import Embeddings
        from ecom_rag.files.beir import read_beir
        from ecom_rag.pipeline import Pipeline, Recall
        from ecom_rag.retrieval.routes import Queries

        beir = read_beir(folder, split)
        self.ids = [query["metadata"]["id"] for query in beir.queries]
        self.grades = [beir.qrels[name] for name in self.ids]
        self.names = names
        texts = [query["text"] for query in beir.queries]
        pipeline = Pipeline(seeds, Recall(routes=ROUTES, depth=DEPTH, top_k=DEPTH), encoder=encoder)
        embeddings = encoder.encode(texts, side="query") if "dense" in ROUTES else Embeddings()
        self.found = pipeline.search(seeds, Queries(texts, embeddings))

    def per_query(self, top) -> np.ndarray:
        """``(queries, measures)``."""
        from ecom_rag.evaluation.measures import evaluate_run, parse_measures

        run = {
            name: [self.names[row] for row in ids if row >= 0]
            for name, ids in zip(self.ids, top.rows.tolist(), strict=True)
        }
        qrels = dict(zip(self.ids, self.grades, strict=True))
        return evaluate_run(run, qrels, parse_measures(MEASURES)).values


def learned(data: Searched):
    """A fusion fitted on this split."""
    from ecom_rag.judging.fit_fusion import fit_fusion
    from ecom_rag.judging.judged import judge
    from ecom_rag.retrieval.fusion import gather

    candidates = gather(data.found)
    return fit_fusion(candidates, judge(candidates, [data.names] * len(data.ids), data.grades))


def main() -> None:
    options = arguments(
        __doc__, model={"default": "starter"}, sets={"nargs": "+", "default": [name for name, *_ in SETS]}
    )
    logging.getLogger("ecom_rag").setLevel(logging.ERROR)
    heading("Routes and fusions")
    from ecom_rag import Encoder, Seeds
    from ecom_rag.files.beir import read_beir
    from ecom_rag.judging.significance import bootstrap, compare
    from ecom_rag.retrieval.fusion import METHODS, fuse
    from ecom_rag.retrieval.routes import default_weights

    encoder = Encoder.from_pretrained(options.model)
    print("| set | run | nDCG@10 | 95 % interval | R@100 | against the best route | p |\n|---|---|---|---|---|---|---|")
    for name, split, train in (chosen for chosen in SETS if chosen[0] in options.sets):
        folder = str(Path(options.data) / name)
        documents = list(read_beir(folder, split).documents())
        seeds = Seeds(documents, routes=ROUTES, encoder=encoder)
        names = [document["metadata"]["id"] for document in documents]
        data = Searched(folder, split, seeds, names, encoder)
        runs = {route: data.per_query(top) for route, top in data.found.items()}
        best = max(runs, key=lambda route: runs[route][:, 0].mean())
        weights = default_weights(ROUTES)
        for routes in (("bm25", "dense"), ROUTES):
            chosen = {route: data.found[route] for route in routes}
            for method in METHODS:
                fused = fuse(chosen, k=DEPTH, method=method, weights={route: weights[route] for route in routes})
                runs[f"{'+'.join(routes)} {method}"] = data.per_query(fused)
        fitted = learned(Searched(folder, train, seeds, names, encoder) if train else data)
        where = f"fitted on {train}" if train else f"out-of-fold gain {fitted.gain:+.4f}"
        told = f"{fitted.method} {', '.join(f'{route} {weight:.2f}' for route, weight in fitted.weights.items())}"
        verdict = "accepted" if fitted.accepted else "refused"
        runs[
            f"learned ({where} [{fitted.gain_low:+.4f}, {fitted.gain_high:+.4f}] over {fitted.baseline}, {verdict}: {told})"
        ] = data.per_query(fitted.fuse(data.found, k=DEPTH))
        for run, values in runs.items():
            interval = bootstrap(values[:, 0])
            against = compare(runs[best][:, 0], values[:, 0])
            print(
                f"| {name} {split} | {run} | {interval.mean:.4f} | {interval.low:.4f} to {interval.high:.4f} "
                f"| {values[:, 1].mean():.4f} | {against.difference:+.4f} [{against.low:+.4f}, {against.high:+.4f}] "
                f"| {against.p:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
