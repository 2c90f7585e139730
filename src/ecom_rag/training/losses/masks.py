"""Who is whose positive and negative in a batch, as boolean matrices; and the cosines that the losses start from."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine similarities ``(m, n)`` float32 of ``left (m, dim)`` and ``right (n, dim)``, exact under autocast too."""
    with torch.autocast(left.device.type, enabled=False):
        return F.normalize(left.float(), dim=-1) @ F.normalize(right.float(), dim=-1).T


def class_masks(labels: Tensor, *, columns: Tensor | None = None, offset: int = 0) -> tuple[Tensor, Tensor]:
    """All in-batch pairs by label: same label is a positive, another label a negative, an anchor is not its own pair.

    Args:
        labels: ``(m,)`` integers, the class of each anchor.
        columns: ``(n,)`` integers, the class of each column; by default ``labels``.
        offset: Column of the first anchor (``rank * m`` after ``gather``).

    Returns:
        ``positives`` and ``negatives``, ``(m, n)`` bool.
    """
    columns = labels if columns is None else columns
    same = labels[:, None] == columns[None, :]  # (m, n)
    own = torch.arange(len(labels), device=labels.device)[:, None] + offset
    itself = own == torch.arange(len(columns), device=labels.device)[None, :]
    return same & ~itself, ~same


def query_masks(
    queries: Tensor,
    owners: Tensor,
    is_positive: Tensor,
    *,
    query_texts: Tensor | None = None,
    document_texts: Tensor | None = None,
    known_positives: Tensor | None = None,
    in_batch: bool = True,
) -> tuple[Tensor, Tensor]:
    """A query's own positives against its hard negatives and the other queries' documents, false negatives left out.

    A document is a false negative, and then is ignored, when it has the query's text, the text of one of the query's
    positives, or a text known to be relevant to it.

    Args:
        queries: ``(m,)`` the number of each query, unique in the (gathered) batch.
        owners: ``(n,)`` the number of the query that brought each document.
        is_positive: ``(n,)`` bool, whether a document is a positive of its owner, else one of its hard negatives.
        query_texts: ``(m,)`` integers that are equal where texts are.
        document_texts: ``(n,)`` the same for documents.
        known_positives: ``(m, p)`` text integers of all that is relevant to a query, in the batch or not; pad with -1.
        in_batch: Whether other queries' documents are negatives at all.

    Returns:
        ``positives`` and ``negatives``, ``(m, n)`` bool.
    """
    own = queries[:, None] == owners[None, :]  # (m, n)
    positives = own & is_positive[None, :]
    negatives = ~positives if in_batch else own & ~is_positive[None, :]
    if document_texts is not None:
        same_text = document_texts[:, None] == document_texts[None, :]  # (n, n)
        negatives &= ~((positives.float() @ same_text.float()) > 0)
        if query_texts is not None:
            negatives &= query_texts[:, None] != document_texts[None, :]
        if known_positives is not None:
            for known in known_positives.unbind(1):  # p is small; (m, n) at a time instead of (m, p, n)
                negatives &= known[:, None] != document_texts[None, :]
    return positives, negatives
