"""The seed bank in PostgreSQL with pgvector: records and vectors there, scores and results as those of a bank on disk.

``store`` is its connections and transactions, ``schema`` its tables, ``table`` their questions and ``wire`` vectors as
bytes. ``changes`` writes, ``terms`` counts the terms of texts. In a search the server scores all rows, those that its
scores cannot rule out come here (``candidates``), and our own indexes decide among them (``vectors`` and ``postings``).
``building`` makes a bank, ``bank`` is an open one; what goes out is a ``view`` of one state.
"""

from ecom_rag.seeds.postgres.bank import PostgresBank
from ecom_rag.seeds.postgres.building import build, create
from ecom_rag.seeds.postgres.statistics import stats

__all__ = ["PostgresBank", "build", "create", "stats"]
