"""Losses of a reranker over its logits; distillation is ``kl_distillation`` and ``margin_mse`` over the same groups."""

import torch.nn.functional as F
from torch import Tensor

from ecom_rag.training.losses.distributed import mean_over_rows
from ecom_rag.training.losses.ranking import info_nce


def binary_cross_entropy(logits: Tensor, targets: Tensor, *, positive_weight: float = 1.0) -> Tensor:
    """Pointwise cross-entropy: each pair is relevant or not, by itself.

    Args:
        logits: ``(pairs,)``.
        targets: ``(pairs,)`` relevance in 0..1; graded relevance is a soft target.
        positive_weight: Weight of the relevant part, e.g. negatives per positive.

    Returns:
        The mean over pairs.
    """
    weight = logits.new_tensor(positive_weight, dtype=logits.float().dtype)
    each = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), pos_weight=weight, reduction="none")
    return mean_over_rows(each)


def listwise_cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    """Listwise cross-entropy over a query's documents: ListNet's top-one (Cao et al. 2007), as FlagEmbedding has it.

    Args:
        logits: ``(queries, group)``.
        positives: ``(queries, group)`` bool; with several positives each stands against the negatives alone.

    Returns:
        The mean over queries with at least one positive and one negative.
    """
    return info_nce(logits, positives, ~positives, temperature=1.0)
