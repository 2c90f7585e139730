"""Relevance that a reranker has computed before, kept in one file from run to run: listings and candidates repeat."""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import PathLike, flag, pairs_of, path_of
from ecom_rag.errors import UsageError
from ecom_rag.models.cross_encoder import CrossEncoder, sigmoid

FORMAT = 1
_APPLICATION = 0x4552534B  # "ERSK", by which SQLite's own tools tell whose file it is
_WAIT = 30.0  # seconds for another run to finish its block
_AT_ONCE = 500  # keys of one query
_SCHEMA = (
    "CREATE TABLE scores (pair BLOB PRIMARY KEY, logit REAL NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)


class KnownScores:
    """A reranker that looks a pair up before it reads it. ``rerank`` takes it in place of a ``CrossEncoder``.

    A pair is known by the digest of both texts, of the reranker's weights and of its settings, so that one file serves
    several rerankers; the texts are not in it. Several runs may use a file at once. The numbers of an earlier run can
    differ in their last digits from those that the reranker would give now, since a batch of other texts rounds
    otherwise.

    Args:
        path: The file; it is made where there is none.
        cross_encoder: The reranker.

    Attributes:
        found: Distinct pairs of all calls so far that were known.
        computed: Distinct pairs of all calls so far that the reranker had to read.

    Raises:
        UsageError: The file cannot be read or written, is damaged, of a newer version or not ours.
    """

    def __init__(self, path: PathLike, cross_encoder: CrossEncoder) -> None:
        self.path = Path(path_of(path, "path"))
        self.found = self.computed = 0
        self._cross_encoder = cross_encoder
        settings = json.dumps(cross_encoder.settings, sort_keys=True)
        self._salt = hashlib.blake2b(f"{cross_encoder.fingerprint}\n{settings}".encode(), digest_size=16).digest()
        with self._told():
            self._db = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
        try:
            with self._told():
                self._open()
        except BaseException:
            self.close()
            raise

    def score(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        normalize: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """As ``CrossEncoder.score``; what has to be computed is kept when the call ends.

        Args:
            pairs: Any iterable of ``(query, document)``.
            normalize: Put the logits through a sigmoid.
            progress: Called with the number of pairs done.

        Returns:
            ``(pairs,)`` float32 logits, or in 0..1 with ``normalize``; higher is more relevant.

        Raises:
            UsageError: As ``CrossEncoder.score``, or the file cannot be read or written.
            EmbeddingError: The model gave NaN or infinity; nothing is kept of the call.
        """
        normalize = flag(normalize, "normalize")
        asked = pairs_of(pairs)
        keys = [self._key(query, document) for query, document in asked]
        known = self._known(set(keys))
        missing = {key: pair for key, pair in zip(keys, asked, strict=True) if key not in known}
        if progress is not None:
            progress(sum(key in known for key in keys))
        self.found += len(known)
        self.computed += len(missing)
        if missing:
            logits = self._cross_encoder.score(missing.values(), progress=progress)
            known.update(zip(missing, logits.tolist(), strict=True))
            self._keep({key: known[key] for key in missing})
        scores = np.array([known[key] for key in keys], np.float32)
        return sigmoid(scores) if normalize else scores

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _open(self) -> None:
        """Make the tables of a new file; raises unless the file is ours."""
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        if not self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            for statement in _SCHEMA:
                self._db.execute(statement)
        [application], [version] = (
            self._db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        self._db.execute("COMMIT")
        if application != _APPLICATION:
            raise UsageError(
                f"{self.path}: is not a file of known scores; expected one that an earlier run made, or a free name"
            )
        if version > FORMAT:
            raise UsageError(
                f"{self.path}: has format {version} of a newer ecom_rag; this version reads up to {FORMAT};"
                " update ecom_rag"
            )
        self._db.execute("PRAGMA journal_mode = WAL")

    def _key(self, query: str, document: str) -> bytes:
        first = query.encode("utf-8", "surrogatepass")
        second = document.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(len(first).to_bytes(8) + first + second, digest_size=16, key=self._salt).digest()

    def _known(self, keys: set[bytes]) -> dict[bytes, float]:
        found: dict[bytes, float] = {}
        with self._told():
            asked = sorted(keys)
            for start in range(0, len(asked), _AT_ONCE):
                part = asked[start : start + _AT_ONCE]
                places = ",".join("?" * len(part))
                found.update(self._db.execute(f"SELECT pair, logit FROM scores WHERE pair IN ({places})", part))
        return found

    def _keep(self, scores: dict[bytes, float]) -> None:
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", sorted(scores.items()))
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """One line for whatever SQLite finds wrong."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            other = not isinstance(error, sqlite3.OperationalError) or "no such" in str(error)
            remedy = (
                "expected one that an earlier run made, or a free name" if other else "check the folder and the disk"
            )
            raise UsageError(f"{self.path}: cannot be used as a file of known scores ({error}); {remedy}") from None
