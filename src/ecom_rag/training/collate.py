"""Rows of training data to tensors, tokenised exactly as ``models`` does for inference.

A dataset holds row numbers only, so that nothing of the data ends up in model cards or caches; the collators look the
texts up. Which positive and which negatives of a query are shown follows from the seed, the row and the epoch: each in
turn, none again before all were shown.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecom_rag.mining.triples import KnownPositives
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.prompts import Frame, of_prompted_pairs
from ecom_rag.models.runtimes.batching import Batch, padded
from ecom_rag.models.token_ids import TokenIds, of_pairs, of_texts
from ecom_rag.training.batches import Batches
from ecom_rag.training.data import Group, Groups, Labelled
from ecom_rag.training.losses.distributed import rank

_MODEL = "in training"  # it changes with every step, so that it has no fingerprint


def single_inputs(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, *, instruction: str = ""
) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` ``(texts, longest)`` of texts with their special tokens."""
    return _inputs(tokenizer, of_texts(tokenizer, texts, max_length, instruction=instruction, model=_MODEL))


def pair_inputs(
    tokenizer: Tokenizer,
    queries: Sequence[str],
    documents: Sequence[str],
    max_length: int,
    frame: Frame | None = None,
) -> dict[str, Tensor]:
    """Inputs of a cross-encoder, as ``single_inputs``, with ``token_type_ids`` where the model has them.

    With a ``frame`` they are those of a language model, which answers at the last token: padded on the left.
    """
    if frame is not None:
        found = of_prompted_pairs(tokenizer, zip(queries, documents, strict=True), frame, model=_MODEL)
        return _tensors(padded(found.ids, found.rows, pad_id=tokenizer.pad_id, left=True))
    return _inputs(tokenizer, of_pairs(tokenizer, zip(queries, documents, strict=True), max_length, model=_MODEL))


def _inputs(tokenizer: Tokenizer, found: TokenIds) -> dict[str, Tensor]:
    return _tensors(padded(found.ids, found.rows, pad_id=tokenizer.pad_id, second_starts=found.second_starts))


def _tensors(batch: Batch) -> dict[str, Tensor]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: torch.from_numpy(array) for name, array in zip(names, batch.inputs, strict=False)}


class LabelledCollator:
    """Labelled texts to one feature, ``texts``, and their class numbers.

    Of a class's texts in the batch every other one is a query, the rest are passages, as listings and seeds will be.
    """

    valid_label_columns = ("label",)

    def __init__(self, data: Labelled, tokenizer: Tokenizer, *, max_length: int, instructions: tuple[str, str]) -> None:
        self._data, self._tokenizer = data, tokenizer
        self._max_length, self._instructions = max_length, instructions
        _, self._classes = np.unique(np.array(data.labels), return_inverse=True)

    def __call__(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        """One batch."""
        numbers = np.array([row["row"] for row in rows])
        seen: Counter[int] = Counter()
        texts = []
        for number in numbers.tolist():
            own = int(self._classes[number])
            texts.append(self._instructions[seen[own] % 2] + self._data.texts[number])
            seen[own] += 1
        inputs = single_inputs(self._tokenizer, texts, self._max_length)
        return {**_prefixed("texts", inputs), "label": {"labels": torch.from_numpy(self._classes[numbers])}}

    def texts(self) -> Iterator[str]:
        """All that a batch may hold; each text with either instruction."""
        return (instruction + text for instruction in sorted(set(self._instructions)) for text in self._data.texts)


class GroupCollator:
    """Queries with some of their documents, the positives first: two features for an embedder, pairs for a reranker.

    Args:
        data: The queries.
        tokenizer: Of the checkpoint.
        batches: The sampler in use; its epoch decides which documents of a query have their turn.
        task: ``embedder`` or ``reranker``.
        positives: Positives of a query a batch.
        negatives: Negatives of a query a batch.
        max_length: Tokens.
        instructions: Put before an embedder's queries that have no prompt of their own, and before its documents.
        seed: Orders each query's documents.
        frame: The prompt of a reranker that is a language model.
    """

    valid_label_columns = ("label",)

    def __init__(
        self,
        data: Groups,
        tokenizer: Tokenizer,
        batches: Batches,
        *,
        task: str,
        positives: int,
        negatives: int,
        max_length: int,
        instructions: tuple[str, str],
        seed: int,
        frame: Frame | None = None,
    ) -> None:
        self._items, self._tokenizer, self._batches, self._task = data.items, tokenizer, batches, task
        self._positives, self._negatives, self._max_length, self._seed = positives, negatives, max_length, seed
        self._instructions, self._frame = instructions, frame
        known = KnownPositives(data.items)
        self._ids = {text: _number(form) for text, form in known.forms.items()}
        self._known = {
            self._ids[item.query]: np.array(sorted(map(_number, known.of(item.query)))) for item in data.items
        }

    def __call__(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        """One batch."""
        numbers = [row["row"] for row in rows]
        chosen = [self._choose(number) for number in numbers]
        documents = [text for texts, _ in chosen for text in texts]
        items = [self._items[number] for number in numbers]
        group = self._positives + self._negatives
        label = self._label(numbers, items, documents, group)
        if all(scores is not None for _, scores in chosen):
            label["teacher"] = torch.tensor([scores for _, scores in chosen])
        if self._task == "reranker":
            asked = [item.query for item in items for _ in range(group)]
            pairs = pair_inputs(self._tokenizer, asked, documents, self._max_length, self._frame)
            return {"pairs": pairs, "label": label}
        queries = [self._asked(item) for item in items]
        passages = [self._instructions[1] + text for text in documents]
        return {
            **_prefixed("queries", single_inputs(self._tokenizer, queries, self._max_length)),
            **_prefixed("documents", single_inputs(self._tokenizer, passages, self._max_length)),
            "label": label,
        }

    def texts(self) -> Iterator[str]:
        """All that a batch may hold, each once; of a pair its two texts."""
        passages = {text for item in self._items for text in item.positives + item.negatives}
        if self._task == "reranker":
            yield from {item.query for item in self._items} | passages
        else:
            yield from {self._asked(item) for item in self._items}
            yield from (self._instructions[1] + text for text in passages)

    def _asked(self, item: Group) -> str:
        return (self._instructions[0] if item.prompt is None else item.prompt) + item.query

    def _label(self, numbers: list[int], items: list[Group], documents: list[str], group: int) -> dict[str, Tensor]:
        known = [self._known[self._ids[item.query]] for item in items]
        filled = np.full((len(known), max(map(len, known))), -1, np.int64)
        for row, ids in enumerate(known):
            filled[row, : len(ids)] = ids
        first = rank() * len(documents)
        return {
            "queries": torch.tensor(numbers),
            "owners": torch.tensor(numbers).repeat_interleave(group),
            "is_positive": (torch.arange(group) < self._positives).repeat(len(numbers)),
            "query_texts": torch.tensor([self._ids[item.query] for item in items]),
            "document_texts": torch.tensor([self._ids[text] for text in documents]),
            "known_positives": torch.from_numpy(filled),
            "groups": first + torch.arange(len(documents)).reshape(len(numbers), group),
        }

    def _choose(self, number: int) -> tuple[list[str], list[float] | None]:
        """The texts whose turn it is, and their teacher scores where there are all of them."""
        item = self._items[number]
        texts: list[str] = []
        scores: list[float] | None = []
        sides = (
            (item.positives, item.positive_scores, self._positives),
            (item.negatives, item.negative_scores, self._negatives),
        )
        for side, (given, given_scores, count) in enumerate(sides):
            if count == 0:
                continue
            order = np.random.default_rng([self._seed, number, side]).permutation(len(given))
            turns = (self._batches.epoch * count + np.arange(count)) % len(given)
            texts += [given[i] for i in order[turns]]
            if scores is not None:
                scores = scores + [given_scores[i] for i in order[turns]] if given_scores else None
        return texts, scores


def _number(form: str) -> int:
    """A number for a text, the same on every rank: a hash of its canonical form."""
    digest = hashlib.blake2b(form.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _prefixed(name: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}_{key}": value for key, value in inputs.items()}
