"""A batch sampler over planned epochs: deterministic, resumable, disjoint over GPUs, reporting what it showed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ecom_rag.errors import UsageError
from ecom_rag.training.cells import Named
from ecom_rag.training.schedule import Cycles, Integers


@dataclass(frozen=True, slots=True)
class Shown:
    """What an epoch showed of one class or source: ``repeats`` = draws that showed a row again."""

    rows: int
    draws: int
    distinct: int
    repeats: int


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What an epoch showed the model.

    Args:
        epoch: Its number, from 0.
        batches: Global batches shown.
        planned: Global batches of the whole epoch.
        total: All rows together.
        classes: By class name; classes that were not drawn are there with 0.
        sources: By source name.
        most_shown: Draws of the row that was drawn most.
    """

    epoch: int
    batches: int
    planned: int
    total: Shown
    classes: dict[str, Shown]
    sources: dict[str, Shown]
    most_shown: int

    def as_dict(self, *, limit: int = 50) -> dict[str, Any]:
        """For JSON; of more than ``limit`` classes only the ``limit`` most drawn and a summary of all."""
        found = asdict(self)
        draws = np.array([shown.draws for shown in self.classes.values()])
        spread_of = {"least": int(draws.min()), "median": float(np.median(draws)), "most": int(draws.max())}
        found["draws_per_class"] = spread_of
        if len(self.classes) > limit:
            names = sorted(self.classes, key=lambda name: -self.classes[name].draws)[:limit]
            found["classes"] = {name: asdict(self.classes[name]) for name in names}
            found["classes_left_out"] = len(self.classes) - limit
        return found


class Batches:
    """A batch sampler over planned epochs; made by ``sampling.pk_batches`` and ``row_batches``.

    Iterating yields this rank's share of each batch of the current epoch, from ``position`` on, and then moves to the
    next epoch, whose rows ``plan`` takes from ``cycles``. ``state_dict`` is all that a resumed run needs; epochs before
    it are planned again, which takes what planning them took.

    Attributes:
        epoch: The current epoch, from 0.
        position: Global batches of it that were yielded.
        batches: Global batches of an epoch.
    """

    def __init__(
        self,
        cycles: Callable[[], Cycles],
        plan: Callable[[Cycles, np.random.Generator], Integers],
        classes: Named,
        sources: Named,
        *,
        batches: int,
        seed: int,
        rank: int | None,
        world: int,
    ) -> None:
        if world < 1 or (rank is not None and not 0 <= rank < world):
            raise UsageError(f"rank {rank} of {world} processes makes no sense; expected 0 to {world - 1}")
        self.epoch = 0
        self.position = 0
        self._cycles, self._plan_next = cycles, plan
        self._classes, self._sources = classes, sources
        self.batches, self._seed, self._rank, self._world = batches, seed, rank, world
        self._texts = cycles()
        self._planned = -1
        self._plan: Integers = np.empty((0, 0), np.int64)
        self._shown = (0, 0)

    def __len__(self) -> int:
        """Lists that an epoch yields: batches, times the processes where ``rank`` is ``None``."""
        return self.batches * (self._world if self._rank is None else 1)

    def __iter__(self) -> Iterator[list[int]]:
        plan = self.plan(self.epoch)
        while self.position < len(plan):
            shares = np.split(plan[self.position], self._world)
            self.position += 1
            self._shown = (self.epoch, self.position)
            for share in shares if self._rank is None else [shares[self._rank]]:
                yield share.tolist()
        self.epoch += 1
        self.position = 0

    def plan(self, epoch: int) -> Integers:
        """``(batches, batch size)`` row numbers of an epoch, for all ranks."""
        if epoch < self._planned:
            self._texts, self._planned = self._cycles(), -1
        while self._planned < epoch:
            self._planned += 1
            self._plan = self._plan_next(self._texts, np.random.default_rng([self._seed, self._planned]))
        return self._plan

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; trainers call it."""
        self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where the sampler stands."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a ``state_dict``.

        Raises:
            UsageError: The position is beyond this sampler's epoch, so the state is another run's.
        """
        if not 0 <= state["position"] <= self.batches or state["epoch"] < 0:
            raise UsageError(
                f"sampler state {state} does not fit an epoch of {self.batches} batches; resume with the"
                " data and the sampling settings that the run began with"
            )
        self.epoch, self.position = state["epoch"], state["position"]
        self._shown = (self.epoch, self.position)

    def report(self, epoch: int | None = None, *, batches: int | None = None) -> EpochReport:
        """What an epoch showed, all ranks together.

        Args:
            epoch: By default the one that was yielded last, as far as it was.
            batches: Of a given epoch: the first so many batches; by default all.
        """
        number, shown = self._shown if epoch is None else (epoch, self.batches if batches is None else batches)
        rows = self.plan(number)[:shown].ravel()
        draws = np.bincount(rows, minlength=len(self._classes.of_row))
        return EpochReport(
            epoch=number,
            batches=shown,
            planned=self.batches,
            total=_shown(draws),
            classes=_shown_by(draws, *self._classes),
            sources=_shown_by(draws, *self._sources),
            most_shown=int(draws.max(initial=0)),
        )


def _shown(draws: Integers) -> Shown:
    distinct = int((draws > 0).sum())
    return Shown(rows=len(draws), draws=int(draws.sum()), distinct=distinct, repeats=int(draws.sum()) - distinct)


def _shown_by(draws: Integers, numbers: Integers, names: Sequence[str]) -> dict[str, Shown]:
    counts = [np.bincount(numbers, weights=weight, minlength=len(names)) for weight in (draws >= 0, draws, draws > 0)]
    return {
        name: Shown(int(rows), int(drawn), int(distinct), int(drawn - distinct))
        for name, rows, drawn, distinct in zip(names, *counts, strict=True)
    }
