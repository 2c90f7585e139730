"""What a caller of the journal can mend."""

from ecom_rag.errors import UsageError


class UnknownDecision(UsageError):
    """No decision has this id."""


class LeaseLost(UsageError):
    """The item is with another person, or was answered meanwhile."""


class NothingToUndo(UsageError):
    """The person has done nothing, or nothing recent, that still stands."""


class JournalDamaged(UsageError):
    """The file is not what was written."""
