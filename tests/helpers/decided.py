"""Records as ``ecom-rag decide`` writes them, and the policy that decided them."""

from ecom_rag.decision.combiner import votes
from ecom_rag.decision.policy import Guarantee, Policy, Rule
from ecom_rag.pipeline.provenance import Provenance

CLASSES = {"fraud": (0.95, 0.91), "spam": (0.9, 0.8), "rare": (0.95, None)}


def decided(number, label="fraud", *, truth=None, campaign=None, action="label", probabilities=None, chosen=None):
    """One record; ``truth`` is what a person said."""
    probabilities = {label: 0.95, "other": 0.03} if probabilities is None else probabilities
    threshold = CLASSES.get(label, (None, None))[1]
    return {
        "text": f"text {number}",
        "metadata": {"id": number} | ({} if truth is None else {"label": truth}),
        "topk_sim": [0.9],
        "topk_seed": ["text 0"],
        "topk_metadata": [{"label": label}],
        "decision": {
            "action": action,
            "label": label if action == "label" else None,
            "probability": 0.95,
            "threshold": threshold if action == "label" else None,
            "reason": None if action == "label" else "below_threshold",
            "campaign": campaign or f"campaign {number}",
            "probabilities": probabilities,
        },
    } | ({} if chosen is None else {"chosen": {"by": chosen, "score": 0.1}})


def policy_file(path, **classes):
    """A policy on disk; ``classes``, label to target and threshold, replace ``CLASSES``."""
    rules = {
        label: Rule(target, threshold, 60, 0, 0.95, 1.0, 1.0, 60, 0, "none is wrong")
        for label, (target, threshold) in (classes or CLASSES).items()
    }
    made = Provenance(("bm25",), 10, {}, None, None, "label", None, 0, 60)
    combiner = votes(tuple(rules), ("bm25",), 10, why="made by hand")
    Policy(made, combiner, Guarantee(0.95, 0.1, jointly=False, similarity=0.85), rules).save(path)
    return str(path)
