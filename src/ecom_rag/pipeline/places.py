"""Where a search of files finds its seeds, a file or a bank, and what is known of them before a model loads."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ecom_rag.arguments import PathLike, path_of, path_or_none
from ecom_rag.errors import UsageError
from ecom_rag.files import digest, jobs, records
from ecom_rag.files.identity import known_id
from ecom_rag.files.jobs import Workers
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import ReadReport, Record
from ecom_rag.models import Encoder
from ecom_rag.models.kept import encode_kept
from ecom_rag.models.spec import (
    AnyCrossEncoder,
    AnyEncoder,
    ModelSpec,
    check_cross_encoder,
    check_encoder,
    encoder_of,
)
from ecom_rag.pipeline.settings import Recall
from ecom_rag.retrieval.routes import outputs_of
from ecom_rag.seeds.address import place_of
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.seeds.memory import Seeds
from ecom_rag.seeds.opening import open_bank
from ecom_rag.seeds.sharded.bank import ShardedBank, shards_of
from ecom_rag.seeds.sharded.indexes import Shards
from ecom_rag.seeds.source import SeedSource, check_built
from ecom_rag.text.analysis import Analyzer
from ecom_rag.text.normalization import canonical


@dataclass
class Asked:
    """A search of files as it was asked for."""

    command: str
    queries: PathLike
    output: PathLike
    settings: Recall
    seeds: PathLike | None
    bank: PathLike | None
    model: AnyEncoder | None
    reranker: AnyCrossEncoder | None
    analyzer: Analyzer
    on_bad_line: str
    shards: Shards | None = None  # of the bank, where others hold it in shards

    def __post_init__(self) -> None:
        self.queries, self.output = path_of(self.queries, "queries"), path_of(self.output, "output")
        self.seeds, self.bank = path_or_none(self.seeds, "seeds"), path_or_none(self.bank, "bank")
        if self.model is not None:
            check_encoder(self.model)
        if self.reranker is not None:
            check_cross_encoder(self.reranker)
        if (self.seeds is None) == (self.bank is None):
            raise UsageError("one place to search is needed; give `seeds` or `bank`")
        jobs.check_files(self.queries, self.seeds, self.output, on_bad_line=self.on_bad_line, top_k=self.settings.top_k)


class Place(Protocol):
    """Where seeds are searched, before a model is loaded."""

    routes: tuple[str, ...]
    id_key: str | None
    state: Any  # what tells these seeds from others
    count: int
    report: ReadReport

    def encoder(self) -> Encoder | None:
        """The loaded encoder."""

    def source(self, encoder: Encoder | None, cache: Path | None, progress: Progress | None) -> SeedSource:
        """The seeds, ready to be searched."""

    def notes(self) -> list[str]:
        """What a user should know of the seeds."""


class OfBank:
    """Seeds of a bank, which is open from here on."""

    def __init__(self, asked: Asked) -> None:
        self._model, self._shards = asked.model, asked.shards
        self._bank = open_bank(str(asked.bank))
        self.routes = asked.settings.routes or self._bank.routes
        check_built(self.routes, self._bank.routes)
        self.id_key: str | None = self._bank.id_key
        self.state: Any = {"bank": place_of(str(asked.bank)), "sequence": self._bank.sequence}
        self.count = len(self._bank)
        self.report = ReadReport()

    def encoder(self) -> Encoder | None:
        """See ``Place.encoder``."""
        own, given = self._bank.model, self._model
        if own is None:
            return None
        if isinstance(given, ModelSpec):
            given = own.load(path=path_or_none(given.model, "model"), **given.options)
        self._bank.use(own.load() if given is None else encoder_of(given))
        return self._bank.encoder

    def hold(self, workers: Workers) -> Shards | None:
        """Have the bank held in shards, where workers do that; before ``source``."""
        if workers.shards is not None:
            self._shards = shards_of(self._bank, self.routes, workers.shards, workers.hold)
        return self._shards

    def source(self, encoder: Encoder | None, cache: Path | None, progress: Progress | None) -> SeedSource:
        """See ``Place.source``."""
        if self._shards is None:
            return self._bank
        assert isinstance(self._bank, SeedBank)  # or it would have no shards
        return ShardedBank(self._bank, self._shards)

    def notes(self) -> list[str]:
        """See ``Place.notes``."""
        return []


class OfFile:
    """Seeds of a file, read at once."""

    def __init__(self, asked: Asked) -> None:
        self.id_key: str | None = None
        self._asked = asked
        self.report = ReadReport()
        self._seeds = list(records.read(str(asked.seeds), on_bad_line=asked.on_bad_line, report=self.report))
        if not self._seeds:
            raise UsageError(f"{asked.seeds}: holds no seeds; expected at least one record to search")
        self.routes = asked.settings.routes_of_file(encoder=asked.model is not None)
        self.state: Any = digest.of_records(self._seeds)
        self.count = len(self._seeds)

    def encoder(self) -> Encoder | None:
        """See ``Place.encoder``."""
        return None if self._asked.model is None else encoder_of(self._asked.model)

    def source(self, encoder: Encoder | None, cache: Path | None, progress: Progress | None) -> SeedSource:
        """See ``Place.source``."""
        outputs, embeddings = outputs_of(self.routes), None
        if outputs and encoder is not None:
            texts = [seed["text"] for seed in self._seeds]
            embeddings = encode_kept(encoder, texts, outputs, cache, stage(progress, "encoding seeds", len(texts)))
        analyzer = self._asked.analyzer
        found = Seeds(self._seeds, routes=self.routes, encoder=encoder, embeddings=embeddings, analyzer=analyzer)
        by = encoder and (encoder.fingerprint, sorted(encoder.settings.items()))
        found.name = f"{self.state} {by} {analyzer.fingerprint()}"
        return found

    def notes(self) -> list[str]:
        """See ``Place.notes``."""
        return seed_notes(self._seeds, self._asked.settings.top_k)


def seed_notes(seeds: Sequence[Record], top_k: int) -> list[str]:
    """What a user should know of seeds: fewer than asked for, ids that occur twice, copies."""
    notes = []
    if top_k > len(seeds):
        notes.append(f"top-k {top_k} is more than the {len(seeds)} seeds; each record got at most {len(seeds)}")
    ids = Counter(name for seed in seeds if (name := known_id(seed["metadata"], "id")) is not None)
    double = [key for key, count in ids.items() if count > 1]
    if double:
        notes.append(
            f"{len(double)} seed ids occur more than once (e.g. {double[0]!r}); all of these seeds were searched"
        )
    copies = len(seeds) - len(set(canonical([seed["text"] for seed in seeds])))
    if copies:
        aside = "case, width, script, white space, invisible characters and final punctuation aside"
        notes.append(f"{copies} seeds are copies of others ({aside}); all were searched")
    return notes
