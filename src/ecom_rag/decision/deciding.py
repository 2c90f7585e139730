"""A policy at the end of a file job: decisions in the order of the file, with the flood guard over all of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecom_rag.arguments import PathLike, path_or_none, whole
from ecom_rag.decision.decide import Decider
from ecom_rag.decision.flood_file import FloodFile
from ecom_rag.decision.floods import FloodGuard, admit_decided
from ecom_rag.decision.policy import Policy
from ecom_rag.errors import PolicyError, RecordError, UsageError
from ecom_rag.files import digest
from ecom_rag.files.identity import required_label
from ecom_rag.files.records import Record
from ecom_rag.pipeline.provenance import Provenance

_BATCH = 1000  # first texts of an input, by which the same input is recognised
_REPLAYED = 4096  # written decisions that are replayed at a time


class Deciding:
    """A policy at the end of a file job.

    Args:
        policy: Of ``load_policy``.
        strict: Refuse results of seeds that have changed since the policy was calibrated.
        id_key: Metadata key of the seeds' ids.
        campaigns: File that remembers the campaigns from one batch to the next, see ``FloodFile``; by default none.
        flood_limit: Automatic decisions in one campaign before a person must look.
        reviewed: Records with the labels that people gave, under the label key of the policy: their campaigns are
            decided again where the decision is that label.

    Attributes:
        settings: What decides the bytes that it adds.
        notes: What a user should know, one line each.

    Raises:
        UsageError: An argument out of range.
        RecordError: A reviewed record without a label.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        strict: bool = False,
        id_key: str = "id",
        campaigns: PathLike | None = None,
        flood_limit: int = 10,
        reviewed: Sequence[Record] = (),
    ) -> None:
        self.policy = policy
        self.notes: list[str] = []
        self._strict, self._id_key = strict, id_key
        self._campaigns = path_or_none(campaigns, "campaigns")
        self._limit = whole(flood_limit, "flood_limit")
        self._reviewed = [_looked(number, one, policy) for number, one in enumerate(reviewed, 1)]
        self.settings: Mapping[str, Any] = {
            "policy": policy.fingerprint,
            "strict": strict,
            "seed ids": id_key,
            "campaigns": self._campaigns,
            "flood limit": flood_limit,
            "reviewed": digest.of_texts([part for look in self._reviewed for part in look]),
        }
        self._decider = Decider(policy, id_key=id_key)
        self._cache: Path | None = None
        self._file: FloodFile | None = None
        self._guard: FloodGuard | None = None

    def begin(self, made: Provenance, cache: Path | None) -> None:
        """Check how the results are made.

        Args:
            made: How they are.
            cache: Folder that lives as long as an unfinished run; ``None`` for a stream.

        Raises:
            PolicyError: They are not comparable with what the policy was calibrated on, or the seeds have changed and
                ``strict`` was asked for.
        """
        self._cache = cache
        void = self.policy.fits(made)
        if void is None:
            return
        if self._strict:
            raise PolicyError(f"the promises of the policy are void: {void}; calibrate again")
        self.notes.append(
            f"the promises of the policy are void: {void}; every decision says so until you calibrate again"
        )
        self._decider = Decider(self.policy, id_key=self._id_key, void=void)

    def begin_file(self, results: str, made: Provenance | None, cache: Path | None) -> None:
        """As ``begin``, for results of a file.

        Args:
            results: Its path.
            made: How they were made; ``None`` where nothing says it.
            cache: As there.

        Raises:
            PolicyError: As ``begin``, or nothing says it and ``strict`` was asked for.
        """
        self._cache = cache
        if made is not None:
            self.begin(made, cache)
        elif self._strict:
            raise PolicyError(f"{results}: nothing says how it was recalled; recall again, or decide without `strict`")
        else:
            self.notes.append(
                f"{results}: nothing says by which encoder and from which seeds it was recalled; that was not checked"
            )

    def block(self, results: list[Record]) -> tuple[list[Record], Mapping[str, int]]:
        """Decide a block of results.

        Args:
            results: Checked ones; blocks come in the order of the input.
        """
        decided = self._decider.decide_checked(results)
        self._admit(decided)
        counts: Counter[str] = Counter()
        for one in decided:
            counts[one["decision"]["action"]] += 1
            if one["decision"]["reason"]:
                counts[f"review: {one['decision']['reason']}"] += 1
        return decided, counts

    def replay(self, written: Iterator[Record]) -> None:
        """Let the guard see what an interrupted run has decided.

        Args:
            written: Its decided records.
        """
        part: list[Record] = []
        for one in written:
            part.append(one)
            if len(part) == _REPLAYED:
                self._admit(part)
                part = []
        self._admit(part)

    def end(self) -> list[str]:
        """Keep the campaigns; notes for the user."""
        if self._file is not None and self._guard is not None:
            try:
                self._file.commit(self._guard)
            except (UsageError, OSError) as error:
                self.notes.append(f"the campaigns of this run were not kept ({error}); the next run does not know them")
        return self.notes

    def close(self) -> None:
        """Let go of the file of campaigns, be the run complete or not."""
        if self._file is not None:
            self._file.close()

    def _admit(self, decided: list[Record]) -> None:
        """Name the campaign of each decision, and send those of a flood to review."""
        if not decided:
            return
        admit_decided(self._guard or self._started([one["text"] for one in decided]), decided)

    def _started(self, texts: Sequence[str]) -> FloodGuard:
        """The guard, with what earlier batches left; the first texts tell whether this one was there before."""
        if self._campaigns is None:
            guard = FloodGuard(limit=self._limit)
        else:
            batch = digest.of_texts([self.policy.fingerprint, *texts[:_BATCH]])
            self._file = FloodFile(self._campaigns, batch=batch, cache=self._cache)
            guard = self._file.guard(limit=self._limit)
        if self._reviewed:
            guard.looked([text for text, _ in self._reviewed], [label for _, label in self._reviewed])
        self._guard = guard
        return guard


def _looked(number: int, record: Record, policy: Policy) -> tuple[str, str]:
    """Text and label of a record that a person has seen.

    Raises:
        RecordError: It has no label.
    """
    try:
        return record["text"], required_label(record["metadata"], policy.evidence.label_key, "a reviewed record")
    except ValueError as error:
        raise RecordError(f"reviewed record {number}", str(error)) from None
