"""Mining: hard negatives for queries, from any route's ranking, with those left out that may well be relevant.

``sources`` reads queries with their positives and the corpus; ``ranking`` finds candidates; ``rules`` says which of
them may be negatives; ``pick`` takes them; ``job`` does it for files, resumably, ``memory`` for lists.
"""

from ecom_rag.mining.job import mine_file
from ecom_rag.mining.memory import mine
from ecom_rag.mining.rules import Rules
from ecom_rag.mining.sources import Source

__all__ = ["Rules", "Source", "mine", "mine_file"]
