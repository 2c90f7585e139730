"""A BEIR folder searched in memory: the run that ``ecom-rag evaluate --beir DIR --routes ...`` evaluates."""

from collections.abc import Callable
from dataclasses import replace

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.runs import NamedRun
from ecom_rag.files import jobs
from ecom_rag.files.formats import read_beir
from ecom_rag.files.progress import Progress, stage
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.pipeline import Pipeline, Recall, Seeds
from ecom_rag.pipeline.files import BLOCK_CHARS, encode_seeds
from ecom_rag.seeds.memory import check_routes

_BLOCK_RECORDS = 4096


def search_beir(
    folder: str,
    split: str,
    settings: Recall,
    *,
    load_encoder: Callable[[], Encoder] | None = None,
    load_cross_encoder: Callable[[], CrossEncoder] | None = None,
    progress: Progress | None = None,
) -> tuple[NamedRun, list[str]]:
    """What recall finds for the queries of a split in the corpus of its folder.

    Args:
        folder: See ``formats.read_beir``.
        split: Whose queries are asked.
        settings: See ``Recall``.
        load_encoder: Gives the encoder, where a route needs one.
        load_cross_encoder: Gives the reranker, where there is to be one.
        progress: See ``Progress``.

    Returns:
        The run, and a note where queries are documents themselves and were left out of their own results.

    Raises:
        EcomRagError: Anything the user can mend.
    """
    beir = read_beir(folder, split)
    documents = list(beir.documents())
    if not documents:
        raise UsageError(f"{beir.corpus}: holds no documents; expected at least one to search")
    settings = replace(settings, routes=settings.routes_of_file(encoder=load_encoder is not None)).check()
    settings.check_use(settings.routes, reranker=load_cross_encoder is not None)
    encoder = load_encoder() if load_encoder else None
    cross_encoder = load_cross_encoder() if load_cross_encoder else None
    outputs = check_routes(settings.routes, encoder)
    embeddings = encode_seeds(encoder, documents, outputs, None, progress) if encoder and outputs else None
    seeds = Seeds(documents, routes=settings.routes, encoder=encoder, embeddings=embeddings)
    pipeline = Pipeline(seeds, settings, encoder=encoder, cross_encoder=cross_encoder)
    step = stage(progress, "recalling", len(beir.queries))
    chars = BLOCK_CHARS // settings.depth if cross_encoder else BLOCK_CHARS
    found = {}
    for block in jobs.blocks_of(
        beir.queries, max_records=_BLOCK_RECORDS, max_size=chars, size=lambda query: len(query["text"])
    ):
        found.update({result["metadata"]["id"]: result for result in pipeline.recall(block, progress=step)})
    own = len(found.keys() & {document["metadata"]["id"] for document in documents}) if settings.exclude_self else 0
    note = f"{own} queries are documents of the corpus themselves (by id); each is left out of its own results"
    run = {query: [metadata["id"] for metadata in result["topk_metadata"]] for query, result in found.items()}
    return NamedRun("recall", run, found), [note] if own else []
