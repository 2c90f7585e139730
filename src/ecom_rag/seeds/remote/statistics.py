"""What a bank in a server holds, in figures."""

from dataclasses import asdict
from typing import Any

from ecom_rag.seeds.remote.bank import RemoteBank
from ecom_rag.seeds.remote.terms import drift


def stats(bank: RemoteBank) -> dict[str, Any]:
    """What ``ecom-rag bank info`` shows.

    Args:
        bank: Open.

    Raises:
        BankError: The bank is closed.
    """
    with bank.engine.reading() as held:
        labels = held.label_counts(bank.settings.label_key)
    return {
        "path": bank.path,
        "documents": held.state.live,
        "removed_rows": 0,
        "sequence": held.state.sequence,
        "model": asdict(bank.model) if bank.model else None,
        **bank.settings.shown(),
        "labels": labels,
        **bank.engine.figures(),
        "drift": {route: round(drift(held.state, side), 4) for route, side in bank.sides.items()},
    }
