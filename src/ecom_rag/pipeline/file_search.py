"""A search of files, made ready: here, or in another process that is told what this one found."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ecom_rag._version import __version__
from ecom_rag.arguments import PathLike
from ecom_rag.errors import BankError, DistributionError, UsageError
from ecom_rag.files.identity import known_id
from ecom_rag.files.jobs import Block, Done, Process, Workers
from ecom_rag.files.progress import Progress
from ecom_rag.files.records import Record
from ecom_rag.models.spec import AnyCrossEncoder, AnyEncoder, check_named, cross_encoder_of, gpus_of, settled
from ecom_rag.pipeline.places import Asked, OfBank, OfFile, Place
from ecom_rag.pipeline.search import Pipeline
from ecom_rag.pipeline.settings import Recall
from ecom_rag.retrieval.learned_fusion import LearnedFusion
from ecom_rag.retrieval.routes import outputs_of
from ecom_rag.seeds.source import check_routes
from ecom_rag.text.analysis import Analyzer


class Search:
    """A search of files with its models loaded.

    Args:
        asked: What is searched.

    Attributes:
        asked: The same.
        place: Where the seeds are.
        settings: With the routes that are searched.

    Raises:
        EcomRagError: Anything the user can mend.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.place: Place = (OfFile if asked.bank is None else OfBank)(asked)
        self.settings: Recall = replace(asked.settings, routes=self.place.routes).check()
        self.settings.check_use(self.place.routes, reranker=asked.reranker is not None)
        self._encoder = self.place.encoder() if outputs_of(self.place.routes) else None
        check_routes(self.place.routes, self._encoder)
        self._id_key = self.settings.id_key_of(self.place.id_key)
        self._cross_encoder = None if asked.reranker is None else cross_encoder_of(asked.reranker)
        self._fitted: LearnedFusion | None = None

    def decisive(self) -> dict[str, Any]:
        """Everything that decides the bytes of the results."""
        settings, asked = self.settings, self.asked
        fitted = settings.fitted()
        encoder, cross_encoder = self._encoder, self._cross_encoder
        return {
            "command": asked.command,
            "ecom_rag": __version__,
            "queries": asked.queries,
            "seeds": self.place.state,
            **asdict(settings),
            "fusion": settings.fusion if fitted is None else asdict(fitted),
            "model": encoder and [encoder.fingerprint, encoder.settings],
            "rerank": cross_encoder and [cross_encoder.fingerprint, cross_encoder.settings],
            "analyzer": asked.analyzer.fingerprint(),
            "on_bad_line": asked.on_bad_line,
        }

    def hold(self, workers: Workers) -> None:
        """Have the bank held in shards, where workers do that; before ``pipeline``."""
        if isinstance(self.place, OfBank):
            self.asked.shards = self.place.hold(workers)

    def pipeline(
        self, cache: Path | None = None, progress: Progress | None = None, *, fitted: LearnedFusion | None = None
    ) -> Pipeline:
        """The pipeline over the seeds.

        Args:
            cache: Folder in which embeddings of seeds may be kept.
            progress: Called as the seeds are encoded.
            fitted: Weights for the fusion ``auto`` that are known already.
        """
        source = self.place.source(self._encoder, cache, progress)
        made = Pipeline(source, self.settings, encoder=self._encoder, cross_encoder=self._cross_encoder, fitted=fitted)
        self._fitted = made.fitted
        return made

    def process(self, pipeline: Pipeline, *, progress: Callable[[int], None] | None = None) -> Process:
        """What is done to a block.

        Args:
            pipeline: Of this search.
            progress: As of ``Pipeline.recall``.
        """
        return lambda block: counted(pipeline.recall(block, progress=progress), self._id_key)

    def work(self) -> "SearchWork":
        """The same search for another process, with all settled that this one has; after ``pipeline``."""
        asked = replace(
            self.asked,
            model=None if self._encoder is None else settled(self.asked.model, self._encoder),
            reranker=None if self._cross_encoder is None else settled(self.asked.reranker, self._cross_encoder),
        )
        return SearchWork(asked, self._fitted, self.decisive(), gpus_of(self._encoder, self._cross_encoder))


@dataclass(frozen=True)
class SearchWork:
    """A search of a bank that another process makes ready; see ``jobs.Work``.

    Args:
        asked: What is searched, with models by name.
        fitted: Weights of the routes, where they were fitted.
        expected: What decides the bytes of the results, as the process found it that sends this.
        gpus: GPUs that a process needs.
    """

    asked: Asked
    fitted: LearnedFusion | None
    expected: Mapping[str, Any]
    gpus: int

    def start(self) -> Process:
        """See ``jobs.Work.start``.

        Raises:
            DistributionError: The models or the bank are others here.
            EcomRagError: They cannot be loaded.
        """
        search = Search(self.asked)
        found = search.decisive()
        if different := [key for key, value in self.expected.items() if found[key] != value]:
            key = different[0]
            raise DistributionError(f"{key} is {found[key]} instead of {self.expected[key]}"[:500])
        pipeline = search.pipeline(fitted=self.fitted)
        process, sequence = search.process(pipeline), self.expected["seeds"]["sequence"]

        def pinned(block: Block) -> Done:
            done = process(block)
            with pipeline.view() as view:
                if view.sequence != sequence:
                    raise BankError(
                        f"{self.asked.bank}: has changed since the run began (sequence {sequence}, now"
                        f" {view.sequence}); run again, without `resume`"
                    )
            return done

        return pinned


def recall_work(
    settings: Recall,
    *,
    bank: PathLike,
    model: AnyEncoder | None = None,
    reranker: AnyCrossEncoder | None = None,
) -> SearchWork:
    """A recall over a bank for other processes, e.g. those of Spark; ``distribution.arrow`` says how.

    Args:
        settings: What to search and how.
        bank: Folder or address of the bank, the same in those processes.
        model: The encoder by name, where the bank's has moved, or with its runtime and precision as a ``ModelSpec``.
        reranker: The reranker by name; by default none.

    Raises:
        UsageError: A loaded model in place of a name, or settings that make no sense.
        EcomRagError: The bank or a model cannot be loaded.
    """
    asked = Asked("recall", "-", "-", settings, None, bank, model, reranker, Analyzer(), "fail")
    check_sendable(asked)
    search = Search(asked)
    search.pipeline()
    return search.work()


def check_sendable(asked: Asked) -> None:
    """Raise ``UsageError`` unless another process can make a search ready."""
    if asked.bank is None:
        raise UsageError("workers search a bank, which each of them opens; build one of the seeds and give `bank`")
    check_named(asked.model, "model")
    check_named(asked.reranker, "reranker")


def counted(results: list[Record], id_key: str) -> tuple[list[Record], Counter[str]]:
    """Results, and how many have a seed, a seed of their own id, and of these one whose text is another."""
    counts: Counter[str] = Counter()
    for result in results:
        counts["found"] += bool(result["topk_seed"])
        name = known_id(result["metadata"], id_key)
        found = zip(result["topk_seed"], result["topk_metadata"], strict=True)
        texts = [text for text, metadata in found if name is not None and known_id(metadata, id_key) == name]
        counts["own"] += bool(texts)
        counts["own, other text"] += bool(texts) and result["text"] not in texts
    return results, counts
