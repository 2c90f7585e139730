"""The vectors of a bank's documents: encoded by its own model, or given and checked."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ecom_rag import arguments
from ecom_rag.errors import BankError
from ecom_rag.models import Encoder
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.seeds.bank.derived import blobs_of
from ecom_rag.seeds.bank.documents import Row
from ecom_rag.seeds.bank.model import Model
from ecom_rag.seeds.source import fitting


class Encoding:
    """A bank's model, and its encoder once one is loaded.

    Args:
        model: The bank's; ``None`` where no route needs one.
        bank: Named in errors.
        outputs: What the routes search of the encoder's outputs.
    """

    def __init__(self, model: Model | None, bank: Any, outputs: Sequence[str]) -> None:
        self._model = model
        self._bank = bank
        self._outputs = outputs
        self._encoder: Encoder | None = None
        self._loading = threading.Lock()

    def encoder(self) -> Encoder:
        """The encoder, loaded when it is first asked for."""
        with self._loading:
            if self._encoder is None:
                if self._model is None:
                    raise BankError(f"{self._bank}: its routes need no model")
                loaded = self._model.load()
                self._model.check(loaded, self._bank)
                self._encoder = loaded
            return self._encoder

    def use(self, encoder: Encoder) -> None:
        """Take an encoder that is loaded already."""
        arguments.model(encoder, "encoder", "check_outputs", "Encoder")
        if self._model is not None:
            self._model.check(encoder, self._bank)
        self._encoder = encoder

    def for_queries(self, encoder: Encoder | None) -> Encoder | None:
        """The encoder for queries: the one given, checked, else the bank's own."""
        if self._model is None:
            return encoder
        if encoder is None:
            return self.encoder()
        self._model.check(encoder, self._bank)
        return encoder

    def embed(
        self, rows: Sequence[Row], kept: Sequence[int], count: int, given: Embeddings | None, fingerprint: str | None
    ) -> Embeddings:
        """Give rows their vectors.

        Args:
            rows: Rows to write, without vectors.
            kept: Number of each row's record in the batch.
            count: Records in the batch.
            given: Embeddings of the batch, where they are known already.
            fingerprint: Of the model that gave them.

        Returns:
            The vectors of the rows; none where no route needs them.

        Raises:
            BankError: ``given`` is of another model.
            EmbeddingError: ``given`` does not fit.
        """
        if self._model is None:
            return Embeddings()
        if given is None:
            found = self.encoder().encode([row.text for row in rows], outputs=self._outputs)
        else:
            self._model.check_fingerprint(fingerprint, self._bank)
            found = fitting(given, self._outputs, count)
            if len(kept) < count:
                found = found.take(np.array(kept, np.int64))
        for place, row in enumerate(rows):
            row.blobs.update(blobs_of(found, place))
        return found
