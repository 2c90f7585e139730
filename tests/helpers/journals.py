"""Decided records for journals, with everything that the queue reads of them."""

from ecom_rag.serving.journal import Journal


def to_review(text, *, label="fraud", probability=0.5, threshold=0.9, reason="below_threshold", campaign=None, **more):
    """A record that a policy sends to review."""
    return result(text, label, probability, threshold, campaign, more, action="review", reason=reason)


def automatic(text, *, label="fraud", probability=0.95, threshold=0.9, campaign=None, **more):
    """A record that a policy decides itself."""
    return result(text, label, probability, threshold, campaign, more, action="label", reason=None)


def result(text, label, probability, threshold, campaign, metadata, *, action, reason):
    return {
        "text": text,
        "metadata": metadata,
        "topk_sim": [0.9, 0.4],
        "topk_seed": ["a seed", "another"],
        "topk_metadata": [{"label": label}, {"label": "ok"}],
        "topk_evidence": [{"bm25": {"score": 0.9, "rank": 1}}, {"bm25": {"score": 0.4, "rank": 2}}],
        "decision": {
            "action": action,
            "label": label,
            "probability": probability,
            "threshold": threshold,
            "reason": reason,
            "guarantee": None if action == "review" else "0.95",
            "campaign": campaign,
            "probabilities": {label: probability, "ok": round(0.98 - probability, 6)},
            "because": [{"seed": "s1", "label": label, "share": 1.0, "routes": {"bm25": 1}}],
            "against": [],
            "policy": "a policy",
        },
    }


def put(journal: Journal, *records, bank="seeds", sequence=3, actor="shop"):
    return journal.record(list(records), bank=bank, sequence=sequence, actor=actor)
