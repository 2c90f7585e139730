"""What a bank in PostgreSQL holds, in figures."""

from dataclasses import asdict
from typing import Any

from ecom_rag.seeds.postgres import table
from ecom_rag.seeds.postgres.bank import PostgresBank
from ecom_rag.seeds.postgres.terms import drift

_BYTES = """SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
            WHERE relnamespace = %s::regnamespace AND relkind = 'r'"""
_SERVER = """SELECT current_setting('server_version'), extversion, current_setting('fsync') FROM pg_extension
             WHERE extname = 'vector'"""


def stats(bank: PostgresBank) -> dict[str, Any]:
    """What ``ecom-rag bank info`` shows.

    Args:
        bank: Open.

    Raises:
        BankError: The bank is closed.
    """
    with bank.store.reading() as (db, state):
        labels = table.label_counts(db, bank.settings.label_key)
        (size,) = db.execute(_BYTES, (f'"{bank.store.address.name}"',)).fetchone()
        version, vector, fsync = db.execute(_SERVER).fetchone()
    return {
        "path": bank.path,
        "documents": state.live,
        "removed_rows": 0,
        "sequence": state.sequence,
        "model": asdict(bank.model) if bank.model else None,
        **bank.settings.shown(),
        "labels": labels,
        "bytes": size,
        "exactness": "exact",
        "engine": f"PostgreSQL {version}, pgvector {vector}",
        "fsync": fsync,
        "drift": {route: round(drift(state, side), 4) for route, side in bank.sides.items()},
    }
