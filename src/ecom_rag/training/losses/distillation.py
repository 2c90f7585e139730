"""Losses that copy a teacher's scores: of a group of documents, not of whole batches."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ecom_rag.training.losses.distributed import mean_over_rows


def margin_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Margin-MSE, Hofstaetter et al. 2020 (arXiv:2010.02666): the student's margins shall be the teacher's.

    Args:
        student: ``(queries, group)`` scores, the positive first.
        teacher: ``(queries, group)`` scores of the teacher for the same documents, on the scale that the student shall
            learn (dot products, or logits of a reranker).

    Returns:
        The mean over all pairs of positive and negative; 0 for groups of one.
    """
    student, teacher = student.float(), teacher.float()
    margins = student[:, :1] - student[:, 1:]
    wanted = teacher[:, :1] - teacher[:, 1:]
    return mean_over_rows((margins - wanted).square().flatten())


def kl_distillation(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Distillation of a distribution over a group of documents (Hinton et al. 2015, arXiv:1503.02531).

    Args:
        student: ``(queries, group)`` scores, already divided by the student's own temperature.
        teacher: ``(queries, group)`` scores; softmaxed here.
        temperature: The teacher's scores are divided by it; above 1 makes the targets softer.

    Returns:
        The mean over queries of ``-sum teacher log student``: the KL divergence plus the teacher's entropy, which has
        no gradient. The value is FlagEmbedding's ``kl_div``.
    """
    targets = (teacher.float() / temperature).softmax(-1)
    return mean_over_rows(-(student.float().log_softmax(-1) * targets).sum(-1))


def ordered_distillation(scores: Tensor, groups: Tensor, teacher: Tensor, *, ignored: Tensor | None = None) -> Tensor:
    """FlagEmbedding's ``m3_kd_loss``: each document of a group against the batch, those before it taken away.

    Args:
        scores: ``(queries, documents)`` scores of the batch, already divided by the temperature.
        groups: ``(queries, group)`` columns of each query's own documents, the positive first.
        teacher: ``(queries, group)`` scores; softmaxed here, they weigh the documents.
        ignored: ``(queries, documents)`` bool: documents that are left out, of the teacher's softmax too. Of each
            query's own ones at least one is not.

    Returns:
        The mean over queries of ``-sum_i teacher_i log softmax_i``, the softmax of document i leaving out the group's
        documents before it.
    """
    lowest = torch.finfo(torch.float32).min
    remaining, wanted = scores.float(), teacher.float()
    left_out = torch.zeros_like(groups, dtype=torch.bool)
    if ignored is not None:
        left_out = ignored.gather(1, groups)
        remaining, wanted = remaining.masked_fill(ignored, lowest), wanted.masked_fill(left_out, -torch.inf)
    targets = wanted.softmax(-1)
    total = torch.zeros(len(scores), device=scores.device)
    for place in range(groups.shape[1]):
        column = groups[:, place]
        loss = targets[:, place] * F.cross_entropy(remaining, column, reduction="none")
        total = total + loss.masked_fill(left_out[:, place], 0)
        remaining = remaining.scatter(1, column[:, None], lowest)
    return mean_over_rows(total)
