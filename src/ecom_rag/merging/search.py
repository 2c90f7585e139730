"""Weights found on validation sets: the best weighted mean of their nDCG@10 among those that lose no more than allowed.

Two models: a grid on the line between them, refined by golden sections. More models, or weights for each block of
layers: corners, centre and random points, then a compass search. Only comparisons are used, so a constraint is simply
part of the order: first the smaller excess over what may be lost, then the larger mean.
"""

import contextlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecom_rag.errors import UsageError
from ecom_rag.files import disk, records
from ecom_rag.merging.files import Opened
from ecom_rag.merging.methods import WITH_BASE, Mix
from ecom_rag.merging.models import Models
from ecom_rag.merging.optimise import DIGITS, Key, Point, compass_search, line_search
from ecom_rag.merging.validation import Validation, ValidationSet, measure
from ecom_rag.models import CrossEncoder, Encoder

logger = logging.getLogger(__name__)
_LARGEST_SCALE = 1.5


def check_log(log: Path) -> None:
    """Raise ``UsageError`` if the name of a search's log is taken by something that no search wrote.

    Args:
        log: Kept from a killed search, whose measurements are not made again; its first line says what was measured.
    """
    if not disk.anything_at(log):
        return
    first: Any = None
    if log.is_file() and not log.is_symlink():
        with log.open("rb") as handle, contextlib.suppress(ValueError):
            first = records.loads(handle.readline())
    if not isinstance(first, dict) or set(first) != {"models", "base", "sets"}:
        raise UsageError(
            f"{log}: is no log of a search, and the search needs that name; move it away, or name another output"
        )


class BudgetSpent(Exception):
    """The search may evaluate no more points: its normal end, not an error."""


@dataclass(slots=True)
class Found:
    """What a search found.

    Args:
        mix: The best.
        scores: Its nDCG@10 on each set.
        base: The base's.
        within: Whether it loses no more than allowed.
        evaluations: All points measured, in order, with their scores.
    """

    mix: Mix
    scores: dict[str, float]
    base: dict[str, float]
    within: bool
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def report(self, sets: Sequence[ValidationSet]) -> dict[str, Any]:
        """Plain values for ``merge_report.json``."""
        listed = [
            {
                "name": item.name,
                "weight": item.share,
                "max_loss": item.max_loss,
                "base": round(self.base[item.name], 6),
                "merged": round(self.scores[item.name], 6),
            }
            for item in sets
        ]
        return {"measure": "nDCG@10", "within": self.within, "sets": listed, "evaluations": self.evaluations}


def objective(sets: Sequence[ValidationSet], scores: Mapping[str, float], base: Mapping[str, float]) -> Key:
    """How good scores are: minus the excess over what may be lost, then the weighted mean."""
    excess = sum(
        max(0.0, base[item.name] - item.max_loss - scores[item.name] - 1e-9)
        for item in sets
        if item.max_loss is not None
    )
    total = sum(item.share for item in sets)
    return -excess, sum(item.share * scores[item.name] for item in sets) / total


def find_weights(
    models: Models,
    judged: Sequence[Validation],
    mix: Mix,
    *,
    blocks: int = 1,
    budget: int = 24,
    device: str = "auto",
    log: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Found:
    """Search the weights of a merge.

    Args:
        models: What is merged; the reference is what losses are measured against.
        judged: The validation sets.
        mix: Method, density and scale; its weights are used by ``ties`` alone, whose lambda is searched.
        blocks: With more than 1, each block of layers gets weights of its own, starting from the best common ones.
        budget: Merges evaluated at most, those of single models included.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        log: File that keeps the evaluations; a search that was interrupted goes on from it.
        progress: Called with 1 after each evaluation.

    Raises:
        UsageError: The method cannot be searched as asked.
    """
    _check_search(models, mix, blocks, budget)
    space = Space.of(mix, len(models))
    sets = [item.settings for item in judged]
    evaluator = _Evaluator(models, judged, device, log, progress)
    base = evaluator.as_it_is(models.reference)
    best: list[tuple[Key, Mix]] = []

    def evaluate(point: Point) -> Key:
        tried = space.mix(point)
        if tried is None:
            return -math.inf, -math.inf
        key = objective(sets, evaluator(tried), base)
        if not best or key > best[0][0]:
            best[:] = [(key, tried)]
        return key

    evaluator.limit = max(3, budget // 2) if blocks > 1 else budget
    with contextlib.suppress(BudgetSpent):
        _search_common(evaluate, space, evaluator.limit)
    if blocks > 1:
        evaluator.limit = budget
        with contextlib.suppress(BudgetSpent):
            compass_search(evaluate, space.point(best[0][1]) * blocks, step=0.2, smallest=0.05, upper=space.upper)
    key, chosen = best[0]
    return Found(chosen, evaluator(chosen), base, key[0] == 0, evaluator.done)


def _check_search(models: Models, mix: Mix, blocks: int, budget: int) -> None:
    if blocks > 1 and mix.method == "ties":
        raise UsageError("the lambda of ties is one for all layers; use `blocks` with another method")
    if not 1 <= blocks <= models.layers:
        raise UsageError(f"`blocks` is {blocks}; expected 1 to {models.layers}, the models' layers")
    if budget < 3:
        raise UsageError(f"`budget` is {budget}; expected at least 3 evaluations")


@dataclass(frozen=True, slots=True)
class Space:
    """What is searched: points with coordinates from 0 to ``upper``, as many for each block of layers."""

    like: Mix
    models: int
    coordinates: int
    upper: float = 1.0

    @classmethod
    def of(cls, mix: Mix, models: int) -> "Space":
        """The space of a method."""
        if mix.method == "ties":
            return cls(mix, models, 1, _LARGEST_SCALE)
        if mix.method == "task-arithmetic" or models > 2:
            return cls(mix, models, models)
        return cls(mix, models, 1)

    def mix(self, point: Point) -> Mix | None:
        """The mix at a point; ``None`` where it makes none."""
        rounded = [round(value, DIGITS) for value in point]
        if self.like.method == "ties":
            return Mix(self.like.weights, "ties", self.like.density, rounded[0])
        rows = []
        for start in range(0, len(rounded), self.coordinates):
            row = rounded[start : start + self.coordinates]
            if self.like.method != "task-arithmetic":
                row = [1 - row[0], row[0]] if self.coordinates == 1 else row
                if sum(row) <= 0:
                    return None
                row = [round(value / sum(row), DIGITS) for value in row]
            rows.append(tuple(row))
        if len(set(rows)) == 1:  # the same for all layers
            rows = rows[:1]
        return Mix(tuple(rows), self.like.method, self.like.density, self.like.scale)

    def point(self, mix: Mix) -> Point:
        """The point of a mix with one row of weights."""
        if mix.method == "ties":
            return (mix.scale,)
        return (mix.weights[0][1],) if self.coordinates == 1 else mix.weights[0]


def _search_common(evaluate: Callable[[Point], Key], space: Space, limit: int) -> None:
    if space.coordinates == 1:
        line_search(lambda value: evaluate((value,)), upper=space.upper, grid=min(6, limit))
        return
    corners = [tuple(float(i == j) for j in range(space.models)) for i in range(space.models)]
    random = np.random.default_rng(0).dirichlet(np.ones(space.models), size=max(1, limit // 6))
    starts: list[Point] = [*corners, (1 / space.models,) * space.models, *(tuple(row) for row in random.tolist())]
    if space.like.method == "task-arithmetic":
        starts.append((1.0,) * space.models)
    compass_search(evaluate, max(starts, key=evaluate), step=0.25, smallest=0.03, upper=space.upper)


class _Evaluator:
    """Merges, loads and measures; every mix once, and none again that the log holds."""

    def __init__(
        self,
        models: Models,
        judged: Sequence[Validation],
        device: str,
        log: Path | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.limit = 1
        self.done: list[dict[str, Any]] = []
        self._models, self._judged, self._device = models, judged, device
        self._log, self._progress = log, progress
        self._known: dict[str, dict[str, float]] = {}
        sets = [[item.settings.name, item.judged.digest] for item in judged]
        base = None if models.base is None else models.base.fingerprint
        settings = {"models": [model.fingerprint for model in models.opened], "base": base, "sets": sets}
        self._settings = json.dumps(settings, sort_keys=True)
        if log is not None:
            check_log(log)
            lines = log.read_text().splitlines() if log.exists() else []
            if lines and lines[0] == self._settings:
                whole = [json.loads(line) for line in lines[1:] if line.endswith("}}")]  # the last may be cut off
                self._known = {item["mix"]: item["scores"] for item in whole}
            elif len(lines) > 1:
                logger.warning(
                    "note: %d merges measured by an earlier search for other models or sets were discarded",
                    len(lines) - 1,
                )
            kept = [json.dumps({"mix": mix, "scores": scores}) for mix, scores in self._known.items()]
            log.write_text("\n".join([self._settings, *kept, ""]))

    def as_it_is(self, model: Opened) -> dict[str, float]:
        """Scores of a checkpoint as it is."""
        return self._remember(f"as it is: {model.fingerprint}", lambda: self._measure(model.folder))

    def __call__(self, mix: Mix) -> dict[str, float]:
        """Scores of a merge.

        Raises:
            BudgetSpent: It is not known yet, and enough has been evaluated.
        """
        name = json.dumps([mix.method, mix.weights, mix.density, mix.scale])
        if any(item["mix"] == name for item in self.done):
            return self._known[name]
        if len(self.done) >= self.limit:
            raise BudgetSpent
        alone = [i for i, weight in enumerate(mix.weights[0]) if weight == 1]
        if mix.method not in WITH_BASE and len(mix.weights) == 1 and alone:
            scores = self._known[name] = self.as_it_is(self._models.opened[alone[0]])
        else:
            scores = self._remember(name, lambda: self._merged(mix))
        self.done.append({"mix": name, "scores": {key: round(value, 6) for key, value in scores.items()}})
        if self._progress is not None:
            self._progress(1)
        return scores

    def _remember(self, name: str, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
        if name not in self._known:
            self._known[name] = compute()
            if self._log is not None:
                with self._log.open("a") as handle:
                    handle.write(json.dumps({"mix": name, "scores": self._known[name]}) + "\n")
        return self._known[name]

    def _merged(self, mix: Mix) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="ecom-rag-merge-") as folder:
            # The folder's name may tell the family, and so pooling and instructions.
            target = Path(folder) / self._models.reference.folder.name
            self._models.write(str(target), mix)
            return self._measure(target)

    def _measure(self, folder: Path) -> dict[str, float]:
        kind: Any = CrossEncoder if self._models.reference.is_reranker else Encoder
        model = kind.from_pretrained(str(folder), runtime="torch", device=self._device)
        return {item.settings.name: measure(item, model) for item in self._judged}
