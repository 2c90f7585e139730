"""Decisions: results in, the same with ``decision`` out."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from ecom_rag.decision.combiner import verdicts_of
from ecom_rag.decision.evidence import seed_labels
from ecom_rag.decision.policy import Policy, check_evidence
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.identity import ids_by
from ecom_rag.files.records import Record
from ecom_rag.files.results import EVIDENCE, check_result
from ecom_rag.values import type_name

_RIVAL = 0.5  # of the first class's probability: a second one with as much disagrees


class Decider:
    """A policy, ready for results.

    Args:
        policy: The rules.
        id_key: Metadata key of the seeds' ids.
        void: Why the promises no longer hold; ``None`` while they do.

    Raises:
        UsageError: Not a policy.
    """

    def __init__(self, policy: Policy, *, id_key: str = "id", void: str | None = None) -> None:
        if not isinstance(policy, Policy):
            raise UsageError(f"`policy` is of type {type_name(policy)}; expected what load_policy or calibrate gives")
        self.policy = policy
        self._name_of = ids_by(id_key)
        self._alone = policy.evidence.routes[0]
        self._void = void
        self._promises = {label: policy.promise(label) for label in policy.classes}
        self._fingerprint = policy.fingerprint

    def decide(self, results: Iterable[Record]) -> list[Record]:
        """Decide results.

        Args:
            results: As ``recall`` gives them, by the same routes as those that the policy was calibrated on.

        Returns:
            The same records, each with ``decision`` behind its other keys.

        Raises:
            RecordError: Not a result, or a seed whose label is no label.
            PolicyError: Results of other routes, or with more seeds than the policy reads.
        """
        items = list(records.cleaned(results, "result"))
        for number, item in enumerate(items, 1):
            try:
                check_result(item)
            except ValueError as error:
                raise RecordError(f"result {number}", str(error)) from None
        return self.decide_checked(items)

    def decide_checked(self, results: Sequence[Record]) -> list[Record]:
        """As ``decide``, for results that ``check_result`` has seen.

        Args:
            results: Those.

        Raises:
            RecordError: A seed whose label is no label.
            PolicyError: As ``decide``.
        """
        evidence = self.policy.evidence
        check_evidence(results, evidence)
        labels = seed_labels(results, evidence.label_key, evidence.top_k)
        found = verdicts_of(self.policy.combiner, results, labels)
        return [
            {**one, "decision": self._decision(one, *own)}
            for one, *own in zip(results, labels, found.classes.tolist(), found.probabilities.tolist(), strict=True)
        ]

    def _decision(
        self,
        result: Record,
        seed_labels: Sequence[str | None],
        classes: Sequence[int],
        probabilities: Sequence[float],
    ) -> dict[str, Any]:
        known = self.policy.combiner.labels
        named: dict[str, float] = {}
        for one, p in zip(classes, probabilities, strict=True):
            if one >= 0:
                named[known[one]] = p
        label = next(iter(named), None)
        rule = self.policy.classes.get(label or "")
        threshold = None if rule is None else rule.threshold
        reason = self._reason(named, threshold)
        innocent = label in self.policy.innocent
        return {
            "action": "review" if reason else "innocent" if innocent else "label",
            "label": label,
            "probability": named.get(label or ""),
            "threshold": threshold,
            "reason": reason,
            "guarantee": None if reason else self._promise(str(label)),
            "campaign": None,
            "probabilities": named,
            **self._seeds(result, seed_labels, label),
            "policy": self._fingerprint,
        }

    def _reason(self, named: dict[str, float], threshold: float | None) -> str | None:
        """Why a person must look; ``None`` where nobody must."""
        first, second = (*sorted(named.values(), reverse=True), 0.0, 0.0)[:2]
        if threshold is not None and first >= threshold:
            return None
        if 1 - sum(named.values()) > first:  # more than any label: none of them
            return "no_similar_seed"
        if threshold is None:
            return "no_guarantee"
        return "seeds_disagree" if second >= _RIVAL * first else "below_threshold"

    def _promise(self, label: str) -> str | None:
        if self._void is not None:
            return f"void: {self._void}; calibrate again"
        return self._promises[label]

    def _seeds(self, result: Record, found: Sequence[str | None], label: str | None) -> dict[str, Any]:
        """Which seeds speak for the label and which against, and their shares of the vote, which add up to 1."""
        shares = iter(_shares(len(found) - found.count(None)))
        evidence, metadata, name_of = result.get(EVIDENCE), result["topk_metadata"], self._name_of
        because: list[dict[str, Any]] = []
        against: list[dict[str, Any]] = []
        for place, own in enumerate(found):
            if own is None:
                continue
            ranks: dict[str, int] = {}
            if evidence is None:
                ranks[self._alone] = place + 1
            else:
                for route, by_route in evidence[place].items():  # a comprehension costs a call per seed
                    ranks[route] = by_route["rank"]
            entry = {"seed": name_of(metadata[place]), "label": own, "share": next(shares), "routes": ranks}
            (because if own == label else against).append(entry)
        return {"because": because, "against": against}


@lru_cache(maxsize=1024)
def _shares(count: int) -> tuple[float, ...]:
    """Equal shares to six decimals that add up to 1 exactly: the first take what rounding leaves."""
    whole, rest = divmod(1_000_000, count) if count else (0, 0)
    return tuple((whole + (place < rest)) / 1_000_000 for place in range(count))
