"""What the decisions came to, for the terminal and the page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ecom_rag.decision import Calibration, Policy
from ecom_rag.decision.guarantee import campaigns_needed
from ecom_rag.files.records import Record

LANGUAGES = {"en": "English", "zh": "Chinese"}
KINDS = {"plain": "plain", "near_miss": "near miss", "evasive": "evasive"}
ACTIONS = {"label": "block", "innocent": "innocent", "review": "review"}
REASONS = {
    "below_threshold": "the most probable label stays below its threshold",
    "seeds_disagree": "the seeds disagree between two labels",
    "no_similar_seed": "no seed is similar enough",
    "no_guarantee": "the label has no promise",
    "flood": "many copies of one text were decided, and a person must look at one",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Decided listings, and the policy that decided them.

    Args:
        decided: In the order of the file.
        calibration: The policy, and what it was made of.
        routes: That were searched.
        seeds: In the bank.
    """

    decided: list[Record]
    calibration: Calibration
    routes: Sequence[str]
    seeds: int

    @property
    def policy(self) -> Policy:
        """The rules."""
        return self.calibration.policy

    def of(self, language: str) -> list[Record]:
        """The listings of a language."""
        return [one for one in self.decided if one["metadata"]["lang"] == language]


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of some listings.

    Args:
        listings: How many.
        actions: By what ``ACTIONS`` calls them.
        wrong: Decided as another label than their own, by action.
        guessed: Whose most probable label is right, decided or not.
    """

    listings: int
    actions: Counter[str]
    wrong: Counter[str]
    guessed: int

    @property
    def decided(self) -> int:
        """Without a person."""
        return self.listings - self.actions["review"]

    @property
    def errors(self) -> int:
        """Wrong ones among the decided."""
        return self.wrong.total()


@dataclass(frozen=True, slots=True)
class Found:
    """A seed that speaks for a decision or against it.

    Args:
        text: Of the seed.
        label: Of the seed.
        routes: The rank that each route gave it.
    """

    text: str
    label: str
    routes: dict[str, int]

    def by(self) -> str:
        """Routes and ranks in words."""
        return ", ".join(f"{route} #{rank}" for route, rank in self.routes.items())


def action_of(record: Record) -> str:
    """What was decided: block, innocent or review."""
    return ACTIONS[record["decision"]["action"]]


def right(record: Record) -> bool:
    """Whether the most probable label is the listing's own."""
    return bool(record["decision"]["label"] == record["metadata"]["label"])


def tally(listings: Sequence[Record]) -> Tally:
    """Count listings by action, and those decided wrongly."""
    actions = Counter(map(action_of, listings))
    wrong = Counter(action_of(one) for one in listings if action_of(one) != "review" and not right(one))
    return Tally(len(listings), actions, wrong, sum(map(right, listings)))


def kept(outcome: Outcome) -> list[str]:
    """What came out beside what was promised, a sentence each."""
    guarantee, decided = outcome.policy.guarantee, outcome.decided
    blocked = [one for one in decided if action_of(one) == "block"]
    passed = [one for one in decided if action_of(one) == "innocent"]
    innocent = [one for one in decided if one["metadata"]["label"] in outcome.policy.innocent]
    wrongly = [one for one in blocked if one["metadata"]["label"] in outcome.policy.innocent]
    least = f"promised: at least {guarantee.precision:.0%}"
    return [
        f"{_share(sum(map(right, blocked)), blocked)} blocked listings have the right label ({least}).",
        f"{_share(len(wrongly), innocent)} innocent listings are blocked (promised: at most"
        f" {guarantee.false_positive_rate:.0%}).",
        f"{_share(sum(map(right, passed)), passed)} listings passed as innocent are innocent ({least}).",
    ]


def _share(count: int, of: Sequence[Record]) -> str:
    return f"{count} of {len(of)}" + (f" ({count / len(of):.0%})" if of else "")


def reasons(decided: Sequence[Record]) -> list[tuple[str, int]]:
    """Why listings go to review and how many, the commonest first."""
    counts = Counter(one["decision"]["reason"] for one in decided if action_of(one) == "review")
    return [(REASONS[reason], count) for reason, count in counts.most_common()]


def groups(outcome: Outcome) -> list[tuple[str, str, list[Record]]]:
    """Language, kind and listings of each line of a table; an empty kind stands for all kinds."""
    found = []
    for language, name in LANGUAGES.items():
        own = outcome.of(language)
        found += [(name, kind, [one for one in own if one["metadata"]["note"] == key]) for key, kind in KINDS.items()]
        found.append((name, "", own))
    return [*found, ("both", "", outcome.decided)]


def seeds_of(record: Record, side: str) -> list[Found]:
    """The seeds on one side of a decision, best first.

    Args:
        record: Decided.
        side: ``because`` or ``against``.
    """
    texts = {metadata["id"]: text for metadata, text in zip(record["topk_metadata"], record["topk_seed"], strict=True)}
    return [Found(texts[one["seed"]], one["label"], one["routes"]) for one in record["decision"][side]]


def reason_of(decision: dict[str, Any]) -> str:
    """Why a person must look, with the numbers."""
    ranked = sorted(decision["probabilities"].items(), key=lambda item: -item[1])
    if decision["reason"] == "seeds_disagree":
        return "the seeds disagree: " + " or ".join(f"{label} {share:.2f}" for label, share in ranked[:2])
    if decision["reason"] == "below_threshold":
        [(label, share)] = ranked[:1]
        return f"{label} {share:.2f} stays below the threshold {decision['threshold']:.2f}"
    return REASONS[decision["reason"]]


def promises(policy: Policy) -> dict[str, str]:
    """What is promised of each action, in words."""
    guarantee = policy.guarantee
    least, most = f"{guarantee.precision:.0%}", f"{guarantee.false_positive_rate:.0%}"
    blocks = any(rule.threshold is not None for label, rule in policy.classes.items() if label not in policy.innocent)
    passes = all(policy.classes[label].threshold is not None for label in policy.innocent)
    none = "nothing: no threshold kept the promise on the labelled listings, so a person looks"
    block = f"at least {least} of those blocked have the right label; at most {most} of innocents are blocked"
    return {
        "block": block if blocks else none,
        "innocent": f"at least {least} of those passed as innocent are innocent" if passes else none,
        "review": "a person decides",
    }


def terms(outcome: Outcome) -> list[str]:
    """Sentences that say what the promises stand on."""
    policy = outcome.policy
    guarantee, judged = policy.guarantee, outcome.calibration.judged
    counts = {label: judged.labels.count(label) for label in policy.classes if label not in policy.innocent}
    need = campaigns_needed(0, 1 - guarantee.precision, guarantee.delta)
    said = [
        f"Each promise holds with {1 - guarantee.delta:.0%} confidence for listings like the {len(judged.labels)}"
        " labelled ones that it was made with. They are neither seeds nor among the listings decided here."
        " All were written for this demo, half of the seeds after a look at its outcome: take the shares below as"
        " an illustration."
    ]
    if any(policy.classes[label].pool for label in counts):
        said.append(
            f"The {len(counts)} prohibited labels share one promise: for one of its own a label needs at least {need}"
            f" labelled listings without an error, and none has more than {max(counts.values())}."
        )
    return said
