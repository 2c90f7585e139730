"""The two collections of a bank: what is noted about it, and its rows."""

from collections.abc import Mapping, Sequence

from ecom_rag.errors import BankError
from ecom_rag.seeds.address import OF_ROWS
from ecom_rag.seeds.milvus.client import Client, Field

FORMAT = 1
ROUTES = ("bm25", "dense", "sparse")
INDEXES = {"bm25": "SPARSE_INVERTED_INDEX", "dense": "FLAT", "sparse": "SPARSE_INVERTED_INDEX"}
"""Kinds of index that miss no row."""
LONGEST = 65_535  # bytes of a text that a server holds
_KEY = 255
_LOG: list[Field] = [
    ("key", "VARCHAR", {"max_length": _KEY}),
    ("value", "VARCHAR", {"max_length": LONGEST}),
    ("none", "FLOAT_VECTOR", {"dim": 2}),  # a collection without a vector is refused
]
_ROWS: list[Field] = [
    ("row", "INT64", {}),
    ("born", "INT64", {}),  # the sequence that it came with
    ("id_digest", "VARCHAR", {"max_length": 64}),  # SHA-256, as ids and texts may be of any length
    ("text_digest", "VARCHAR", {"max_length": 64}),
    ("record", "VARCHAR", {"max_length": LONGEST}),
    ("filter", "JSON", {}),
]


def check_routes(client: Client, routes: Sequence[str]) -> None:
    """Raise ``BankError`` where the server cannot hold what routes search."""
    missing = [route for route in routes if route != "dense"]
    if missing and not client.has_sparse:
        raise BankError(
            f"{client.address}: the server is {client.shown}, which has no sparse vectors, so no route"
            f" {', '.join(missing)}; expected 2.4 or later, or only the route dense"
        )


def rows_name(client: Client, revision: int) -> str:
    """The name of a collection of rows that is made at some revision of what is noted."""
    return f"{client.address.name}{OF_ROWS}{revision}"


def rows_names(client: Client) -> list[str]:
    """The collections of rows that there are, those that nothing refers to included."""
    begin = f"{client.address.name}{OF_ROWS}"
    return [name for name in client.names() if name.startswith(begin) and name.removeprefix(begin).isdecimal()]


def create_log(client: Client) -> None:
    """Make the collection of what is noted about a bank, which has its name."""
    client.create(client.address.name, _LOG, {"none": "FLAT"})


def create_rows(client: Client, collection: str, routes: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Make a collection of rows.

    Args:
        client: A connection.
        collection: Its name.
        routes: Of ``ROUTES``.
        sizes: Dimension of ``dense``.
    """
    vectors: list[Field] = [
        (route, "FLOAT_VECTOR", {"dim": sizes["dense"]}) if route == "dense" else (route, "SPARSE_FLOAT_VECTOR", {})
        for route in routes
    ]
    client.drop(collection)  # what an interrupted change has left
    client.create(collection, [*_ROWS, *vectors], {route: INDEXES[route] for route in routes})


def check_indexes(client: Client, collection: str, routes: Sequence[str]) -> None:
    """Raise ``BankError`` for an index that may miss rows."""
    found = client.indexes(collection)
    for route in routes:
        expected = f"{INDEXES[route]} (IP)"
        if found.get(route) != expected:
            raise BankError(
                f"{client.address}: the index of {route} in {collection} is {found.get(route)}; expected {expected},"
                " which misses no row: drop it and make that one"
            )
