"""What a bank in PostgreSQL needs now and then: terms made anew, and room given back."""

from collections.abc import Collection

from ecom_rag.seeds.postgres import changes, schema
from ecom_rag.seeds.postgres.store import Store
from ecom_rag.seeds.remote.terms import Side


def index_anew(store: Store, sides: Collection[Side], made: dict[str, str]) -> None:
    """Make the terms of all texts anew; no result changes.

    Args:
        store: The bank's.
        sides: The routes over texts.
        made: What the terms depend on.

    Raises:
        BankError: Another process keeps writing.
    """
    with store.writing() as (db, state):
        for side in sides:
            changes.index_anew(db, state, side)
        schema.write_meta(db, "made", made)
    with store.alone() as db:  # rows that are gone take room until then, and plans need to know what tables hold
        names = [name for (name,) in db.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")]
        db.execute(f"VACUUM (ANALYZE) {', '.join(names)}")
