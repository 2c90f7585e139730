"""Records as ``ecom-rag decide`` writes them, and the policy that decided them."""

import json

POLICY = {
    "version": 1,
    "kind": "ecom_rag policy",
    "guarantee": {"claim": "precision", "delta": 0.1},
    "classes": {
        "fraud": {"target": 0.95, "threshold": 0.91, "bound": 0.96},
        "spam": {"target": 0.9, "threshold": 0.8},
        "rare": {"target": 0.95, "threshold": None, "labels_missing": 12},
    },
}


def decided(number, label="fraud", *, truth=None, campaign=None, action="label", probabilities=None, chosen=None):
    """One record; ``truth`` is what a person said."""
    probabilities = {label: 0.95, "other": 0.03} if probabilities is None else probabilities
    threshold = POLICY["classes"].get(label, {}).get("threshold")
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
    """A policy on disk; ``classes`` replace those of ``POLICY``."""
    path.write_text(json.dumps(POLICY | ({"classes": classes} if classes else {})), encoding="utf-8")
    return str(path)
