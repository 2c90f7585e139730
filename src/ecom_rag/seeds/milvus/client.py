"""The connection to a Milvus server: every question is answered as of now, and every failure is one line."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import BankError, UsageError
from ecom_rag.seeds.address import Address

MOST = 16_384
"""Results of a search that a server gives at most."""
PASSWORD = "MILVUS_PASSWORD"
_PORT = 19530
_PATIENCE = {"timeout": 600.0, "retry_times": 3}  # seconds; a server that is gone is not waited for
_ONE_STATE = {"consistency_level": "Strong"}
_TOGETHER = 4_000_000  # bytes that are inserted at once

Field = tuple[str, str, dict[str, Any]]
"""Name, type and parameters of a field."""


class Client:
    """An open connection.

    Args:
        address: Of a bank on the server.

    Raises:
        UsageError: pymilvus is not installed, or a parameter of the address is unknown.
        BankError: The server cannot be reached.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        with self.errors():
            self._client = _connected(address)
            self._loaded: set[str] = set()
            self.version: str = self._client.get_server_version()

    @property
    def shown(self) -> str:
        """The server, for people."""
        return f"Milvus {self.version.removeprefix('v').replace('milvus_lite-', 'Lite ')}"

    @property
    def has_sparse(self) -> bool:
        """Whether the server has sparse vectors: from 2.4 on; Milvus Lite has them too."""
        numbers = re.match(r"v?(\d+)\.(\d+)", self.version)
        return numbers is None or tuple(map(int, numbers.groups())) >= (2, 4)

    def names(self) -> list[str]:
        """The collections that there are."""
        with self.errors():
            return list(self._client.list_collections())

    def has(self, collection: str) -> bool:
        """Whether there is a collection."""
        with self.errors():
            return bool(self._client.has_collection(collection))

    def create(self, collection: str, fields: Sequence[Field], indexes: Mapping[str, str]) -> None:
        """Make a collection, ready for questions.

        Args:
            collection: Its name.
            fields: The first is the primary key.
            indexes: By vector field the kind of its index.
        """
        from pymilvus import DataType

        with self.errors(changing=True):
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            for number, (name, kind, parameters) in enumerate(fields):
                schema.add_field(name, getattr(DataType, kind), is_primary=number == 0, **parameters)
            chosen = self._client.prepare_index_params()
            for name, kind in indexes.items():
                chosen.add_index(name, index_type=kind, index_name=name, metric_type="IP")
            self._client.create_collection(collection, schema=schema, **_ONE_STATE)
            self._client.create_index(collection, chosen, sync=False)  # of no rows: nothing to wait for
            self._client.load_collection(collection)

    def indexes(self, collection: str) -> dict[str, str]:
        """By vector field the kind of its index."""
        with self.errors():
            found = [
                self._client.describe_index(collection, name) for name in self._client.list_indexes(collection) if name
            ]
        return {one["field_name"]: f"{one['index_type']} ({one['metric_type']})" for one in found}

    def drop(self, collection: str) -> None:
        """Remove a collection, if there is one."""
        with self.errors(changing=True):
            self._client.drop_collection(collection)

    def insert(self, collection: str, rows: Sequence[dict[str, Any]], size: int = 1000) -> None:
        """Append rows; acknowledged, but not at once.

        Args:
            collection: Where.
            rows: Of new primary keys: the server does not look.
            size: Bytes of a row, about.
        """
        step = max(1, _TOGETHER // max(size, 1))
        with self.errors(changing=True):
            for start in range(0, len(rows), step):
                self._client.insert(collection, list(rows[start : start + step]), **_PATIENCE)

    def delete(self, collection: str, where: str) -> None:
        """Remove the rows that an expression holds for."""
        with self.errors(changing=True):
            self._client.delete(collection, filter=where, **_PATIENCE)

    def query(self, collection: str, where: str, fields: Sequence[str], *, limit: int | None = None) -> list[Any]:
        """Fields of the rows that an expression holds for, in any order; of one state."""
        more = {} if limit is None else {"limit": limit}
        found = self._asked(collection, "query", filter=where, output_fields=list(fields), **more)
        return list(found)

    def count(self, collection: str, where: str) -> int:
        """How many rows an expression holds for."""
        return int(self.query(collection, where, ["count(*)"])[0]["count(*)"])

    def search(
        self, collection: str, key: str, field: str, queries: Sequence[Any], limit: int, where: str
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Primary keys and inner products of the rows with the largest ones, best first, for each query.

        Args:
            collection: Where.
            key: Its primary key.
            field: Of vectors.
            queries: Vectors, dense or as dicts.
            limit: Rows for each, ``MOST`` at most.
            where: An expression for the rows that may be returned.
        """
        found = self._asked(
            collection,
            "search",
            data=list(queries),
            anns_field=field,
            limit=limit,
            filter=where,
            output_fields=[key],
            search_params={"metric_type": "IP", "params": {}},
        )
        return [
            (
                np.array([hit["entity"][key] for hit in hits], np.int64),
                np.array([hit["distance"] for hit in hits], np.float64),
            )
            for hits in found
        ]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _asked(self, collection: str, method: str, **arguments: Any) -> Any:
        """An answer; a collection is loaded for the first question, and for the first after a restart of the server."""
        with self.errors():
            if collection not in self._loaded:
                self._client.load_collection(collection)
                self._loaded.add(collection)
            ask = partial(getattr(self._client, method), collection, **arguments, **_ONE_STATE, **_PATIENCE)
            try:
                return ask()
            except Exception as error:
                if "load" not in str(error):
                    raise
                self._client.load_collection(collection)
                return ask()

    @contextlib.contextmanager
    def errors(self, *, changing: bool = False) -> Iterator[None]:
        """Make a ``BankError`` of what pymilvus raises.

        Args:
            changing: Whether a change may be made without an answer.

        Raises:
            BankError: What the server or the connection says.
        """
        try:
            yield
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("pymilvus", "grpc"):
                raise
            reason = " ".join(str(getattr(error, "message", "") or error).split())[:300]
            lost = "; whether the change was made is not known: look at the sequence, or repeat it"
            raise BankError(f"{self.address}: the server says: {reason}{lost if changing else ''}") from None


def _connected(address: Address) -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else it writes to stderr that a server wants fewer pings
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise UsageError(
            "a bank in Milvus needs the package pymilvus; install it with pip install 'ecom-rag[milvus]'"
        ) from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs a traceback of each error that it raises
    parts = urlsplit(address.server)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    secure = options.pop("secure", "false")
    if options or secure not in ("true", "false"):
        raise UsageError(f"{address}: has the parameters {parts.query!r:.80}; expected only secure=true, and bank=NAME")
    return MilvusClient(
        uri=f"{'https' if secure == 'true' else 'http'}://{parts.hostname or 'localhost'}:{parts.port or _PORT}",
        user=unquote(parts.username or ""),
        password=unquote(parts.password or os.environ.get(PASSWORD, "")),
        db_name=unquote(parts.path.strip("/")),
        timeout=10.0,
    )
