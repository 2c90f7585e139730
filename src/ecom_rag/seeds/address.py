"""Where a bank is: ``postgresql://user@host:port/database?bank=NAME``, ``milvus://host:port/database?bank=NAME``.

Each bank is a schema of its name, or two collections whose names begin with it.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from ecom_rag.errors import UsageError

KINDS = {"postgresql": "PostgreSQL", "postgres": "PostgreSQL", "milvus": "Milvus"}
"""What is behind an address, by its scheme."""
SCHEMES = tuple(f"{scheme}://" for scheme in KINDS)
OF_ROWS = "_ecomrag_"
"""What stands in the names of a bank's other collections in Milvus, and so in no name of a bank."""
_NAMES = {  # what each kind takes as a name
    "PostgreSQL": (re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}"), "up to 48 letters, digits, '-' and '_'"),
    "Milvus": (
        re.compile(rf"(?!.*{OF_ROWS})[A-Za-z][A-Za-z0-9_]{{0,47}}"),
        f"a letter, then up to 47 letters, digits and '_', without {OF_ROWS!r}",
    ),
}
_DEFAULT = "seeds"
_UNFINISHED = ".partial"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a bank is.

    Args:
        kind: Of the server: a value of ``KINDS``.
        server: What is connected to, as a URL; may hold a password.
        name: Of the bank.
        shown: The bank's URL without the password, for messages and provenance.
    """

    kind: str
    server: str
    name: str
    shown: str

    @classmethod
    def of(cls, url: str) -> Self:
        """The address that a URL says.

        Args:
            url: As above; ``bank`` is ``seeds`` by default. Other parameters: those of libpq; for Milvus ``secure``.

        Raises:
            UsageError: Not such a URL.
        """
        try:
            parts = urlsplit(url)
            host, options = _host(parts.hostname, parts.port), dict(parse_qsl(parts.query, keep_blank_values=True))
        except ValueError:
            parts, host, options = urlsplit(""), "", {}
        if f"{parts.scheme}://" not in SCHEMES:
            raise UsageError(
                "the address of the bank is not one; expected postgresql://user@host:port/database?bank=NAME or"
                " milvus://host:port/database?bank=NAME"
            )
        kind, name = KINDS[parts.scheme], options.pop("bank", _DEFAULT)
        pattern, expected = _NAMES[kind]
        if not pattern.fullmatch(name):
            raise UsageError(f"the bank's name {name[:60]!r} does not fit; expected {expected}, e.g. ?bank=seeds")
        query = f"?{urlencode(options)}" if options else ""
        server = f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
        user = f"{parts.username}@" if parts.username else ""
        scheme = "milvus" if kind == "Milvus" else "postgresql"
        return cls(kind, server, name, f"{scheme}://{user}{host}{parts.path}?bank={name}")

    def unfinished(self) -> Self:
        """Where the bank is while it is built."""
        return replace(self, name=f"{self.name}{_UNFINISHED}", shown=f"{self.shown}{_UNFINISHED}")

    def __str__(self) -> str:
        return self.shown


def is_address(path: str) -> bool:
    """Whether a path is the address of a bank in a server, and not a folder."""
    return path.startswith(SCHEMES)


def folder_of(path: str | os.PathLike[str]) -> str:
    """The folder of a bank on disk.

    Raises:
        UsageError: Not a path, or the address of a bank in a server.
    """
    from ecom_rag.arguments import path_of  # with NumPy, which the command line does not load for a help text

    folder = path_of(path, "path")
    if is_address(folder):
        found = Address.of(folder)
        raise UsageError(
            f"{found}: is a bank in {found.kind}, which can be searched, changed and copied; here a bank on"
            " disk is needed, bank migrate makes one of it"
        )
    return folder


def shown(bank: str) -> str:
    """A bank's folder or address as a message shows it: without a password.

    Raises:
        UsageError: It begins as an address and is none.
    """
    return str(Address.of(bank)) if is_address(bank) else bank


def place_of(bank: str) -> str:
    """Where a bank is, in full and without a password: an absolute path, or an address.

    Raises:
        UsageError: It begins as an address and is none.
    """
    return shown(bank) if is_address(bank) else str(Path(bank).resolve())


def _host(name: str | None, port: int | None) -> str:
    return f"{name or ''}{'' if port is None else f':{port}'}"
