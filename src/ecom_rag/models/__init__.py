"""Checkpoints in, numbers out: ``Encoder`` turns texts into embeddings, ``CrossEncoder`` scores pairs of texts.

What may come in: plain strings. What goes out: NumPy arrays, SciPy CSR matrices and ``Ragged`` arrays. Nothing here
knows about records, files of records or search. Below the two are ``checkpoints`` (on disk), ``networks`` (modules of
torch) and ``runtimes`` (ways to run those); ``spec`` names a model that is not loaded yet.
"""

from ecom_rag.models.cross_encoder import CrossEncoder
from ecom_rag.models.embeddings import Embeddings, Ragged
from ecom_rag.models.encoder import Encoder
from ecom_rag.models.token_ids import TokenIds

__all__ = ["CrossEncoder", "Embeddings", "Encoder", "Ragged", "TokenIds"]
