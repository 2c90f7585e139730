"""Mining in memory: lists in, a list out; ``job`` is the same for files."""

from collections.abc import Iterable, Mapping

from ecom_rag import arguments
from ecom_rag.arguments import listed, one_of, text_of, whole
from ecom_rag.errors import UsageError
from ecom_rag.files import records
from ecom_rag.files.records import Record
from ecom_rag.mining.finders import ROUTES, EncodedFinder, LexicalFinder
from ecom_rag.mining.job import check_ranking
from ecom_rag.mining.pick import mine as mine_block
from ecom_rag.mining.rules import Rules
from ecom_rag.mining.sources import Queries, Source, read_corpus
from ecom_rag.mining.triples import cleaned_triples
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.values import type_name

_AT_ONCE = 1024  # queries


def mine(
    queries: Iterable[Record],
    corpus: Iterable[Record] | None = None,
    *,
    encoder: Encoder | None = None,
    route: str = "dense",
    rules: Rules | None = None,
    cross_encoder: CrossEncoder | None = None,
    label: str = "label",
    positives: int = 4,
) -> list[Record]:
    """Mine hard negatives in memory; see ``mine_file`` for files, and for results of a recall in place of a search.

    Args:
        queries: Any iterable of one kind: dicts with ``query`` and ``pos`` (a list of texts), or labelled records,
            whose positives are other texts of their label. Other keys of the former pass through.
        corpus: Records that negatives come from; by default all texts of ``queries``.
        encoder: Ranks the corpus; route ``bm25`` needs none.
        route: ``dense``, ``sparse``, ``multivector`` or ``bm25``.
        rules: How many negatives, of which ranks, which not; by default 7 of the ranks 10 to 100.
        cross_encoder: Reranker that finds false negatives, where ``rules`` say what it refuses.
        label: Key of the label in the metadata of records; ``a.b`` looks into objects.
        positives: Of labelled records, texts of the same label per query.

    Returns:
        FlagEmbedding's objects ``query``, ``pos``, ``neg`` in the order of ``queries``, with ``pos_scores`` and
        ``neg_scores`` (logits) where a reranker took part. Queries without a positive or without a negative are left
        out: compare the lengths.

    Raises:
        UsageError: An argument of the wrong kind, or nothing to mine from.
        RecordError: A query or record that does not fit; says which and why.
        ModelError: The encoder cannot give what the route needs.
    """
    rules = Rules() if rules is None else rules
    if not isinstance(rules, Rules):
        raise UsageError(f"rules is of type {type_name(rules)}; expected Rules(...)")
    arguments.model(encoder, "encoder", "check_outputs", "Encoder", optional=True)
    arguments.model(cross_encoder, "cross_encoder", "score", "CrossEncoder", optional=True)
    check_ranking(rules, None, one_of(route, "route", ROUTES), encoder, cross_encoder)
    source = _source(queries, text_of(label, "label"), whole(positives, "positives"), rules.seed)
    seeds = None if corpus is None else list(records.cleaned(corpus, "corpus record"))
    if not source.items:
        return []
    found = read_corpus(source, seeds)
    asked = list(Queries(source, found))
    if route == "bm25":
        ranking: EncodedFinder | LexicalFinder = LexicalFinder(found)
    else:
        assert encoder is not None
        ranking = EncodedFinder(encoder, encoder.encode(found.texts, outputs=(route,)), route)
    mined = []
    for start in range(0, len(asked), _AT_ONCE):
        mined += mine_block(asked[start : start + _AT_ONCE], found, ranking, rules, cross_encoder=cross_encoder)[0]
    return mined


def _source(queries: Iterable[Record], label: str, positives: int, seed: int) -> Source:
    given = listed(queries, "queries", "a list of queries with pos, or of labelled records")
    if given and isinstance(given[0], Mapping) and "query" in given[0]:
        return Source("", "triples", items=list(cleaned_triples(given)))
    items = list(records.cleaned(given, "query"))
    return Source("", "labelled", label=label, positives=positives, seed=seed, items=items)
