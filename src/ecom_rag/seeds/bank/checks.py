"""The embeddings that a bank is given: of one dimension each."""

from ecom_rag.models.embeddings import Embeddings


def size_of(embeddings: Embeddings, name: str) -> int:
    """Dimension of ``dense`` and ``multivector``, vocabulary of ``sparse``."""
    if name == "multivector":
        assert embeddings.multivector is not None
        return int(embeddings.multivector.values.shape[1])
    return int(getattr(embeddings, name).shape[1])
