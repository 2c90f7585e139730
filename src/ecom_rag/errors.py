"""The error tree. Every message says where, what was found, what was expected and what to do.

::

    EcomRagError            anything the user can mend; the command line prints it in one line and exits 2
    ├── UsageError          an option or argument that makes no sense
    ├── RecordError         a line of input that is not a record
    ├── ModelError          a checkpoint that cannot be found, read or used for what was asked
    ├── EmbeddingError      numbers that are not numbers, or that do not fit each other
    ├── BankError           a seed bank that is not there, is damaged, or does not fit what is asked of it
    │   ├── BankBusyError       another writer has it; the same change may succeed later
    │   ├── BankFullError       the disk that it is on is full
    │   ├── BankChangedError    it has been changed since the sequence that a change expected
    │   └── RepeatedKeyError    an idempotency key that another request has used
    ├── PolicyError         a policy that is not one, or that does not fit what it is asked to decide
    ├── ResumeError         an unfinished run that cannot be continued as asked
    └── ServiceError        a service that refuses a request, or cannot be reached
"""


class EcomRagError(Exception):
    """Base of all errors that a user can mend."""


class UsageError(EcomRagError):
    """An option or argument that makes no sense."""


class RecordError(EcomRagError):
    """A line of input that is not a record.

    Args:
        where: File and line (or item, or row), e.g. ``queries.jsonl:17``.
        reason: What was found, what was expected, and what to do.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)  # as they came, so that the error can be pickled and copied
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class ModelError(EcomRagError):
    """A checkpoint that cannot be found, read or used for what was asked."""


class EmbeddingError(EcomRagError):
    """Embeddings that hold NaN or infinity, or whose shapes do not fit each other."""


class BankError(EcomRagError):
    """A seed bank that is not there, is damaged, is being written, or does not fit what is asked of it."""


class BankBusyError(BankError):
    """Another writer has the bank for longer than the timeout; nothing was written, and it may succeed later."""


class BankFullError(BankError):
    """The disk that the bank is on is full; nothing was written."""


class BankChangedError(BankError):
    """The bank is at another sequence than a change expected; nothing was written."""


class RepeatedKeyError(BankError):
    """An idempotency key that another request has used; nothing was written."""


class PolicyError(EcomRagError):
    """A policy that is not one, was changed by hand, or does not fit the results that it is asked to decide."""


class DistributionError(EcomRagError):
    """A cluster that does not answer, or whose workers cannot do what was asked."""


class ResumeError(EcomRagError):
    """An unfinished run that cannot be continued as asked."""


class ServiceError(EcomRagError):
    """A service that refuses a request, or cannot be reached.

    Args:
        message: What the service said, and where.
        status: Of the answer; ``None`` where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def mark_resumable(error: BaseException) -> None:
    """Note on an error that what was done before it is kept, and that a run with ``resume`` goes on from there."""
    error.__dict__["_ecom_rag_resumable"] = True


def is_resumable(error: BaseException) -> bool:
    """Whether what was done before an error is kept."""
    return bool(error.__dict__.get("_ecom_rag_resumable"))
