"""Dev measures during training, one number each, higher is better; called by the trainer at every validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.evaluation import sets
from ecom_rag.evaluation.labels import macro_f1, vote_of_rows
from ecom_rag.evaluation.measures import cutoff, parse_measures
from ecom_rag.evaluation.sets import JudgedSet
from ecom_rag.judging.relevance import Grades, same_class
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.prompts import Frame
from ecom_rag.retrieval import DenseIndex
from ecom_rag.text.normalization import canonical
from ecom_rag.training.collate import pair_inputs
from ecom_rag.training.data import Groups, Labelled, read_data
from ecom_rag.training.recipe import Recipe

_DEPTH = 100
_NEIGHBOURS = 10
_Kind = TypeVar("_Kind", Labelled, Groups)
_LABELLED = "holds labelled records, but the training data are queries"


class RetrievalDev:
    """A retrieval measure by exact search with the dense embeddings.

    Args:
        judged: The queries, the corpus and the grades.
        measure: As ``ir_measures`` names it.
        batch_size: Texts encoded at once.
    """

    def __init__(self, judged: JudgedSet, *, measure: str, batch_size: int) -> None:
        self.primary_metric = measure
        self.size = f"{len(judged.queries)} queries, {len(judged.documents)} documents"
        self._judged, self._batch_size = judged, batch_size

    def __call__(self, model: Any) -> dict[str, float]:
        """The measure, by its name."""
        documents = encode(model, self._judged.documents, "document", self._batch_size)
        queries = encode(model, self._judged.queries, "query", self._batch_size)
        rows = self._judged.search(documents, queries, max(_DEPTH, cutoff(self.primary_metric) or len(documents)))
        return sets.evaluate_rows(rows, self._judged, [self.primary_metric]).means()


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

    def __call__(self, model: Any) -> dict[str, float]:
        """The measure, by its name."""
        vectors = encode(model, self._data.texts, "query", self._batch_size)
        if self.primary_metric == "macro_F1":
            bank = encode(model, self._bank.texts, "document", self._batch_size)
            found = DenseIndex(bank).search(vectors, min(_NEIGHBOURS, len(bank)))
            return {self.primary_metric: macro_f1(vote_of_rows(self._data.labels, self._bank.labels, found.rows))}
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
        frame: The prompt of a language model.
    """

    def __init__(
        self,
        data: Groups,
        tokenizer: Tokenizer,
        *,
        measure: str,
        batch_size: int,
        max_length: int,
        frame: Frame | None = None,
    ) -> None:
        self.primary_metric = measure
        self._tokenizer, self._batch_size, self._max_length, self._frame = tokenizer, batch_size, max_length, frame
        self._judged = sets.candidate_set(data.items)
        self._pairs = self._judged.pairs()
        self.size = f"{len(data)} queries, {len(self._pairs)} pairs"

    def __call__(self, model: Any) -> dict[str, float]:
        """The measure, by its name."""
        model.eval()
        order = np.argsort([len(query) + len(text) for query, text in self._pairs])
        scores = np.empty(len(self._pairs), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                rows = order[start : start + self._batch_size]
                queries, texts = zip(*(self._pairs[row] for row in rows), strict=True)
                inputs = pair_inputs(self._tokenizer, queries, texts, self._max_length, self._frame)
                logits = model({key: value.to(model.device) for key, value in inputs.items()})["scores"]
                scores[rows] = logits.float().cpu().numpy()[:, 0]
        ranked = self._judged.ranked(scores)
        return sets.evaluate_rows(ranked, self._judged, [self.primary_metric]).means()


class InBf16:
    """A dev measure computed in the precision that is trained in; on a CPU with AMX several times faster than fp32.

    Args:
        dev: The measure.
    """

    def __init__(self, dev: Any) -> None:
        self.primary_metric, self.size = dev.primary_metric, dev.size
        self._dev = dev

    def __call__(self, model: Any) -> dict[str, float]:
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
    judged = same_class(labels)
    if len(judged.own) == 0:
        return {"MAP@R": 0.0, "R@1": 0.0}
    depth = int(judged.relevant.max())
    ranks = np.arange(1, depth + 1)
    precision, first = np.empty(len(judged.own)), np.empty(len(judged.own))
    for start in range(0, len(judged.own), 512):
        part = judged.part(start, start + 512)
        similarities = (vectors if queries is None else queries)[part.own] @ vectors.T
        similarities[np.arange(len(part.own)), part.own] = -np.inf
        nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :depth]
        hits, wanted = part.gains(nearest), part.relevant  # (rows, depth), (rows,)
        counted = hits * (ranks <= wanted[:, None])
        precision[start : start + 512] = (counted * np.cumsum(hits, axis=1) / ranks).sum(axis=1) / wanted
        first[start : start + 512] = hits[:, 0]
    return {"MAP@R": float(precision.mean()), "R@1": float(first.mean())}


def make_dev(
    recipe: Recipe, train: Labelled | Groups, tokenizer: Tokenizer, max_length: int, frame: Frame | None = None
) -> Any:
    """The recipe's dev measure; ``None`` where it names no dev data.

    Raises:
        UsageError: A measure that the dev data cannot give.
        RecordError: A bad line of the dev data.
    """
    if recipe.data.dev is None:
        return None
    dev = _make_dev(recipe, train, tokenizer, max_length, frame)
    return InBf16(dev) if recipe.schedule.bf16 else dev


def _make_dev(
    recipe: Recipe, train: Labelled | Groups, tokenizer: Tokenizer, max_length: int, frame: Frame | None
) -> Any:
    assert recipe.data.dev is not None
    batch, wanted = recipe.evaluation.batch_size, recipe.evaluation.measure
    if isinstance(train, Labelled):
        data = _read(recipe, Labelled, "holds queries, but the training data are labelled records")
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
        return RetrievalDev(_retrieval_set(recipe), measure=measure, batch_size=batch)
    groups = _read(recipe, Groups, _LABELLED)
    return RerankDev(groups, tokenizer, measure=measure, batch_size=batch, max_length=max_length, frame=frame)


def _retrieval_set(recipe: Recipe) -> JudgedSet:
    """Of a BEIR folder its own queries and corpus; of a file of groups all its documents."""
    assert recipe.data.dev is not None
    if Path(recipe.data.dev).is_dir():
        return sets.read_beir_set(recipe.data.dev, recipe.data.dev_split, max_documents=recipe.evaluation.max_documents)
    groups = _read(recipe, Groups, _LABELLED)
    texts = list(dict.fromkeys(text for item in groups.items for text in item.positives + item.negatives))
    first: dict[str, str] = {}  # of canonical forms: a text and its copies are one document
    document_of = {text: first.setdefault(form, text) for text, form in zip(texts, canonical(texts), strict=True)}
    documents = list(first.values())
    places = {text: row for row, text in enumerate(documents)}
    relevant = [{places[document_of[text]]: 1 for text in item.positives} for item in groups.items]
    return JudgedSet([item.query for item in groups.items], documents, Grades(relevant, len(documents)))


def _read(recipe: Recipe, kind: type[_Kind], otherwise: str) -> _Kind:
    assert recipe.data.dev is not None
    data = read_data([recipe.data.dev], recipe.data.dev_split, recipe, use="dev")
    if not isinstance(data, kind):
        raise UsageError(f"{recipe.data.dev}: {otherwise}; expected dev data of the same kind")
    return data
