"""The encoder and the reranker, each behind a batcher; both run in the one model thread."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.models import CrossEncoder, Embeddings, Encoder, Ragged, TokenIds
from ecom_rag.serving.engine.batching import Batcher, Ran
from ecom_rag.serving.problems import Problem

logger = logging.getLogger(__name__)

_BATCHES = 8  # of the network in one batch of the service: enough to fill both cores, short enough to be fair
_SPECIAL = 2  # tokens that a model puts around a text


class Terms(NamedTuple):
    """A sparse embedding.

    Args:
        indices: ``(n,)`` token ids, ascending.
        weights: ``(n,)`` of them, positive.
        width: Token ids that there are.
    """

    indices: NDArray[np.int32]
    weights: NDArray[np.float32]
    width: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as the encoder gives it.

    Args:
        dense: ``(dim,)`` float32; ``None`` where it was not asked for.
        sparse: Terms with their weights.
        multivector: ``(tokens, dim)`` float32.
        tokens: That the model read, special ones included.
        truncated: Whether the text was cut to the model's length.
    """

    dense: NDArray[np.float32] | None
    sparse: Terms | None
    multivector: NDArray[np.float32] | None
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """One pair as the reranker gives it.

    Args:
        logit: Relevance; any real number, higher is more relevant.
        tokens: That the model read.
        truncated: Whether the pair was cut.
    """

    logit: float
    tokens: int
    truncated: bool


class EncoderStage:
    """An encoder that requests share.

    Args:
        encoder: The model.
        executor: The model thread.
        name: Of the model in the API.
        queue_seconds: As of ``Batcher``.
        watch: As of ``Batcher``.
    """

    def __init__(
        self,
        encoder: Encoder,
        executor: Executor,
        *,
        name: str = "model",
        queue_seconds: float,
        watch: Callable[[Ran], None] | None = None,
    ) -> None:
        self.encoder = encoder
        self.name = name
        self.longest = int(encoder.settings["max_length"])
        budget = _BATCHES * int(encoder.settings["batch_tokens"])
        self.batcher = Batcher("encode", self._run, executor, budget=budget, queue_seconds=queue_seconds, watch=watch)

    async def encode(
        self, texts: Sequence[str], *, side: str, outputs: Sequence[str] = ("dense",), truncate: bool = True
    ) -> list[Encoded]:
        """Encode the texts of a request, together with those of others.

        Args:
            texts: Any texts.
            side: ``query`` or ``passage``.
            outputs: Of ``dense``, ``sparse``, ``multivector``.
            truncate: Cut what is too long.

        Raises:
            Problem: 422 where a text is too long and must not be cut; as ``Batcher.submit``.
            ModelError: The model does not give an output.
        """
        self.encoder.check_outputs(outputs)
        costs = [min(len(text) + _SPECIAL, self.longest) for text in texts]
        found = await self.batcher.submit([(side, text) for text in texts], key=tuple(sorted(outputs)), costs=costs)
        if not truncate:
            check_whole([one.truncated for one in found], self.longest, "input")
        return found

    def _run(self, outputs: Sequence[str], units: list[tuple[str, str]]) -> list[Encoded]:
        sides = [side for side, _ in units]
        parts, order = [], []
        for side in dict.fromkeys(sides):
            places = [place for place, own in enumerate(sides) if own == side]
            parts.append(self.encoder.prepare([units[place][1] for place in places], side=side))
            order.extend(places)
        ids = parts[0] if len(parts) == 1 else TokenIds.concatenate(parts)
        rows = _rows(self.encoder.run(ids, outputs=outputs), ids)
        answers: list[Encoded] = [rows[0]] * len(units)
        for place, row in zip(order, rows, strict=True):
            answers[place] = row
        return answers


class RerankerStage:
    """A reranker that requests share.

    Args:
        cross_encoder: The model.
        executor: The model thread.
        name: Of the model in the API.
        queue_seconds: As of ``Batcher``.
        watch: As of ``Batcher``.
    """

    def __init__(
        self,
        cross_encoder: CrossEncoder,
        executor: Executor,
        *,
        name: str = "model",
        queue_seconds: float,
        watch: Callable[[Ran], None] | None = None,
    ) -> None:
        self.cross_encoder = cross_encoder
        self.name = name
        self.longest = int(cross_encoder.settings["max_length"])
        budget = _BATCHES * int(cross_encoder.settings["batch_tokens"])
        self.batcher = Batcher("rerank", self._run, executor, budget=budget, queue_seconds=queue_seconds, watch=watch)

    async def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """Score the pairs of a request, together with those of others.

        Args:
            pairs: ``(query, document)`` each.

        Raises:
            Problem: As ``Batcher.submit``.
        """
        costs = [min(len(query) + len(document) + 2 * _SPECIAL, self.longest) for query, document in pairs]
        return await self.batcher.submit(pairs, costs=costs)

    def _run(self, _: None, pairs: list[tuple[str, str]]) -> list[Scored]:
        ids = self.cross_encoder.prepare(pairs)
        logits = self.cross_encoder.run(ids)
        found = zip(logits.tolist(), ids.tokens.tolist(), ids.truncated.tolist(), strict=True)
        return [Scored(*one) for one in found]


def check_whole(truncated: Sequence[bool], longest: int, param: str) -> None:
    """Refuse texts that were cut.

    Args:
        truncated: Whether each text was cut.
        longest: Its length in tokens.
        param: Field of the request that holds the texts.

    Raises:
        Problem: One was cut; says which.
    """
    if True in truncated:
        where = f"{param}[{truncated.index(True)}]"
        raise Problem(
            422,
            f'{where} has more tokens than the {longest} that the model reads; shorten it, or allow "truncate"',
            code="text_too_long",
            param=where,
        )


def embeddings_of(found: Sequence[Encoded]) -> Embeddings:
    """Encoded texts as the arrays that a search takes.

    Args:
        found: At least one, all with the same outputs.
    """
    first = found[0]
    dense = None if first.dense is None else np.stack([one.dense for one in found if one.dense is not None])
    sparse = None
    if first.sparse is not None:
        rows = [one.sparse for one in found if one.sparse is not None]
        starts = np.concatenate([[0], np.cumsum([len(own.indices) for own in rows])])
        indices = np.concatenate([own.indices for own in rows])
        parts = (np.concatenate([own.weights for own in rows]), indices, starts)
        sparse = csr_matrix(parts, shape=(len(rows), rows[0].width))
    vectors = [one.multivector for one in found if one.multivector is not None]
    return Embeddings(dense, sparse, Ragged.of(vectors) if vectors else None)


def _rows(found: Embeddings, ids: TokenIds) -> list[Encoded]:
    """Embeddings text by text; nothing of a batch outlives its last text."""
    tokens, truncated = ids.tokens.tolist(), ids.truncated.tolist()
    answers = []
    for row in range(len(found)):
        sparse = None
        if found.sparse is not None:
            start, end = found.sparse.indptr[row], found.sparse.indptr[row + 1]
            indices, weights = found.sparse.indices[start:end], found.sparse.data[start:end]
            order = np.argsort(indices, kind="stable")
            sparse = Terms(indices[order].astype(np.int32), weights[order], int(found.sparse.shape[1]))
        vectors = None if found.multivector is None else found.multivector[row]
        dense = None if found.dense is None else found.dense[row]
        answers.append(Encoded(dense, sparse, vectors, tokens[row], truncated[row]))
    return answers
