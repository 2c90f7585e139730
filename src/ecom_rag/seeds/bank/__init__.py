"""The persistent seed bank: records in, and routes over them that search as they search a file.

``store`` is the system of record (one SQLite file), ``derived`` the indexes computed from it and ``saved`` their arrays
on disk, ``filters``, ``expressions`` and ``conditions`` the metadata filters, ``building`` and ``copies`` what is done
to a bank as a whole. What goes out is a ``View``: indexes, filter masks and records of one state.
"""

from ecom_rag.seeds.bank.bank import Change, SeedBank
from ecom_rag.seeds.bank.building import Built, add, build
from ecom_rag.seeds.bank.copies import restore, snapshot
from ecom_rag.seeds.bank.view import View

__all__ = ["Built", "Change", "SeedBank", "View", "add", "build", "restore", "snapshot"]
