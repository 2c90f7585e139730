"""Scan: which stored listings new seeds hit, without recalling all of them again.

A seed hits a listing where recall of the listing has it among its results. To find these, each new seed is searched
among the stored listings, as deep as asked for; what it finds there is recalled against the bank, and that decides. A
listing is recalled once, however many seeds lead to it.
"""

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike, path_of, path_or_none, whole
from ecom_rag.decision.deciding import Deciding
from ecom_rag.errors import BankError, UsageError
from ecom_rag.files import digest, jobs, records
from ecom_rag.files.identity import id_of, known_id
from ecom_rag.files.jobs import Cut, Job, Process, Summary
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.models.spec import ModelSpec
from ecom_rag.pipeline import Pipeline, Recall
from ecom_rag.pipeline.provenance import recall_of
from ecom_rag.seeds.bank import SeedBank, snapshot

DEPTH = 500  # listings per seed and route: nine in ten of those that a seed hits, see benchmarks.md
_SEEDS = 16  # new seeds per block
_FORWARD = 1024  # listings recalled at a time


def scan_file(
    seeds: PathLike,
    output: PathLike,
    *,
    listings: PathLike,
    bank: PathLike,
    model: ModelSpec | None = None,
    deciding: Deciding | None = None,
    depth: int = DEPTH,
    top_k: int = 10,
    resume: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Find the stored listings that new seeds hit.

    Args:
        seeds: Path of the new seeds; those that the bank does not hold are added to a copy of it, and the bank stays as
            it is.
        output: Path of the listings that are hit, or ``-``: results of recall with ``hits``.
        listings: Folder of a bank of listings.
        bank: Folder of the bank of seeds.
        model: Where the encoder lies and how it runs; by default as the bank was built.
        deciding: A policy to decide the listings by; recall is then as it was calibrated.
        depth: Listings that each route offers per new seed.
        top_k: Results per listing, without a policy.
        resume: Continue an interrupted run of the same settings.
        progress: Called with the stage, how much more is done, and the total where it is known.

    Returns:
        What was done; ``counts`` has the listings recalled and hit, and the hits.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    started = time.monotonic()
    seeds, output = path_of(seeds, "seeds"), path_of(output, "output")
    whole(depth, "depth")
    jobs.check_files(seeds, None, output, on_bad_line="fail", top_k=top_k)
    new = list(records.read(seeds))
    with contextlib.ExitStack() as stack:
        stored = stack.enter_context(SeedBank.open(path_of(listings, "listings")))
        judged = stack.enter_context(SeedBank.open(path_of(bank, "bank")))
        _use_model(judged, stored, model)
        settings = Recall(top_k=top_k) if deciding is None else recall_of(deciding.policy.evidence)
        scanner = Scanner(stored, judged, new, settings, depth=depth, deciding=deciding)
        stack.callback(scanner.close)
        job = Job(
            output,
            {"command": "scan", "ecom_rag": __version__, "seeds": seeds, **scanner.decisive},
            read=lambda report: iter(new),
            start=lambda cache: scanner.start(cache, stage(progress, "scanning", len(new))),
            cut=Cut(max_records=_SEEDS),
            replay=scanner.replay,
        )
        summary = jobs.run(job, started=started, resume=resume)
    summary.notes += scanner.notes
    summary.seeds = len(new)
    return summary


class Scanner:
    """New seeds on their way through stored listings.

    Args:
        listings: The stored listings, open.
        bank: The bank of seeds, open.
        seeds: The new ones.
        settings: Recall of a listing.
        depth: Listings that each route offers per new seed.
        deciding: A policy, or ``None``.

    Attributes:
        notes: What a user should know, one line each.
        decisive: What decides the bytes of the hits.

    Raises:
        UsageError: A new seed without an id, or no route in common.
    """

    def __init__(
        self,
        listings: SeedBank,
        bank: SeedBank,
        seeds: list[Record],
        settings: Recall,
        *,
        depth: int = DEPTH,
        deciding: Deciding | None = None,
    ) -> None:
        self.notes: list[str] = []
        self._listings, self._bank, self._settings, self._deciding = listings, bank, settings, deciding
        self._ids = {_id(number, seed, bank.id_key) for number, seed in enumerate(seeds, 1)}
        self._new = seeds
        common = tuple(route for route in settings.routes or bank.routes if route in listings.routes)
        if not common:
            raise UsageError(
                f"the listings are searched by {', '.join(listings.routes)}, the bank by {', '.join(bank.routes)};"
                " build the listings with one of the bank's routes"
            )
        reverse = Recall(routes=common, depth=depth, top_k=depth, fusion="rrf" if len(common) > 1 else None)
        self._reverse = Pipeline(listings, reverse)
        self._sequence = listings.sequence
        self.decisive: Mapping[str, Any] = {
            "new": digest.of_records(seeds),
            "listings": [str(listings.path), listings.sequence],
            "bank": [str(bank.path), bank.sequence],
            "recall": [repr(settings), depth],
            **({} if deciding is None else deciding.settings),
        }
        self._done: set[int] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self, cache: Path | None, step: Callable[[int], None]) -> Process:
        """What is done to each block of new seeds.

        Args:
            cache: Folder that lives as long as an unfinished run; ``None`` for a stream.
            step: Called with the number of seeds that are done.
        """
        self._forward = Pipeline(self._with_new(cache), self._settings)
        if self._deciding is not None:
            with self._forward.view() as view:
                self._deciding.begin(self._forward.provenance(view), cache)

        def process(block: list[Record]) -> tuple[list[Record], Mapping[str, int]]:
            found = self.block(block)
            step(len(block))
            return found

        return process

    def block(self, seeds: list[Record]) -> tuple[list[Record], Mapping[str, int]]:
        """The listings that some of the new seeds lead to and any of them hits, and how many were recalled.

        Args:
            seeds: Some of the new ones.

        Raises:
            BankError: The stored listings have changed since the scan began.
        """
        hit, counts = [], Counter[str]()
        for part in self._candidates(seeds):
            results = self._forward.recall(part)
            found = [{**one, "hits": hits} for one in results if (hits := self._hits(one))]
            counts.update({"recalled": len(part), "hit": len(found), "hits": sum(len(one["hits"]) for one in found)})
            if self._deciding is not None and found:
                found, more = self._deciding.block(found)
                counts.update(more)
            hit += found
        return hit, counts

    def replay(self, written: Iterator[Record]) -> None:
        """See ``After.replay``: listings that were hit are not written twice."""
        seen = list(written)
        if self._deciding is not None:
            self._deciding.replay(iter(seen))
        names = {known_id(one["metadata"], self._listings.id_key) for one in seen}
        with self._reverse.view() as view:
            rows = view.own_rows(
                [{"text": "", "metadata": {self._listings.id_key: name}} for name in names], self._listings.id_key
            )
        self._done.update(row for own in rows for row in own.tolist())

    def close(self) -> None:
        """Remove the copy of the bank, where one was made."""
        if self._deciding is not None:
            self.notes += self._deciding.end()
            self._deciding.close()
        if self._folder is not None:
            self._copy.close()
            self._folder.cleanup()

    def _candidates(self, seeds: list[Record]) -> Iterator[list[Record]]:
        asked = self._reverse.asked([seed["text"] for seed in seeds])
        with self._reverse.view() as view:
            if view.sequence != self._sequence:
                raise BankError("the stored listings have changed since the scan began; scan again")
            found = self._reverse.search(view, asked)
            rows = np.unique(np.concatenate([ranking.rows.ravel() for ranking in found.values()]))
            fresh = [row for row in rows[rows >= 0].tolist() if row not in self._done]
            parts = [view.records(fresh[start : start + _FORWARD]) for start in range(0, len(fresh), _FORWARD)]
        self._done.update(fresh)
        yield from parts

    def _hits(self, result: Record) -> list[dict[str, Any]]:
        """The new seeds among the results of a listing."""
        key, found = self._bank.id_key, zip(result["topk_metadata"], result["topk_sim"], strict=True)
        names = ((known_id(metadata, key), score) for metadata, score in found)
        return [
            {"seed": name, "rank": rank, "score": score}
            for rank, (name, score) in enumerate(names, 1)
            if name in self._ids
        ]

    def _with_new(self, cache: Path | None) -> SeedBank:
        """The bank with the new seeds: itself where it holds them, else a copy."""
        key = self._bank.id_key
        held = self._bank.get([id_of(seed["metadata"], key) for seed in self._new])
        missing = [seed for seed, own in zip(self._new, held, strict=True) if not _same(seed, own)]
        if not missing:
            return self._bank
        self._folder = tempfile.TemporaryDirectory(prefix="scan-", dir=cache)
        place = Path(self._folder.name) / "bank"
        snapshot(self._bank, place)
        encoder = self._bank.encoder if self._bank.model is not None else None
        self._copy = SeedBank.open(place, encoder=encoder)
        self._copy.upsert(missing)
        self.notes.append(
            f"the bank does not hold {len(missing)} of the {len(self._new)} seeds: the hits are those that it would"
            " have with them; the bank itself is as it was"
        )
        return self._copy


def _use_model(bank: SeedBank, listings: SeedBank, given: ModelSpec | None) -> None:
    """Load the encoder of the bank, for both."""
    if bank.model is None:
        return
    asked = given or ModelSpec(None, {})
    bank.use(bank.model.load(path=path_or_none(asked.model, "model"), **asked.options))
    if listings.model is not None:
        listings.use(bank.encoder)


def _id(number: int, seed: Record, key: str) -> str:
    try:
        name = id_of(seed["metadata"], key)
    except ValueError as error:
        raise UsageError(f"seed {number}: {error}") from None
    if name is None:
        raise UsageError(f"seed {number} has no id under the metadata key {key!r}, by which the bank keeps its seeds")
    return name


def _same(seed: Record, own: Record | None) -> bool:
    return own is not None and own["text"] == seed["text"] and own["metadata"] == seed["metadata"]
