"""The embeddings that a bank is given, checked before they are written."""

from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection

from ecom_rag.errors import EmbeddingError
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.bank.store import read_meta, write_meta


def check_sizes(db: Connection, embeddings: Embeddings, outputs: Sequence[str], bank: Path) -> None:
    """Refuse vectors of another dimension than the bank's; the first ones decide which that is.

    Args:
        db: In a write transaction.
        embeddings: Of the documents that are written.
        outputs: Those of the bank.
        bank: Named in errors.

    Raises:
        EmbeddingError: Another dimension.
    """
    known: dict[str, int] = read_meta(db)["sizes"]
    sizes = {name: _size_of(embeddings, name) for name in outputs}
    for name, size in sizes.items():
        if known.get(name, size) != size:
            raise EmbeddingError(
                f"{bank}: its {name} vectors are of size {known[name]}, these of {size};"
                " encode both with the same checkpoint"
            )
    if known != sizes:
        write_meta(db, "sizes", sizes)


def _size_of(embeddings: Embeddings, name: str) -> int:
    """Dimension of ``dense`` and ``multivector``, vocabulary of ``sparse``."""
    if name == "multivector":
        assert embeddings.multivector is not None
        return int(embeddings.multivector.values.shape[1])
    return int(getattr(embeddings, name).shape[1])
