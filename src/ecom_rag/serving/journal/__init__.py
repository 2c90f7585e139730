"""The journal: one append-only SQLite file of what was decided, and of what people did about it.

What comes in: decided records, and verdicts, skips, escalations, notes, added seeds and undos of people. What goes out:
the next item for a person, lists and counts, and exports that feed the other commands. Nothing here knows of HTTP.

``journal``    ``Journal``, all that the service calls
``people``     what people do, as entries; undo
``waiting``    the order of the queue;  ``leases`` who has which item;  ``lists`` pages and counts
``items``      decisions as they stand now, which is what their entries add up to
``guarding``   the flood guard's memory
``exports``    records for the other commands;  ``agreement`` of two people
``chain``      entries and their hashes
``store``      the file
"""

from ecom_rag.serving.journal.chain import Entry, Head
from ecom_rag.serving.journal.errors import JournalDamaged, LeaseLost, NothingToUndo, UnknownDecision
from ecom_rag.serving.journal.items import Decision
from ecom_rag.serving.journal.journal import Journal
from ecom_rag.serving.journal.leases import Item
from ecom_rag.serving.journal.lists import Counts, Page
from ecom_rag.serving.journal.people import INNOCENT

__all__ = [
    "INNOCENT",
    "Counts",
    "Decision",
    "Entry",
    "Head",
    "Item",
    "Journal",
    "JournalDamaged",
    "LeaseLost",
    "NothingToUndo",
    "Page",
    "UnknownDecision",
]
