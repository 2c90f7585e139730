"""The embeddings that a bank is given, checked before they are written."""

from collections.abc import Mapping, Sequence
from typing import Any

from ecom_rag.errors import EmbeddingError
from ecom_rag.models.embeddings import Embeddings


def sizes_of(known: Mapping[str, int], embeddings: Embeddings, outputs: Sequence[str], bank: Any) -> dict[str, int]:
    """The dimensions of vectors, refused where they are others than the bank's; the first ones decide which these are.

    Args:
        known: Those of the bank.
        embeddings: Of the documents that are written.
        outputs: Those of the bank.
        bank: Named in errors.

    Raises:
        EmbeddingError: Another dimension.
    """
    sizes = {name: _size_of(embeddings, name) for name in outputs}
    for name, size in sizes.items():
        if known.get(name, size) != size:
            raise EmbeddingError(
                f"{bank}: its {name} vectors are of size {known[name]}, these of {size};"
                " encode both with the same checkpoint"
            )
    return sizes


def _size_of(embeddings: Embeddings, name: str) -> int:
    """Dimension of ``dense`` and ``multivector``, vocabulary of ``sparse``."""
    if name == "multivector":
        assert embeddings.multivector is not None
        return int(embeddings.multivector.values.shape[1])
    return int(getattr(embeddings, name).shape[1])
