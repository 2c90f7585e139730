"""Search a BEIR folder and evaluate what is found, all in memory: ``ecom-rag evaluate --beir DIR --routes ...``."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.files import judged_study
from ecom_rag.evaluation.runs import NamedRun, run_of_results
from ecom_rag.evaluation.significance import RESAMPLES
from ecom_rag.evaluation.study import Study
from ecom_rag.files import jobs
from ecom_rag.files.formats import Qrels, read_beir
from ecom_rag.files.identity import known_id
from ecom_rag.files.progress import Progress, stage
from ecom_rag.files.records import Record
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.pipeline import Pipeline, Recall, Seeds
from ecom_rag.pipeline.files import BLOCK_CHARS, encode_seeds
from ecom_rag.seeds.memory import check_routes

_BLOCK_RECORDS = 4096


def evaluate_search(
    beir: str,
    settings: Recall,
    *,
    split: str = "test",
    load_encoder: Callable[[], Encoder] | None = None,
    load_cross_encoder: Callable[[], CrossEncoder] | None = None,
    measures: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    described: str | None = None,
    progress: Progress | None = None,
) -> tuple[Study, list[NamedRun], Qrels]:
    """Recall over a BEIR folder, evaluated against its judgements.

    Args:
        beir: The folder.
        settings: See ``Recall``.
        split: Of the folder.
        load_encoder: Gives the encoder, where a route needs one.
        load_cross_encoder: Gives the reranker, where there is to be one.
        measures: Names; see ``study_retrieval``.
        resamples: Of bootstrap and randomisation.
        seed: Of both.
        described: What was searched with, for the study's settings; by default the routes.
        progress: See ``Progress``.

    Returns:
        The study, the run and the judgements.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    folder = read_beir(beir, split)
    seeds = list(folder.documents())
    if not seeds:
        raise UsageError(f"{folder.corpus}: holds no documents; expected at least one to search")
    settings = replace(settings, routes=settings.routes_of_file(encoder=load_encoder is not None)).check()
    settings.check_use(settings.routes, reranker=load_cross_encoder is not None)
    encoder = load_encoder() if load_encoder else None
    cross_encoder = load_cross_encoder() if load_cross_encoder else None
    outputs = check_routes(settings.routes, encoder)
    embeddings = encode_seeds(encoder, seeds, outputs, None, progress) if encoder and outputs else None
    searched = Seeds(seeds, routes=settings.routes, encoder=encoder, embeddings=embeddings)
    pipeline = Pipeline(searched, settings, encoder=encoder, cross_encoder=cross_encoder)
    results = _recalled(pipeline, folder.queries, progress, depth=settings.depth if cross_encoder else 1)
    study, runs, qrels = judged_study(
        [run_of_results("recall", {result["metadata"]["id"]: result for result in results})],
        folder.qrels,
        folder=folder,
        exclude_self=settings.exclude_self,
        measures=measures,
        resamples=resamples,
        seed=seed,
        settings={"judgements": f"{beir} ({split})", "runs": described or ", ".join(settings.routes)},
    )
    if settings.exclude_self:
        study.runs[0].notes += _own_documents(folder.queries, seeds)
    return study, runs, qrels


def _recalled(pipeline: Pipeline, queries: list[Record], progress: Progress | None, *, depth: int) -> list[Record]:
    """The results of all queries, in blocks as recall over a file cuts them."""
    step = stage(progress, "recalling", len(queries))
    blocks = jobs.blocks_of(
        queries, max_records=_BLOCK_RECORDS, max_size=BLOCK_CHARS // depth, size=lambda query: len(query["text"])
    )
    return [result for block in blocks for result in pipeline.recall(block, progress=step)]


def _own_documents(queries: Iterable[Record], seeds: Iterable[Record]) -> list[str]:
    """A note where queries are seeds by their id, and so were left out of their own results."""
    own = {known_id(query["metadata"], "id") for query in queries} - {None}
    found = own.intersection(known_id(seed["metadata"], "id") for seed in seeds)
    note = f"{len(found)} queries are documents of the corpus themselves (by id); each is left out of its own results"
    return [note] if found else []
