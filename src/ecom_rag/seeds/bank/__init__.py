"""The persistent seed bank: records in, and routes over them that search as they search a file.

``building`` and ``copies`` make a bank, ``filling`` writes records into one, ``bank`` is an open one. ``store`` is the
system of record (one SQLite file), ``table`` and ``filtered`` its statements, ``reading`` the questions that need no
index, ``changes`` its transactions and ``requests`` those that were answered. ``derived`` is the indexes computed from
it, ``live`` their latest state, ``saved`` their arrays on disk and ``streamed`` those of a bank that is being filled.
What goes out is a ``View``: indexes, filter masks and records of one state.
"""

from ecom_rag.seeds.bank.bank import SeedBank
from ecom_rag.seeds.bank.building import build, create
from ecom_rag.seeds.bank.changes import Change
from ecom_rag.seeds.bank.copies import restore, snapshot
from ecom_rag.seeds.bank.filling import Built, add
from ecom_rag.seeds.bank.reading import SeedPage
from ecom_rag.seeds.bank.requests import Request
from ecom_rag.seeds.bank.settings import BankSettings
from ecom_rag.seeds.bank.statistics import stats
from ecom_rag.seeds.bank.view import View

__all__ = [
    "BankSettings",
    "Built",
    "Change",
    "Request",
    "SeedBank",
    "SeedPage",
    "View",
    "add",
    "build",
    "create",
    "restore",
    "snapshot",
    "stats",
]
