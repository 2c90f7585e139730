"""The seed bank in Milvus: vectors and filters there, scores and results as those of a bank on disk.

Milvus has no transactions. So rows are written once and never changed, each with the sequence that it came with; a
change is made by the one row of ``log`` that names its sequence, and rows that are gone are left out of every question
until nobody can ask for them any more. ``client`` talks to the server, ``rows`` are the documents of one state,
``words`` the terms of bm25 with their counts, ``candidates`` the rows among which our own indexes decide. ``changes``
writes, ``store`` is states and writers that take turns, ``engine`` all of this as ``seeds.remote`` asks for it, and
``building`` makes a bank.
"""

from ecom_rag.seeds.milvus.building import building, check_target, make
from ecom_rag.seeds.milvus.engine import MilvusEngine as Engine
from ecom_rag.seeds.milvus.schema import ROUTES

__all__ = ["ROUTES", "Engine", "building", "check_target", "make"]
