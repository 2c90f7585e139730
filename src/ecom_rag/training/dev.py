"""Dev measures during training, one number each, higher is better; called by the trainer at every validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.labels import macro_f1, vote
from ecom_rag.evaluation.measures import cutoff, evaluate_run, parse_measures
from ecom_rag.files.beir import read_beir
from ecom_rag.files.records import Record
from ecom_rag.files.trec import Qrels
from ecom_rag.models.tokens import Tokenizer
from ecom_rag.retrieval import DenseIndex
from ecom_rag.retrieval.itself import search_others
from ecom_rag.text.normalization import canonical
from ecom_rag.training.collate import pair_inputs
from ecom_rag.training.data import Groups, Labelled, read_data
from ecom_rag.training.recipe import Recipe

_DEPTH = 100
_NEIGHBOURS = 10


class RetrievalDev:
    """A retrieval measure by exact search with the dense embeddings.

    Args:
        queries: The queries.
        documents: The corpus.
        relevant: For each query, row of each judged document and its grade.
        own: For each query the row of the document that is the query itself, which is never found; -1 for none, as is
            the default.
        measure: As ``ir_measures`` names it.
        batch_size: Texts encoded at once.
    """

    def __init__(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        relevant: Sequence[dict[int, int]],
        own: Sequence[int] | None = None,
        *,
        measure: str,
        batch_size: int,
    ) -> None:
        self.primary_metric = measure
        self.size = f"{len(queries)} queries, {len(documents)} documents"
        self._queries, self._documents, self._batch_size = list(queries), list(documents), batch_size
        self._qrels = {str(q): {str(d): grade for d, grade in judged.items()} for q, judged in enumerate(relevant)}
        self._own = [np.array([row] if row >= 0 else [], np.int64) for row in own or [-1] * len(queries)]

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """The measure, by its name."""
        documents = encode(model, self._documents, "document", self._batch_size)
        queries = encode(model, self._queries, "query", self._batch_size)
        depth = max(_DEPTH, cutoff(self.primary_metric) or len(documents))
        found = search_others(DenseIndex(documents), queries, min(depth, len(documents)), own=self._own)
        run = {str(q): [str(d) for d in row if d >= 0] for q, row in enumerate(found.rows.tolist())}
        return evaluate_run(run, self._qrels, [self.primary_metric]).means()


class LabelDev:
    """A measure over labels: each text asks for the other texts of its class, or its neighbours vote.

    ``MAP@R`` and ``R@1`` (Musgrave et al. 2020, arXiv:2003.08505; R@1 is their precision at 1) search the dev texts
    themselves and count texts whose class has another; ``macro_F1`` lets the 10 nearest training texts vote.

    Args:
        data: The dev texts.
        bank: The training texts, for ``macro_F1``.
        measure: One of the three.
        batch_size: Texts encoded at once.
    """

    MEASURES = ("MAP@R", "R@1", "macro_F1")

    def __init__(self, data: Labelled, bank: Labelled, *, measure: str, batch_size: int) -> None:
        self.primary_metric = measure
        self.size = f"{len(data)} labelled texts"
        self._data, self._bank, self._batch_size = data, bank, batch_size

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """The measure, by its name."""
        vectors = encode(model, self._data.texts, "query", self._batch_size)
        if self.primary_metric == "macro_F1":
            bank = encode(model, self._bank.texts, "document", self._batch_size)
            found = DenseIndex(bank).search(vectors, min(_NEIGHBOURS, len(bank)))
            neighbours = [[self._bank.labels[row] for row in ids if row >= 0] for ids in found.rows.tolist()]
            return {self.primary_metric: macro_f1(vote(self._data.labels, neighbours))}
        asked = vectors
        if model.prompts.get("query") != model.prompts.get("document"):
            vectors = encode(model, self._data.texts, "document", self._batch_size)
        return {self.primary_metric: same_class_figures(vectors, self._data.labels, asked)[self.primary_metric]}


class RerankDev:
    """A retrieval measure over each query's own pos and neg, in the reranker's order.

    Args:
        data: The dev queries.
        tokenizer: Of the checkpoint.
        measure: As ``ir_measures`` names it.
        batch_size: Pairs scored at once.
        max_length: Tokens of a pair.
    """

    def __init__(self, data: Groups, tokenizer: Tokenizer, *, measure: str, batch_size: int, max_length: int) -> None:
        self.primary_metric = measure
        self._tokenizer, self._batch_size, self._max_length = tokenizer, batch_size, max_length
        self._pairs = [(item.query, text) for item in data.items for text in item.positives + item.negatives]
        self._sizes = [len(item.positives) + len(item.negatives) for item in data.items]
        self._qrels = {str(q): {str(d): 1 for d in range(len(item.positives))} for q, item in enumerate(data.items)}
        self.size = f"{len(data)} queries, {len(self._pairs)} pairs"

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """The measure, by its name."""
        model.eval()
        order = np.argsort([len(query) + len(text) for query, text in self._pairs])
        scores = np.empty(len(self._pairs), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                rows = order[start : start + self._batch_size]
                queries, texts = zip(*(self._pairs[row] for row in rows), strict=True)
                inputs = pair_inputs(self._tokenizer, queries, texts, self._max_length)
                logits = model({key: value.to(model.device) for key, value in inputs.items()})["scores"]
                scores[rows] = logits.float().cpu().numpy()[:, 0]
        run, start = {}, 0
        for query, size in enumerate(self._sizes):
            # Positives come first in the data: ties go to the later row, or a constant model would look perfect.
            own = scores[start : start + size][::-1]
            run[str(query)] = [str(size - 1 - place) for place in np.argsort(-own, kind="stable")]
            start += size
        return evaluate_run(run, self._qrels, [self.primary_metric]).means()


class InBf16:
    """A dev measure computed in the precision that is trained in; on a CPU with AMX several times faster than fp32.

    Args:
        dev: The measure.
    """

    def __init__(self, dev: Any) -> None:
        self.primary_metric, self.size = dev.primary_metric, dev.size
        self._dev = dev

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The measure, by its name."""
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            found: dict[str, float] = self._dev(model)
        return found


def encode(model: Any, texts: Sequence[str], prompt: str, batch_size: int) -> NDArray[np.float32]:
    """``(texts, dim)`` float32 embeddings of length 1 by a ``SentenceTransformer`` in training."""
    found = model.encode(
        list(texts), prompt_name=prompt, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True
    )
    vectors = np.asarray(found, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def same_class_figures(
    vectors: NDArray[np.float32], labels: Sequence[str], queries: NDArray[np.float32] | None = None
) -> dict[str, float]:
    """MAP@R and R@1 of retrieving the other texts of one's class, over texts that have one.

    Args:
        vectors: ``(n, dim)`` of length 1.
        labels: Class of each.
        queries: ``(n, dim)`` of the same texts as queries, where that makes a difference.

    Returns:
        ``MAP@R`` and ``R@1``, 0..1; 0 where no class has two texts.
    """
    _, numbers, counts = np.unique(np.array(labels), return_inverse=True, return_counts=True)
    asking = np.flatnonzero(counts[numbers] > 1)
    if len(asking) == 0:
        return {"MAP@R": 0.0, "R@1": 0.0}
    depth = int(counts.max()) - 1
    precision, first = np.empty(len(asking)), np.empty(len(asking))
    for start in range(0, len(asking), 512):
        rows = asking[start : start + 512]
        similarities = (vectors if queries is None else queries)[rows] @ vectors.T
        similarities[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :depth]
        hits = numbers[nearest] == numbers[rows][:, None]  # (rows, depth)
        wanted = counts[numbers[rows]] - 1
        ranks = np.arange(1, depth + 1)
        counted = hits & (ranks[None, :] <= wanted[:, None])
        precision[start : start + 512] = (counted * np.cumsum(hits, axis=1) / ranks).sum(axis=1) / wanted
        first[start : start + 512] = hits[:, 0]
    return {"MAP@R": float(precision.mean()), "R@1": float(first.mean())}


def make_dev(recipe: Recipe, train: Labelled | Groups, tokenizer: Tokenizer, max_length: int) -> Any:
    """The recipe's dev measure; ``None`` where it names no dev data.

    Raises:
        UsageError: A measure that the dev data cannot give.
        RecordError: A bad line of the dev data.
    """
    if recipe.data.dev is None:
        return None
    dev = _make_dev(recipe, train, tokenizer, max_length)
    return InBf16(dev) if recipe.schedule.bf16 else dev


def _make_dev(recipe: Recipe, train: Labelled | Groups, tokenizer: Tokenizer, max_length: int) -> Any:
    assert recipe.data.dev is not None
    batch, wanted = recipe.evaluation.batch_size, recipe.evaluation.measure
    if isinstance(train, Labelled):
        data = read_data([recipe.data.dev], recipe.data.dev_split, recipe, use="dev")
        if not isinstance(data, Labelled):
            raise UsageError(
                f"{recipe.data.dev}: holds queries, but the training data are labelled records; expected"
                " dev data of the same kind"
            )
        measure = wanted or "MAP@R"
        if measure not in LabelDev.MEASURES:
            raise UsageError(
                f"evaluation.measure is {measure!r}; over labelled records expected one of"
                f" {', '.join(LabelDev.MEASURES)}"
            )
        if measure != "macro_F1" and len(set(data.labels)) == len(data):
            raise UsageError(
                f"{recipe.data.dev}: no label has two texts, so {measure} has nothing to find; add some,"
                ' or set evaluation.measure = "macro_F1"'
            )
        return LabelDev(data, train, measure=measure, batch_size=batch)
    measures = parse_measures(wanted or "nDCG@10")
    if len(measures) > 1:
        raise UsageError(f"evaluation.measure is {wanted!r}; expected one, which says which checkpoint is the best")
    measure = measures[0]
    if recipe.task == "embedder":
        return RetrievalDev(*_retrieval_set(recipe), measure=measure, batch_size=batch)
    groups = read_data([recipe.data.dev], recipe.data.dev_split, recipe, use="dev")
    assert isinstance(groups, Groups)
    return RerankDev(groups, tokenizer, measure=measure, batch_size=batch, max_length=max_length)


def _retrieval_set(recipe: Recipe) -> tuple[list[str], list[str], list[dict[int, int]], list[int]]:
    """Queries, corpus, judgements and own rows: of a BEIR folder its own, of a file of groups all its documents."""
    assert recipe.data.dev is not None
    if Path(recipe.data.dev).is_dir():
        beir = read_beir(recipe.data.dev, recipe.data.dev_split)
        corpus = _sample(list(beir.documents()), beir.qrels, recipe.evaluation.max_documents)
        rows = {document["metadata"]["id"]: row for row, document in enumerate(corpus)}
        names = [query["metadata"]["id"] for query in beir.queries]
        relevant = [{rows[d]: grade for d, grade in beir.qrels[name].items() if d in rows} for name in names]
        own = [rows.get(name, -1) for name in names]
        return [query["text"] for query in beir.queries], [document["text"] for document in corpus], relevant, own
    groups = read_data([recipe.data.dev], recipe.data.dev_split, recipe, use="dev")
    if not isinstance(groups, Groups):
        raise UsageError(
            f"{recipe.data.dev}: holds labelled records, but the training data are queries; expected dev"
            " data of the same kind"
        )
    texts = list(dict.fromkeys(text for item in groups.items for text in item.positives + item.negatives))
    first: dict[str, str] = {}  # of canonical forms: a text and its copies are one document
    document_of = {text: first.setdefault(form, text) for text, form in zip(texts, canonical(texts), strict=True)}
    documents = list(first.values())
    places = {text: row for row, text in enumerate(documents)}
    relevant = [{places[document_of[text]]: 1 for text in item.positives} for item in groups.items]
    return [item.query for item in groups.items], documents, relevant, [-1] * len(groups)


def _sample(corpus: list[Record], qrels: Qrels, most: int | None) -> list[Record]:
    """The judged documents, and of the others as many as fit, always the same ones; in corpus order."""
    if most is None or len(corpus) <= most:
        return corpus
    judged = {document for one in qrels.values() for document in one}
    is_judged = np.array([document["metadata"]["id"] in judged for document in corpus])
    others = np.random.default_rng(0).permutation(np.flatnonzero(~is_judged))[: max(0, most - int(is_judged.sum()))]
    return [corpus[row] for row in np.sort(np.concatenate([np.flatnonzero(is_judged), others]))]
