"""The outputs of an encoder's batches, gathered into whole arrays in the order of the input."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ecom_rag.errors import EmbeddingError
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.embeddings import Embeddings, Ragged
from ecom_rag.models.runtimes.batching import Batch


class Collector:
    """Gathers batch by batch what was asked for.

    Args:
        wanted: Names of outputs.
        count: Rows of the input.
        tokenizer: Of the model: it tells the terms without weight, and the number of all terms.
    """

    def __init__(self, wanted: Sequence[str], count: int, tokenizer: Tokenizer) -> None:
        self._wanted = wanted
        self._count = count
        self._tokenizer = tokenizer
        self._dense: NDArray[np.float32] | None = None
        self._terms: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self._vectors: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * count

    def add(self, batch: Batch, arrays: dict[str, NDArray[np.float32]], truncate_dim: int | None) -> None:
        """Take the outputs of a batch.

        Args:
            batch: What was run.
            arrays: What came of it, by name.
            truncate_dim: Dimensions to keep; ``None`` is all.

        Raises:
            EmbeddingError: A number that is NaN or infinite.
        """
        for name, array in arrays.items():
            if not np.isfinite(
                array if name == "dense" else array[batch.attention_mask[:, -array.shape[1] :] > 0]
            ).all():
                raise EmbeddingError(
                    f"the model gave NaN or infinity ({name}) for text {int(batch.rows[0])} or its"
                    " batch; the checkpoint is damaged, or needs `precision` fp32"
                )
        if "dense" in arrays:
            dense = _unit(arrays["dense"][:, :truncate_dim])
            if self._dense is None:
                self._dense = np.empty((self._count, dense.shape[1]), np.float32)
            self._dense[batch.rows] = dense
        if "sparse" in arrays:
            self._terms.append(_term_weights(batch, arrays["sparse"], self._tokenizer.unweighted_ids))
        if "multivector" in arrays:
            lengths = batch.attention_mask.sum(axis=1) - 1
            vectors = _unit(arrays["multivector"][..., :truncate_dim])
            for position, row in enumerate(batch.rows):
                self._vectors[row] = vectors[position, : lengths[position]].copy()

    def finish(self) -> Embeddings:
        """The whole, once every row was in a batch."""
        weights = None
        if "sparse" in self._wanted:
            shape = (self._count, self._tokenizer.vocab_size)
            rows, terms, values = (np.concatenate(part) for part in zip(*self._terms, strict=True))
            weights = csr_matrix((values, (rows, terms)), shape=shape, dtype=np.float32)
            weights.sort_indices()
        multivector = None
        if "multivector" in self._wanted:
            multivector = Ragged.of(self._vectors)
        return Embeddings(self._dense, weights, multivector)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; a zero row stays zero."""
    norms = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))
    return vectors / np.maximum(norms, 1e-12)[..., None]


def _term_weights(
    batch: Batch, weights: NDArray[np.float32], unweighted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Rows, term ids and the largest weight of each term in each row; special tokens and zero weights left out."""
    keep = (batch.attention_mask > 0) & (weights > 0) & ~np.isin(batch.input_ids, unweighted)
    position, _ = np.nonzero(keep)
    rows, terms, values = batch.rows[position], batch.input_ids[keep], weights[keep]
    order = np.lexsort((values, terms, rows))
    rows, terms, values = rows[order], terms[order], values[order]
    last = np.ones(len(rows), bool)  # of each run of equal (row, term), the largest value stands last
    last[:-1] = (rows[1:] != rows[:-1]) | (terms[1:] != terms[:-1])
    return rows[last], terms[last], values[last]
