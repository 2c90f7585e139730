"""The audit of planted wrong labels, beside cleanlab where it is installed (``pip install cleanlab==2.9.0``).

The labels of 5 % of the campaigns of a set's train part are changed to another class at random; the audit sees the rest
as it is, so an error that the set has by itself counts as a false alarm here. Precision and recall are over campaigns.
"""

import time

import numpy as np

from common import arguments, heading
from decisions import ROUTES, Remembered

SETS = ("fbs_sms_zh", "chinese_harm")
METHODS = ("confident_learning", "both", "prune_by_noise_rate")
QUALITIES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def planted(items, campaigns, share, draw):
    """The items with the labels of a share of the campaigns changed, and which campaigns these are."""
    random = np.random.default_rng(draw)
    labels = sorted({one["metadata"]["label"] for one in items})
    names = np.unique(campaigns)
    wrong = random.choice(names, round(share * len(names)), replace=False)
    given = {}
    for name in wrong.tolist():
        own = [items[row]["metadata"]["label"] for row in np.flatnonzero(campaigns == name).tolist()]
        most = max(sorted(set(own)), key=own.count)
        given[name] = str(random.choice([label for label in labels if label != most]))
    changed = [
        {**one, "metadata": {**one["metadata"], "label": given.get(name, one["metadata"]["label"])}}
        for one, name in zip(items, campaigns.tolist(), strict=True)
    ]
    return changed, np.isin(names, wrong)


def by_campaign(found, values):
    """The highest value among the groups of each campaign."""
    out = np.full(int(found.campaigns.max()) + 1, -np.inf)
    np.maximum.at(out, found.campaigns, values)
    return out


def shown(flagged, wrong) -> str:
    """Precision and recall over campaigns."""
    right = (flagged & wrong).sum()
    return f"precision {right / max(flagged.sum(), 1):.3f} recall {right / wrong.sum():.3f}"


def at_recall(score, wrong, recall=0.8) -> float:
    """The highest precision at this recall or more, by a ranking."""
    right = np.cumsum(wrong[np.argsort(-score, kind="stable")])
    return float((right / np.arange(1, len(right) + 1))[right >= recall * wrong.sum()].max())


def against(examined, wrong) -> None:
    """What the audit reports, and its order."""
    from ecom_rag.decision.examined import LIKELY

    ratio = np.log(examined.probability + 1e-6) - np.log(examined.own + 1e-6)
    several = examined.campaigns_of_classes()[examined.classes] > 1
    flagged = (examined.own < examined.below) & (examined.probability >= LIKELY) & several
    score = by_campaign(examined, ratio)
    print(
        f"    audit         {shown(by_campaign(examined, flagged * 1.0) > 0, wrong)}"
        f"  at recall 0.8, by rank: {at_recall(score, wrong):.3f}  (below {examined.below:.4f})",
        flush=True,
    )


def matrix(seeds, parts, folds, top_k):
    """``(campaigns, classes)`` mean probabilities out of the campaign, of one pass: by one fit, or folds over campaigns."""
    from ecom_rag.decision.combiner import combiner_of, verdicts
    from ecom_rag.decision.own_seeds import drawn_seeds

    fitted, classes = drawn_seeds(seeds), seeds.classes[seeds.rows]
    fold = np.random.default_rng(1).integers(0, folds, int(seeds.campaigns.max()) + 1)[seeds.campaigns]
    found = np.zeros((int(seeds.campaigns.max()) + 1, len(seeds.labels)))
    for number in range(folds):
        learn = fitted[fold[fitted] != number] if folds > 1 else fitted
        asked = np.flatnonzero(fold == number)
        combiner = combiner_of(parts.take(learn), classes[learn], seeds.labels, ROUTES, top_k)
        given = verdicts(combiner, parts.take(asked))
        row, column = np.nonzero(given.classes >= 0)
        cells = seeds.campaigns[asked][row], given.classes[row, column]
        np.add.at(found, cells, given.probabilities[row, column])
    return found / np.bincount(seeds.campaigns)[:, None]


def with_cleanlab(given, own, wrong, name) -> None:
    """Confident learning and the rankings of cleanlab, over the same probabilities."""
    order = np.arange(len(own))
    other = given.copy()
    other[order, own] = 0
    ratio = np.log(other.max(axis=1) + 1e-6) - np.log(given[order, own] + 1e-6)
    print(f"    one pass, {name}: at recall 0.8, by rank: {at_recall(ratio, wrong):.3f}")
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        print("    cleanlab is not installed")
        return
    p = (given + 1e-6) / (given + 1e-6).sum(axis=1, keepdims=True)
    for method in METHODS:
        print(f"      cleanlab {method:20} {shown(find_label_issues(own, p, filter_by=method, n_jobs=1), wrong)}")
    ranks = (f"{one} {at_recall(-get_label_quality_scores(own, p, method=one), wrong):.3f}" for one in QUALITIES)
    print(f"      cleanlab's order, at recall 0.8: {', '.join(ranks)}", flush=True)


def main() -> None:
    """Print what is found."""
    from ecom_rag import Encoder
    from ecom_rag.decision.audit import TOP_K
    from ecom_rag.decision.evidence import Neighbours
    from ecom_rag.decision.examined import examine
    from ecom_rag.decision.own_seeds import labelled_seeds, search_among_others
    from ecom_rag.decision.settings import Auditing
    from ecom_rag.files.records import read
    from ecom_rag.pipeline import Pipeline, Recall, Seeds
    from ecom_rag.text.near_duplicates import near_duplicates

    args = arguments(
        __doc__,
        draws={"type": int, "default": 1},
        first={"type": int, "default": 0},
        sets={"default": ",".join(SETS)},
        folds={"type": int, "default": 0},
        top_k={"type": int, "default": TOP_K},
    )
    heading("Audit")
    encoder, asked = Encoder.from_pretrained("starter"), Auditing()
    for name in args.sets.split(","):
        items = list(read(f"{args.data}/{name}/train.jsonl.gz"))
        campaigns = near_duplicates([one["text"] for one in items], similarity=asked.similarity)
        remembered = Remembered(encoder, list(dict.fromkeys(one["text"] for one in items)))
        for draw in range(args.first, args.first + args.draws):
            changed, wrong = planted(items, campaigns, 0.05, draw)
            print(f"  {name}, draw {draw}: {len(items)} seeds, {wrong.sum()} of {len(wrong)} campaigns planted")
            seeds = Seeds(changed, routes=ROUTES, encoder=remembered)
            pipeline = Pipeline(seeds, Recall(routes=ROUTES, top_k=args.top_k))
            with pipeline.view() as view:
                labelled = labelled_seeds(view, "label", similarity=asked.similarity)
                began = time.monotonic()
                examined = examine(pipeline, view, labelled)
                print(f"    {time.monotonic() - began:.1f} s for the search and the fit, embeddings given")
                against(examined, wrong)
                if args.folds:
                    _, first = np.unique(labelled.campaigns, return_index=True)
                    own = labelled.classes[labelled.rows][first]
                    blocks = search_among_others(pipeline, view, labelled, np.arange(len(labelled.rows)))
                    parts = Neighbours.concatenate([part for _, _, part in blocks])
                    for folds in (1, args.folds):
                        given = matrix(labelled, parts, folds, args.top_k)
                        with_cleanlab(given, own, wrong, f"folds {folds}")


if __name__ == "__main__":
    main()
