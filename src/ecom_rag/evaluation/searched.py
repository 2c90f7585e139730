"""A BEIR folder searched in memory: the run that ``ecom-rag evaluate --beir DIR --routes ...`` evaluates."""

from dataclasses import replace

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.runs import NamedRun
from ecom_rag.files.beir import read_beir
from ecom_rag.files.jobs import blocks_of
from ecom_rag.files.progress import Progress, stage
from ecom_rag.models.kept import encode_kept
from ecom_rag.models.spec import AnyCrossEncoder, AnyEncoder, cross_encoder_of, encoder_of
from ecom_rag.pipeline import Pipeline, Recall, Seeds
from ecom_rag.pipeline.settings import cut_of
from ecom_rag.seeds.source import check_routes


def search_beir(
    folder: str,
    split: str,
    settings: Recall,
    *,
    model: AnyEncoder | None = None,
    reranker: AnyCrossEncoder | None = None,
    progress: Progress | None = None,
) -> tuple[NamedRun, list[str]]:
    """What recall finds for the queries of a split in the corpus of its folder.

    Args:
        folder: See ``beir.read_beir``.
        split: Whose queries are asked.
        settings: See ``Recall``.
        model: The encoder, where a route needs one.
        reranker: Re-sorts the candidates, where there is to be one.
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
    settings = replace(settings, routes=settings.routes_of_file(encoder=model is not None)).check()
    settings.check_use(settings.routes, reranker=reranker is not None)
    encoder = None if model is None else encoder_of(model)
    cross_encoder = None if reranker is None else cross_encoder_of(reranker)
    outputs = check_routes(settings.routes, encoder)
    embeddings = None
    if encoder is not None and outputs:
        texts = [document["text"] for document in documents]
        embeddings = encode_kept(encoder, texts, outputs, None, stage(progress, "encoding seeds", len(texts)))
    seeds = Seeds(documents, routes=settings.routes, encoder=encoder, embeddings=embeddings)
    pipeline = Pipeline(seeds, settings, encoder=encoder, cross_encoder=cross_encoder)
    step = stage(progress, "recalling", len(beir.queries))
    found = {}
    for block in blocks_of(beir.queries, cut_of(settings, reranked=cross_encoder is not None)):
        found.update({result["metadata"]["id"]: result for result in pipeline.recall(block, progress=step)})
    own = len(found.keys() & {document["metadata"]["id"] for document in documents}) if settings.exclude_self else 0
    note = f"{own} queries are documents of the corpus themselves (by id); each is left out of its own results"
    run = {query: [metadata["id"] for metadata in result["topk_metadata"]] for query, result in found.items()}
    return NamedRun("recall", run, found), [note] if own else []
