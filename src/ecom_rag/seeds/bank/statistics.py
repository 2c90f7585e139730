"""What a bank holds, in figures."""

from dataclasses import asdict
from typing import Any

from ecom_rag.files import disk
from ecom_rag.seeds.bank import table
from ecom_rag.seeds.bank.bank import SeedBank


def stats(bank: SeedBank) -> dict[str, Any]:
    """What ``ecom-rag bank info`` shows: size, labels, model, bytes on disk, sequence.

    Args:
        bank: Open.

    Raises:
        BankError: The bank is closed.
    """
    with bank.store.reading() as (db, state):
        labels = table.label_counts(db, bank.settings.label_key)
    return {
        "path": str(bank.path),
        "documents": state.live,
        "removed_rows": state.removed,
        "sequence": state.sequence,
        "model": asdict(bank.model) if bank.model else None,
        **bank.settings.shown(),
        "labels": labels,
        "bytes": disk.bytes_below(bank.path),
    }
