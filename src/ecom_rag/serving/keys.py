"""API keys: who may do what. The file holds only digests; a key is shown once, when it is made.

::

    {"keys": [{"name": "search", "scopes": ["read"], "sha256": "9f86d0...", "created": "2026-11-29T13:30:00+00:00",
               "expires": "2027-01-01T00:00:00+00:00"}]}

A key is 256 random bits, so its plain SHA-256 tells nothing: a slow hash protects passwords, which can be guessed, and
would cost every request some tenth of a second here. The file may be edited by hand; a running service reads it again
when it changes.
"""

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from ecom_rag.errors import UsageError
from ecom_rag.files import disk, publish, readers

SCOPES = ("read", "write", "review", "admin")
PREFIX = "ecr_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REMEDY = "expected a file of keys as `ecom-rag keys add` writes it"
_OPEN_BITS = 0o077  # of a file's mode: group and others
_EVERY = 1.0  # seconds between two looks at the file

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without the key itself.

    Args:
        name: Who it was made for; unique in its file, shown in logs.
        scopes: Some of ``SCOPES``; ``admin`` includes the others.
        sha256: Digest of the key, in hexadecimal.
        created: When it was made.
        expires: From when on it is refused; ``None`` for never.
    """

    name: str
    scopes: tuple[str, ...]
    sha256: str
    created: datetime
    expires: datetime | None = None

    def allows(self, scope: str) -> bool:
        """Whether the key may do what needs a scope."""
        return scope in self.scopes or "admin" in self.scopes

    def valid(self, now: float) -> bool:
        """Whether the key has not expired at a time in seconds since 1970."""
        return self.expires is None or now < self.expires.timestamp()


class Keys:
    """The keys of a file, read again when the file changes, so that a revoked key stops within a second.

    A new version that cannot be read leaves the keys as they were, and is logged.

    Args:
        path: The file.
        clock: Seconds since 1970, for expiry.
        ticks: Seconds of a clock that never goes back, for the looks at the file.

    Raises:
        UsageError: The file cannot be read, or does not hold keys.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._ticks = ticks
        self._version = _version(self.path)
        self._keys = read(self.path)
        self._looked = ticks()
        self._warn_if_open()

    def check(self, token: str) -> Key | None:
        """The key that a client has sent, or ``None`` where it is unknown, revoked or expired.

        Args:
            token: What the client sent; the time that this takes does not depend on it.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for key in self._current():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found if found is not None and found.valid(self._clock()) else None

    def named(self, name: str) -> Key | None:
        """The key of a name, or ``None`` where it does not exist or has expired."""
        found = next((key for key in self._current() if key.name == name), None)
        return found if found is not None and found.valid(self._clock()) else None

    def _current(self) -> Sequence[Key]:
        now = self._ticks()
        if now - self._looked < _EVERY:
            return self._keys
        self._looked = now
        version = _version(self.path)  # before the file is read: a change meanwhile is seen by the next look
        if version == self._version:
            return self._keys
        self._version = version
        try:
            self._keys = read(self.path)
        except UsageError as error:
            logger.error("%s; the keys of before stay in force until the file is mended", error)
        else:
            logger.info("%s: read again, %d keys", self.path, len(self._keys))
            self._warn_if_open()
        return self._keys

    def _warn_if_open(self) -> None:
        with contextlib.suppress(OSError):
            mode = self.path.stat().st_mode & 0o777
            if mode & _OPEN_BITS:
                logger.warning("%s: has mode %03o, so others may open it; run chmod 600 on it", self.path, mode)


def read(path: str | Path) -> list[Key]:
    """The keys of a file, expired ones too, in the order of the file.

    Args:
        path: The file.

    Raises:
        UsageError: It cannot be read, or does not hold keys.
    """
    content = readers.read_json(path, remedy=_REMEDY)
    if not isinstance(content, dict) or set(content) != {"keys"} or not isinstance(content["keys"], list):
        raise UsageError(f'{path}: holds no JSON object with the list "keys" alone; {_REMEDY}')
    keys = [_key(item, f"{path}: keys[{number}]") for number, item in enumerate(content["keys"])]
    for what in ("name", "sha256"):
        values = [getattr(key, what) for key in keys]
        twice = next((number for number, value in enumerate(values) if value in values[:number]), None)
        if twice is not None:
            raise UsageError(f"{path}: keys[{twice}] has the {what} of an earlier key; remove one of them")
    return keys


def add(path: str | Path, name: str, scopes: Sequence[str], *, expires: str | None = None) -> str:
    """Make a key, and write its digest into a file, which is created where it does not exist.

    Args:
        path: The file of keys.
        name: Who the key is for: letters, digits, ``.``, ``_`` and ``-``, at most 64.
        scopes: What it may do, some of ``SCOPES``.
        expires: Date, or date and time, in ISO 8601 from when on it is refused; UTC where no zone is given.

    Returns:
        The key, which is stored nowhere.

    Raises:
        UsageError: The name is taken or no name, a scope is unknown, ``expires`` is no date in the future, or the file
            does not hold keys or cannot be written.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    until = None if expires is None else _time(expires, "`expires`")
    if until is not None and until <= now:
        raise UsageError(f"`expires` {expires} is past; name a later date")
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r:.80} is not a name of a key; expected letters, digits, '.', '_' and '-', at most 64")
    token = PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    key = Key(name, _scopes(list(scopes), "`scopes`"), digest, now, until)
    with _changing(Path(path), new=True) as keys:
        if any(own.name == name for own in keys):
            raise UsageError(f"{path}: a key with the name {name} already exists; revoke it first or choose another")
        keys.append(key)
    return token


def revoke(path: str | Path, name: str) -> None:
    """Remove a key from a file; a service that uses the file refuses the key within a second.

    Args:
        path: The file of keys.
        name: Of the key.

    Raises:
        UsageError: There is no such key, or the file does not hold keys or cannot be written.
    """
    with _changing(Path(path), new=False) as keys:
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            there = ", ".join(key.name for key in keys[:20]) or "none"
            raise UsageError(f"{path}: holds no key with the name {name!r:.80}; its keys: {there}")
        keys[:] = left


def described(key: Key) -> dict[str, Any]:
    """A key as JSON holds it, digest included."""
    found: dict[str, Any] = {"name": key.name, "scopes": list(key.scopes), "sha256": key.sha256}
    found["created"] = key.created.isoformat()
    if key.expires is not None:
        found["expires"] = key.expires.isoformat()
    return found


@contextlib.contextmanager
def _changing(path: Path, *, new: bool) -> Iterator[list[Key]]:
    """The keys of a file to change in place; written when the block ends well. One process at a time does this."""
    target = publish.target_of(str(path))
    if target.stream:
        raise UsageError(f"{path}: is no plain file; {_REMEDY}")
    folder = os.open(target.path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = [] if new and not target.path.exists() else read(target.path)
        yield keys
        _write(target.path, keys)
    finally:
        os.close(folder)


def _write(path: Path, keys: Sequence[Key]) -> None:
    """Write a file that its owner alone may open, whole or not at all."""
    content = orjson.dumps({"keys": [described(key) for key in keys]}, option=orjson.OPT_INDENT_2) + b"\n"
    with disk.writing(path), publish.beside(path) as fresh:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
            sink.write(content)
            sink.flush()
            with contextlib.suppress(OSError):  # the service's own account keeps a file that an administrator changes
                owner = path.stat()
                os.fchown(sink.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(sink.fileno())
        fresh.replace(path)
        disk.sync_folder(path.parent)


def _key(item: Any, where: str) -> Key:
    if not isinstance(item, dict) or not {"name", "scopes", "sha256", "created"} <= set(item):
        raise UsageError(f"{where}: is not an object with name, scopes, sha256 and created; {_REMEDY}")
    unknown = sorted(set(item) - {"name", "scopes", "sha256", "created", "expires"})
    if unknown:
        raise UsageError(f"{where}: {unknown[0]!r:.80} is unknown; remove it")
    if not isinstance(item["name"], str) or _NAME.fullmatch(item["name"]) is None:
        raise UsageError(f"{where}.name: expected letters, digits, '.', '_' and '-', at most 64")
    if not isinstance(item["sha256"], str) or _DIGEST.fullmatch(item["sha256"]) is None:
        raise UsageError(f"{where}.sha256: expected 64 lower-case hexadecimal digits, never the key itself")
    expires = item.get("expires")
    return Key(
        item["name"],
        _scopes(item["scopes"], f"{where}.scopes"),
        item["sha256"],
        _time(item["created"], f"{where}.created"),
        None if expires is None else _time(expires, f"{where}.expires"),
    )


def _scopes(found: Any, where: str) -> tuple[str, ...]:
    expected = f"expected some of {', '.join(SCOPES)}"
    if not isinstance(found, list) or not found:
        raise UsageError(f"{where}: names no scope; {expected}")
    for one in found:
        if one not in SCOPES:
            raise UsageError(f"{where}: {one!r:.80} is unknown; {expected}")
    return tuple(scope for scope in SCOPES if scope in found)


def _time(found: Any, where: str) -> datetime:
    try:
        when = datetime.fromisoformat(found)
        return (when.replace(tzinfo=UTC) if when.tzinfo is None else when).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{where}: {found!r:.80} is no date; expected one as 2027-01-01") from None


def _version(path: Path) -> tuple[int, int, int] | None:
    """What tells that a file is another one; ``None`` where it cannot be looked at."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # a name with a zero byte
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
