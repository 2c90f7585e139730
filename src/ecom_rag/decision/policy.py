"""A policy: what turns the results of recall into decisions, and the proof behind each, in one JSON file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.decision.combiner import Combiner
from ecom_rag.decision.guarantee import Step, percent
from ecom_rag.errors import PolicyError
from ecom_rag.files import publish, readers
from ecom_rag.files.digest import of_texts
from ecom_rag.files.records import Record
from ecom_rag.files.results import EVIDENCE
from ecom_rag.pipeline.provenance import Provenance

KIND = "ecom_rag policy"
VERSION = 2
_VERSIONS = (1, VERSION)  # that are read


@dataclass(frozen=True, slots=True)
class Rule:
    """What is promised of one class.

    Args:
        target: Precision that is promised.
        threshold: Probability from which the class is decided without a person; ``None`` for never.
        campaigns: Calibration campaigns that pass the threshold; without one, those that are put in the class.
        errors: Those of another class among them.
        bound: Precision that holds with the confidence of the policy, from these two.
        coverage: Share of the calibration campaigns put in the class that pass.
        recall: Share of the calibration campaigns of the class that are decided as it.
        labelled: Calibration campaigns of the class.
        labels_missing: Further campaigns without an error that would give a threshold; 0 where there is one, ``None``
            where labels alone would not, since the precision is below the target.
        why: What is so, in words.
        pool: The classes that share this threshold and this promise; empty for a promise of its own.
        steps: Every threshold that was tested.
        evasive: By kind of evasive spelling what the threshold passes of the campaigns spelled so.
    """

    target: float
    threshold: float | None
    campaigns: int
    errors: int
    bound: float
    coverage: float
    recall: float
    labelled: int
    labels_missing: int | None
    why: str
    pool: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    evasive: Mapping[str, Step] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What the policy promises as a whole.

    Args:
        precision: Of what is decided, class by class.
        delta: Probability with which a promise may be broken.
        jointly: Whether delta is for all classes together; else it is for each by itself.
        unit: What is counted.
        similarity: From which two texts are of one campaign.
        method: How thresholds were found.
        assumes: What has to be so.
        false_positive_rate: Share of innocents that may be decided as something else; ``None`` where none is promised.
        flag_threshold: What every class that is not innocent must reach for that.
        innocents: Innocent calibration campaigns.
        evasive: Kinds of evasive spellings for which the precision is promised too.
    """

    precision: float
    delta: float
    jointly: bool
    similarity: float
    false_positive_rate: float | None = None
    flag_threshold: float | None = None
    innocents: int = 0
    evasive: tuple[str, ...] = ()
    unit: str = "campaign"
    method: str = "exact binomial tail, fixed sequence of thresholds from the bank's own seeds, one text per campaign"
    assumes: str = "listings come as the calibration campaigns did: same sources, same time, same bank, same encoder"

    @property
    def spelled(self) -> str:
        """What is promised of evasive spellings, to be said behind "are right"."""
        return f", also of those spelled evasively ({', '.join(self.evasive)})" if self.evasive else ""


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules for decisions.

    Args:
        evidence: How the results that it reads are made.
        combiner: Gives each class of a listing its probability.
        guarantee: What is promised.
        classes: The rule of each label.
        innocent: The labels that stand for nothing wrong.
        calibration: File, digest, counts and dates of what it was calibrated on.
        version: Of the file. Since 2 the fingerprint does not depend on when the policy was made.
    """

    evidence: Provenance
    combiner: Combiner
    guarantee: Guarantee
    classes: Mapping[str, Rule]
    innocent: tuple[str, ...] = ()
    calibration: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with anything in the policy but the time when it was made."""
        content = _content(self)
        if self.version > 1:
            content["calibration"].pop("created", None)
        return _digest(content)

    def save(self, path: PathLike) -> None:
        """Write it as JSON, readable and complete.

        Args:
            path: Of the file; it appears when it is complete.

        Raises:
            UsageError: It cannot be written.
        """
        content = {"kind": KIND, "version": self.version, **_seals(self), **_content(self)}
        with publish.writing(path_of(path, "path")) as sink:
            sink.write(f"{json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)}\n".encode())

    def promise(self, label: str) -> str | None:
        """What is promised of a decision for a label, in words; ``None`` without a threshold."""
        rule = self.classes.get(label)
        if rule is None or rule.threshold is None:
            return None
        whose = f"the labels {', '.join(rule.pool)} together" if rule.pool else f"the label {label}"
        among = " jointly with the other labels" if self.guarantee.jointly else ""
        return (
            f"of the campaigns decided as {whose}, at least {percent(rule.target)} are right{self.guarantee.spelled},"
            f" with confidence {percent(1 - self.guarantee.delta)}{among}; nothing is promised of a single listing"
        )

    def fits(self, made: Provenance) -> str | None:
        """Whether the policy may decide results that were made so.

        Args:
            made: How they were made.

        Returns:
            Why its promises no longer hold, where the seeds have changed since; ``None`` where they hold.

        Raises:
            PolicyError: The results are not comparable with those that it was calibrated on.
        """
        own = self.evidence
        if different := own.differences(made):
            raise PolicyError(
                f"the results were recalled with {'; '.join(different)}; recall as the policy was calibrated, or"
                " calibrate anew"
            )
        if own.seeds == made.seeds and own.sequence == made.sequence:
            return None
        if own.sequence == made.sequence == 0:
            return "the seeds are not those that it was calibrated on"
        if own.seeds != made.seeds:
            raise PolicyError("the results were recalled from another bank than the policy was calibrated on")
        return f"the bank has changed since change {own.sequence} (it is at {made.sequence})"


def load_policy(path: PathLike) -> Policy:
    """Read what ``Policy.save`` wrote.

    Args:
        path: The JSON file (``str`` or ``Path``).

    Raises:
        PolicyError: Not a policy, one of a newer version, or one that was changed by hand.
        UsageError: No such file, or no JSON.
    """
    path = path_of(path, "path")
    content = readers.read_json(path, remedy="make one with `calibrate`")
    if not isinstance(content, dict) or content.pop("kind", None) != KIND:
        raise PolicyError(f"{path}: is not a policy; expected a file made by `calibrate`")
    version = content.pop("version", None)
    if version not in _VERSIONS or isinstance(version, bool):
        raise PolicyError(
            f"{path}: is a policy of version {version}; this ecom_rag reads the versions"
            f" {' and '.join(map(str, _VERSIONS))}: update ecom_rag, or calibrate again"
        )
    try:
        policy = _policy(content, int(version))
        right = {name: content[name] for name in ("fingerprint", "checksum") if name in content} == _seals(policy)
    except (KeyError, TypeError, ValueError, AttributeError):
        right = False
    if not right:
        raise PolicyError(
            f"{path}: was changed after it was made, so its promises no longer hold; calibrate again with the settings"
            " that you want"
        )
    return policy


def check_evidence(results: Sequence[Record], provenance: Provenance) -> None:
    """Whether results can have been made as a policy's were.

    Args:
        results: With ``topk_evidence``, or of one route.
        provenance: Of the policy.

    Raises:
        PolicyError: They show scores of other routes, a reranker, or more results than the policy reads.
    """
    expected = set(provenance.routes)
    for number, one in enumerate(results, 1):
        if len(one["topk_seed"]) > provenance.top_k:
            raise PolicyError(
                f"result {number} has {len(one['topk_seed'])} seeds; the policy was calibrated on {provenance.top_k}"
                " per listing: recall with as many"
            )
        shown = {name for by_route in one.get(EVIDENCE) or () for name in by_route}
        if not shown <= expected or (not shown and one["topk_seed"] and len(expected) > 1):
            found = "scores of " + ", ".join(sorted(shown)) if shown else "no scores of routes"
            raise PolicyError(
                f"result {number} has {found}; the policy was calibrated on {', '.join(provenance.routes)}: recall with"
                " these routes and no reranker, or calibrate anew"
            )


def _content(policy: Policy) -> dict[str, Any]:
    combiner = policy.combiner
    arrays = {name: getattr(combiner, name).tolist() for name in ("mean", "scale", "weights", "bias")}
    named = {
        "name": combiner.name,
        "trained_on": dict(combiner.trained_on),
        "features": list(combiner.features),
        "labels": list(combiner.labels),
        "none": combiner.none,
        **arrays,
    }
    return {
        "evidence": policy.evidence.as_json(),
        "combiner": named,
        "guarantee": asdict(policy.guarantee),
        "classes": {label: asdict(rule) for label, rule in policy.classes.items()},
        "innocent": list(policy.innocent),
        "calibration": dict(policy.calibration),
    }


def _seals(policy: Policy) -> dict[str, str]:
    """What tells a policy from one that was edited; the checksum knows the time too, which the fingerprint does not."""
    checksum = {"checksum": _digest(_content(policy))} if policy.version > 1 else {}
    return {"fingerprint": policy.fingerprint, **checksum}


def _digest(content: Mapping[str, Any]) -> str:
    return of_texts([json.dumps(content, ensure_ascii=False, sort_keys=True)])[:12]


def _policy(content: Mapping[str, Any], version: int) -> Policy:
    evidence = Provenance.of_json(content["evidence"])
    own = content["combiner"]
    arrays = {name: np.array(own[name], np.float64) for name in ("mean", "scale", "weights", "bias")}
    combiner = Combiner(
        own["name"],
        evidence.routes,
        evidence.top_k,
        tuple(own["labels"]),
        **arrays,
        none=own["none"],
        trained_on=own["trained_on"],
    )
    rules = {label: _rule(one) for label, one in content["classes"].items()}
    guarantee = Guarantee(**content["guarantee"])
    guarantee = replace(guarantee, evasive=tuple(guarantee.evasive))
    return Policy(evidence, combiner, guarantee, rules, tuple(content["innocent"]), content["calibration"], version)


def _rule(content: Mapping[str, Any]) -> Rule:
    known = {one.name for one in fields(Rule)}
    rule = Rule(**{key: value for key, value in content.items() if key in known})
    evasive = {kind: Step(**step) for kind, step in content["evasive"].items()}
    return replace(rule, pool=tuple(rule.pool), steps=tuple(Step(**step) for step in content["steps"]), evasive=evasive)
