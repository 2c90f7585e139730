"""The seed bank in PostgreSQL with pgvector: records and vectors there, scores and results as those of a bank on disk.

``store`` is its connections and transactions, ``schema`` its tables, ``table`` their questions and ``wire`` vectors as
bytes. ``changes`` writes, ``terms`` counts the terms of texts, ``candidates`` finds the rows among which our own
indexes decide. ``engine`` is all of this as ``seeds.remote`` asks for it, ``building`` makes a bank.
"""

from ecom_rag.seeds.postgres.building import building, check_target, make
from ecom_rag.seeds.postgres.engine import PostgresEngine as Engine
from ecom_rag.seeds.postgres.schema import ROUTES

__all__ = ["ROUTES", "Engine", "building", "check_target", "make"]
