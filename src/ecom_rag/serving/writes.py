"""Changes that requests make, on the writer thread: each is on the disk when its function returns, or not made at all.

What fails is a ``Problem`` where a client can do something about it (another sequence, a key used twice, a busy bank, a
full disk), else the error of the bank. Where nothing is returned, nothing was written; and an attempt with the same
idempotency key finds the answer of one that was.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ecom_rag.errors import BankBusyError, BankChangedError, BankFullError, RepeatedKeyError
from ecom_rag.files.records import Record
from ecom_rag.models import Embeddings
from ecom_rag.seeds.bank import Change, Request, SeedBank
from ecom_rag.serving.problems import Problem

LONGEST_KEY = 255
_RETRY_SECONDS = 1.0


def answered(
    bank: SeedBank, records: Sequence[Record], *, key: str | None, expected_sequence: int | None = None
) -> Change | None:
    """The answer that an ``upsert`` was given before, so that its texts need not be encoded again.

    Args:
        bank: Leased from ``Banks``.
        records: Of the request.
        key: Of the request.
        expected_sequence: Of the request.

    Raises:
        Problem: 409, another request has used the key; 422, not a key.
    """
    request = _request("upsert", key, records=records, expected_sequence=expected_sequence)
    with _problems():
        return None if request is None else bank.answered(request)


def upsert(
    bank: SeedBank,
    records: Sequence[Record],
    *,
    embeddings: Embeddings | None = None,
    fingerprint: str | None = None,
    expected_sequence: int | None = None,
    key: str | None = None,
) -> Change:
    """Write records, all or none.

    Args:
        bank: Leased from ``Banks``.
        records: What JSON holds; they are part of what the key stands for, their embeddings are not.
        embeddings: Of the records; by default the bank encodes them, in this thread.
        fingerprint: Of the model that gave them.
        expected_sequence: ``If-Match``: the sequence that the bank must be at.
        key: ``Idempotency-Key``, with the name of the client before it, where clients do not know of each other.

    Returns:
        What was done, now or by an earlier attempt.

    Raises:
        Problem: 412, another sequence; 409, another request has used the key; 422, not a key; 503, another writer
            keeps the bank; 507, the disk is full.
        RecordError: Something that is not a record.
        EmbeddingError: Embeddings that do not fit.
        BankError: The bank is closed, or damaged.
    """
    request = _request("upsert", key, records=records, expected_sequence=expected_sequence)
    with _problems():
        return bank.upsert(
            records,
            embeddings=embeddings,
            fingerprint=fingerprint,
            expected_sequence=expected_sequence,
            request=request,
        )


def delete(
    bank: SeedBank,
    ids: Iterable[Any] | None = None,
    *,
    filter: Any = None,
    confirmed: bool = False,
    allow_most: bool = False,
    expected_sequence: int | None = None,
    key: str | None = None,
) -> Change:
    """Remove records, by id or by what a filter matches.

    Args:
        bank: Leased from ``Banks``.
        ids: Strings and integers; or
        filter: An expression or its dict form.
        confirmed: The client has said that what the filter matches is to go, by ``dry_run=false``.
        allow_most: Let a filter remove more than half of the documents.
        expected_sequence: ``If-Match``: the sequence that the bank must be at.
        key: ``Idempotency-Key``, see ``upsert``.

    Returns:
        What was done, now or by an earlier attempt.

    Raises:
        Problem: 422, a filter without confirmation, or not a key; 412, 409, 503 and 507 as for ``upsert``.
        UsageError: Not a filter, an empty one, one that matches too much, or neither or both of ids and a filter.
        BankError: The bank is closed, or damaged.
    """
    if filter is not None and not confirmed:
        raise Problem(
            422,
            "a filter removes all that it matches; look at what that is with dry_run=true, then pass dry_run=false",
            code="confirmation_required",
            param="dry_run",
        )
    wanted = None if ids is None else list(ids)
    request = _request(
        "delete", key, ids=wanted, filter=filter, allow_most=allow_most, expected_sequence=expected_sequence
    )
    with _problems():
        return bank.delete(
            wanted, filter=filter, allow_most=allow_most, expected_sequence=expected_sequence, request=request
        )


def dry_run(bank: SeedBank, ids: Iterable[Any] | None = None, *, filter: Any = None) -> Change:
    """What ``delete`` would do now; nothing is written.

    Args:
        bank: Leased from ``Banks``.
        ids: Strings and integers; or
        filter: An expression or its dict form.

    Returns:
        The sequence to expect, how many documents would go, and notes on the filter.

    Raises:
        UsageError: Not a filter, or neither or both of ids and a filter.
        BankError: The bank is closed, or damaged.
    """
    return bank.would_delete(ids, filter=filter)


def _request(operation: str, key: str | None, **asked: Any) -> Request | None:
    """A request by its key and a digest of all that it asks for."""
    if key is None:
        return None
    if not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise Problem(
            422,
            f"the idempotency key is not 1 to {LONGEST_KEY} printable ASCII characters; a UUID is a good one",
            code="invalid_idempotency_key",
            param="Idempotency-Key",
        )
    whole = json.dumps([operation, asked], sort_keys=True, default=repr).encode()
    return Request(key, hashlib.sha256(whole).hexdigest())


@contextlib.contextmanager
def _problems() -> Iterator[None]:
    """Make statuses of errors that a client can do something about; without the server's paths."""
    try:
        yield
    except BankChangedError:
        raise Problem(
            412,
            "the bank is at another sequence than If-Match says, so nothing was written; read it again and repeat",
            code="sequence_changed",
            param="If-Match",
        ) from None
    except RepeatedKeyError:
        raise Problem(
            409,
            "the idempotency key was used for another request; give each request a key of its own",
            code="idempotency_key_reused",
            param="Idempotency-Key",
        ) from None
    except BankBusyError:
        raise Problem(
            503,
            "another writer has the bank, so nothing was written; try again",
            code="bank_busy",
            retry_after=_RETRY_SECONDS,
        ) from None
    except BankFullError:
        raise Problem(
            507, "the disk of the bank is full, so nothing was written; free some space", code="disk_full"
        ) from None
