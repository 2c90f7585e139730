"""Sessions of browsers: a key is exchanged for a cookie, so that a page holds no key."""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from ecom_rag.serving.keys import Key, Keys

COOKIE = "ecom_rag_session"


class Sessions:
    """Signed cookies, each for one key; nothing is stored, and a restart ends all of them.

    A cookie ends when its time is over, or when its key is revoked, replaced or expired.

    Args:
        keys: The keys that sessions are for.
        seconds: How long a session lasts.
        secret: What signs the cookies; by default random, of this process.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        seconds: int = 8 * 3600,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._seconds = seconds
        self._secret = secret or secrets.token_bytes(32)
        self._clock = clock

    def log_in(self, token: str, *, secure: bool) -> str | None:
        """Exchange a key for a cookie.

        Args:
            token: The key, as the person entered it.
            secure: Whether the page came over https.

        Returns:
            The value of the header ``Set-Cookie``; ``None`` where the key is not valid.
        """
        key = self._keys.check(token.strip())
        if key is None:
            return None
        until = int(self._clock()) + self._seconds
        return _cookie(f"{key.name}:{until}:{self._sign(key, until)}", self._seconds, secure)

    @staticmethod
    def log_out(*, secure: bool) -> str:
        """The value of the header ``Set-Cookie`` that ends a session in the browser."""
        return _cookie("", 0, secure)

    def key(self, cookie: str) -> Key | None:
        """The key of a session, or ``None`` where the cookie is not ours or has ended.

        Args:
            cookie: Its value.
        """
        name, _, rest = cookie.partition(":")
        until, _, signature = rest.partition(":")
        key = self._keys.named(name)
        if key is None or not (until.isascii() and until.isdigit() and len(until) <= 12):
            return None
        if not hmac.compare_digest(self._sign(key, int(until)).encode(), signature.encode("utf-8", "replace")):
            return None
        return key if self._clock() < int(until) else None

    def _sign(self, key: Key, until: int) -> str:
        """With the key's digest: a key that replaces another of its name does not take over its sessions."""
        said = f"{key.name}:{until}:{key.sha256}".encode()
        return base64.urlsafe_b64encode(hmac.digest(self._secret, said, hashlib.sha256)).decode().rstrip("=")


def _cookie(value: str, seconds: int, secure: bool) -> str:
    end = "; Secure" if secure else ""
    return f"{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{end}"
