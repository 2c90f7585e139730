"""Losses that push positives above negatives: circle, InfoNCE, supervised contrastive."""

import torch
from torch import Tensor

from ecom_rag.training.losses.distributed import mean_over_rows


def circle_loss(
    similarities: Tensor, positives: Tensor, negatives: Tensor, *, margin: float = 0.4, gamma: float = 80.0
) -> Tensor:
    """Circle loss, Sun et al. 2020 (arXiv:2002.10857), equations 6 and 8.

    ``log(1 + sum_n exp(gamma a_n (s_n - m)) * sum_p exp(-gamma a_p (s_p - (1 - m))))`` with the self-paced weights
    ``a_p = [1 + m - s_p]+`` and ``a_n = [s_n + m]+``, through which no gradient flows. One formula for both forms of
    the paper: with ``class_masks`` it is the one with class labels, every in-batch pair of an anchor taking part; with
    ``query_masks`` the one with pairs, a query's positives against hard and in-batch negatives.

    Args:
        similarities: ``(rows, columns)`` cosines.
        positives: ``(rows, columns)`` bool.
        negatives: ``(rows, columns)`` bool, disjoint from ``positives``.
        margin: m, the radius of the decision boundary; the paper's 0.25 for faces and people, 0.4 for fine-grained
            retrieval. Optima are ``s_p = 1 + m`` and ``s_n = -m``.
        gamma: Scale; the paper's 256 for faces, 128 for people, 80 for fine-grained retrieval.

    Returns:
        The mean over rows with at least one positive and one negative. Such a row counts even where its loss has
        become 0 (pytorch-metric-learning leaves rows of zero loss out of the mean).
    """
    s, is_p, is_n = _countable(similarities, positives, negatives)
    weights_p = (1 + margin - s.detach()).clamp(min=0)
    weights_n = (s.detach() + margin).clamp(min=0)
    toward_p = _log_sum_exp(-gamma * weights_p * (s - (1 - margin)), is_p)
    toward_n = _log_sum_exp(gamma * weights_n * (s - margin), is_n)
    return mean_over_rows(torch.nn.functional.softplus(toward_p + toward_n))


def info_nce(scores: Tensor, positives: Tensor, negatives: Tensor, *, temperature: float = 0.02) -> Tensor:
    """InfoNCE with hard and in-batch negatives, van den Oord et al. 2018 (arXiv:1807.03748).

    Each positive stands against the row's negatives alone: other positives of the same row are not in its denominator.

    Args:
        scores: ``(rows, columns)``, higher is more similar.
        positives: ``(rows, columns)`` bool.
        negatives: ``(rows, columns)`` bool; what is in neither (false negatives) is ignored.
        temperature: Scores are divided by it; 0.02 as BGE was trained with.

    Returns:
        The mean over rows with at least one positive and one negative, of the mean over a row's positives.
    """
    s, is_p, is_n = _countable(scores, positives, negatives)
    s = s / temperature
    against = _log_sum_exp(s, is_n)[:, None]  # (rows, 1)
    each = torch.nn.functional.softplus(against - s)  # -log(e^p / (e^p + sum e^n)), exact where p is far above
    return mean_over_rows(torch.where(is_p, each, 0).sum(1) / is_p.sum(1))


def supervised_contrastive(
    similarities: Tensor, positives: Tensor, negatives: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """Supervised contrastive loss, Khosla et al. 2020 (arXiv:2004.11362), equation 2 (L_out).

    Args:
        similarities: ``(rows, columns)`` cosines.
        positives: ``(rows, columns)`` bool.
        negatives: ``(rows, columns)`` bool.
        temperature: Similarities are divided by it; the paper's 0.1.

    Returns:
        The mean over rows with at least one positive (a row without negatives still has to treat its positives alike),
        of the mean over positives of ``-log(e^p / sum over positives and negatives)``.
    """
    rows = positives.any(1)
    s, is_p = similarities[rows].float() / temperature, positives[rows]
    everything = _log_sum_exp(s, is_p | negatives[rows])
    return mean_over_rows(everything - torch.where(is_p, s, 0).sum(1) / is_p.sum(1))


def _countable(scores: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows that have something to compare, in float32: the others would be log(0) with NaN gradients."""
    rows = positives.any(1) & negatives.any(1)
    return scores[rows].float(), positives[rows], negatives[rows]


def _log_sum_exp(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, -torch.inf).logsumexp(1)
