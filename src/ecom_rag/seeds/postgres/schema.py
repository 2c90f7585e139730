"""The tables of a bank, in a schema of its own, and what is noted about it.

Only live documents are there: a row is written once, and deleted when its document is removed or replaced. Who reads
within a transaction still sees it, that is PostgreSQL's trade. Numbers of rows ascend and are never used twice.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ecom_rag.errors import BankError
from ecom_rag.files.keys import Path
from ecom_rag.filters.postgres import indexed_value
from ecom_rag.seeds.address import Address

FORMAT = 1
TEXT_ROUTES = ("bm25", "variant")  # have a table of their terms too
ROUTES = ("bm25", "dense", "sparse", "variant")
_SCHEMA = """
CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL);
CREATE TABLE state (only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one), sequence bigint NOT NULL,
                    next_row bigint NOT NULL, live bigint NOT NULL, statistics text NOT NULL);
INSERT INTO state VALUES (true, 0, 0, 0, '{}');
CREATE TABLE documents (row bigint PRIMARY KEY, id bytea NOT NULL, text bytea NOT NULL, metadata text NOT NULL,
                        extra text, filter jsonb NOT NULL);
CREATE UNIQUE INDEX ids ON documents (sha256(id));
CREATE INDEX texts ON documents (sha256(text));
"""  # texts and ids are bytes, since PostgreSQL's text holds no NUL; indexed by digest, since entries are short
_ROUTE = """
CREATE TABLE {route} (row bigint PRIMARY KEY, value {kind} NOT NULL);
ALTER TABLE {route} ALTER value SET STORAGE MAIN;
"""  # within the table as far as a page allows: a search reads all of them
_TERMS = "CREATE TABLE {route}_terms (term bytea PRIMARY KEY, number int NOT NULL, documents int NOT NULL)"


def create(db: Any, address: Address, meta: dict[str, Any], routes: Sequence[str], keys: Iterable[Path]) -> None:
    """Make the schema and the tables of an empty bank.

    Args:
        db: A connection, in a transaction.
        address: Where; there is nothing yet.
        meta: What to note.
        routes: Of ``ROUTES``.
        keys: Paths of the metadata to index.
    """
    db.execute(f'CREATE SCHEMA "{address.name}"')
    use(db, address.name)
    db.execute(_SCHEMA)
    for route in routes:
        db.execute(_ROUTE.format(route=route, kind="vector" if route == "dense" else "sparsevec"))
        if route in TEXT_ROUTES:
            db.execute(_TERMS.format(route=route))
    for number, key in enumerate(keys):
        db.execute(f"CREATE INDEX key_{number} ON documents USING hash ({indexed_value(key, 'filter')})")
    for name, value in {**meta, "format": FORMAT}.items():
        write_meta(db, name, value)


def use(db: Any, name: str) -> None:
    """Find tables in a bank's schema, and pgvector where it is installed.

    Raises:
        BankError: The server does not have pgvector, or an old one.
    """
    found = db.execute(
        "SELECT nspname, extversion FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace"
        " WHERE extname = 'vector'"
    ).fetchone()
    if found is None or tuple(map(int, found[1].split(".")[:2])) < (0, 7):
        raise BankError(
            f"the database has pgvector {found[1] if found else 'not installed'}; a bank needs 0.7 or later: install it"
            " on the server, then run CREATE EXTENSION vector"
        )
    db.execute(f'SET search_path TO "{name}", "{found[0]}"')


def exists(db: Any, name: str) -> bool:
    """Whether there is a schema of this name."""
    return db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,)).fetchone() is not None


def check(db: Any, address: Address) -> None:
    """Raise ``BankError`` where a schema is not a bank, or of another format."""
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = %s AND tablename IN ('meta', 'state')"
    if db.execute(tables, (address.name,)).fetchone()[0] != 2:
        found = "not a seed bank" if exists(db, address.name) else "no such bank"
        raise BankError(f"{address}: {found}; make one with ecom-rag bank build")
    found = db.execute(f"""SELECT value FROM "{address.name}".meta WHERE key = 'format'""").fetchone()
    if found is None or json.loads(found[0]) != FORMAT:
        raise BankError(
            f"{address}: has bank format {found and found[0]}, this version of ecom_rag reads {FORMAT}; build the bank"
            " again"
        )


def read_meta(db: Any) -> dict[str, Any]:
    """All that is noted about the bank."""
    return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}


def write_meta(db: Any, key: str, value: Any) -> None:
    """Note something, within a transaction."""
    db.execute(
        "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, json.dumps(value)),
    )
