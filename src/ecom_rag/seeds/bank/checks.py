"""The embeddings that a bank is given, checked before they are written."""

from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection

import numpy as np

from ecom_rag.errors import EmbeddingError, UsageError
from ecom_rag.files.values import type_name
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.bank.store import read_meta, write_meta


def fitting(embeddings: Embeddings, outputs: Sequence[str], count: int) -> Embeddings:
    """Embeddings from outside, checked.

    Raises:
        EmbeddingError: An output is missing, there are more or fewer than records, or one is not finite.
    """
    if not isinstance(embeddings, Embeddings):
        raise UsageError(f"embeddings is of type {type_name(embeddings)}; expected what Encoder.encode gives")
    for name in outputs:
        own = getattr(embeddings, name)
        if own is None:
            raise EmbeddingError(f"the embeddings have no {name}; the bank's routes need {', '.join(outputs)}")
        rows = own.shape[0] if name != "multivector" else len(own)
        if rows != count:
            raise EmbeddingError(f"there are {rows} {name} embeddings for {count} records; expected one each")
        values = {"dense": lambda x: x, "sparse": lambda x: x.data, "multivector": lambda x: x.values}[name](own)
        if not np.isfinite(values).all():
            raise EmbeddingError(f"the {name} embeddings hold NaN or infinity; encode them again")
    dense = embeddings.dense if embeddings.dense is None else np.asarray(embeddings.dense, np.float32)
    return Embeddings(dense, embeddings.sparse, embeddings.multivector)


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
