"""What a bank is asked to be, and the embeddings it is given, checked before anything is written."""

from collections.abc import Sequence

import numpy as np

from ecom_rag import arguments
from ecom_rag.errors import EmbeddingError, UsageError
from ecom_rag.files.values import type_name
from ecom_rag.models import Encoder
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.retrieval import routes as table


def size_of(embeddings: Embeddings, name: str) -> int:
    """Dimension of ``dense`` and ``multivector``, vocabulary of ``sparse``."""
    if name == "multivector":
        assert embeddings.multivector is not None
        return int(embeddings.multivector.values.shape[1])
    return int(getattr(embeddings, name).shape[1])


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


def check_names(routes: Sequence[str]) -> list[str]:
    """The routes among these that need an encoder.

    Raises:
        UsageError: No route, an unknown one, or one twice.
    """
    table.check_routes(routes)
    return [route for route in routes if route in table.ENCODED_ROUTES]


def check_routes(routes: Sequence[str], encoder: Encoder | None) -> None:
    """Whether there can be such a bank.

    Raises:
        UsageError: As ``check_names``, or a route needs an encoder and there is none.
        ModelError: The encoder cannot give what a route needs.
    """
    outputs = check_names(routes)
    if outputs:
        if encoder is None:
            raise UsageError(f"the routes {', '.join(outputs)} need an encoder; give one (--model MODEL)")
        arguments.model(encoder, "encoder", "check_outputs", "Encoder")
        encoder.check_outputs(outputs)
