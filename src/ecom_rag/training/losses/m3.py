"""bge-m3 unified fine-tuning: dense, sparse and multi-vector scores trained together, each taught by their sum."""

import torch
from torch import Tensor

from ecom_rag.training.losses.distillation import ordered_distillation
from ecom_rag.training.losses.distributed import mean_over_rows
from ecom_rag.training.losses.ranking import info_nce

ENSEMBLE_WEIGHTS = (1.0, 0.3, 1.0)  # of dense, sparse, multi-vector in the ensemble's score; the paper's w1, w2, w3
LOSS_WEIGHTS = (1.0, 0.1, 1.0)  # of their losses; the paper's lambdas


def m3_loss(
    dense: Tensor,
    sparse: Tensor,
    multivector: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    temperature: float = 0.02,
    self_distillation: bool = True,
    groups: Tensor | None = None,
    teacher: Tensor | None = None,
) -> Tensor:
    """The loss of bge-m3, Chen et al. 2024 (arXiv:2402.03216), section 3.3; weights as in FlagEmbedding's source too.

    ``L = (L_dense + 0.1 L_sparse + L_multi + L_ensemble) / 4`` where the ensemble's score is
    ``dense + 0.3 sparse + multi``; with self-distillation
    ``(L + (L'_dense + 0.1 L'_sparse + L'_multi) / 3) / 2``, ``L'`` being the cross-entropy to the ensemble's softmax,
    through which no gradient flows.

    Args:
        dense: ``(queries, documents)`` cosines.
        sparse: ``(queries, documents)`` sums of products of term weights.
        multivector: ``(queries, documents)`` MaxSim scores.
        positives: ``(queries, documents)`` bool.
        negatives: ``(queries, documents)`` bool; what is in neither is left out of every softmax.
        temperature: All scores are divided by it.
        self_distillation: Whether the ensemble teaches the three.
        groups: With ``teacher``: ``(queries, group)`` columns of each query's own documents.
        teacher: ``(queries, group)`` scores of an external teacher; ``ordered_distillation`` then replaces InfoNCE.

    Returns:
        The mean over queries with at least one positive and one negative.
    """
    scores = [score.float() / temperature for score in (dense, sparse, multivector)]
    ensemble = sum((w * s for w, s in zip(ENSEMBLE_WEIGHTS, scores, strict=True)), torch.zeros_like(scores[0]))

    def contrast(score: Tensor) -> Tensor:
        if groups is not None and teacher is not None:
            return ordered_distillation(score, groups, teacher, ignored=~(positives | negatives))
        return info_nce(score, positives, negatives, temperature=1.0)

    losses = [weight * contrast(score) for weight, score in zip(LOSS_WEIGHTS, scores, strict=True)]
    loss = (sum(losses[1:], losses[0]) + contrast(ensemble)) / 4
    if not self_distillation:
        return loss
    rows = positives.any(1) & negatives.any(1)
    ignored = ~(positives | negatives)[rows]
    targets = ensemble.detach()[rows].masked_fill(ignored, -torch.inf).softmax(1)
    taught = [
        weight * mean_over_rows(_cross_entropy(score[rows], targets, ignored))
        for weight, score in zip(LOSS_WEIGHTS, scores, strict=True)
    ]
    return (loss + sum(taught[1:], taught[0]) / 3) / 2


def _cross_entropy(scores: Tensor, targets: Tensor, ignored: Tensor) -> Tensor:
    logs = scores.masked_fill(ignored, -torch.inf).log_softmax(1)
    return -(targets * logs.masked_fill(ignored, 0)).sum(1)  # 0 * -inf would be NaN


def sparse_scores(
    query_weights: Tensor, query_ids: Tensor, document_weights: Tensor, document_ids: Tensor, *, ignore: Tensor
) -> Tensor:
    """bge-m3's lexical score: the weight of a token id is the largest of its positions; score = sum of products.

    The vocabulary is cut to the ids of this batch, so that memory is texts x distinct ids and not texts x 250,002.

    Args:
        query_weights: ``(m, length)`` at or above 0 (after the ReLU).
        query_ids: ``(m, length)`` token ids.
        document_weights: ``(n, length)``.
        document_ids: ``(n, length)``.
        ignore: ``(special,)`` ids that have no weight: of the special tokens, padding among them.

    Returns:
        ``(m, n)`` scores at or above 0.
    """
    ids, places = torch.unique(torch.cat([query_ids.flatten(), document_ids.flatten()]), return_inverse=True)
    counted = ~torch.isin(ids, ignore.to(ids.device))  # (distinct,)
    q_places, d_places = places[: query_ids.numel()], places[query_ids.numel() :]
    queries = _max_per_id(query_weights, q_places.view_as(query_ids), len(ids)) * counted
    documents = _max_per_id(document_weights, d_places.view_as(document_ids), len(ids)) * counted
    return queries @ documents.T


def _max_per_id(weights: Tensor, places: Tensor, distinct: int) -> Tensor:
    rows = torch.zeros(len(weights), distinct, dtype=torch.float32, device=weights.device)
    return rows.scatter_reduce(1, places, weights.float(), reduce="amax")


def max_sim(queries: Tensor, query_mask: Tensor, documents: Tensor, document_mask: Tensor) -> Tensor:
    """bge-m3's late interaction: the mean over query tokens of the best cosine among the document's tokens.

    Args:
        queries: ``(m, query_length, dim)`` normalised token vectors.
        query_mask: ``(m, query_length)``, 0 for padding.
        documents: ``(n, document_length, dim)``.
        document_mask: ``(n, document_length)``; every document has a token.

    Returns:
        ``(m, n)``. Padding never is the best token; FlagEmbedding's training lets it score 0, its inference does not.
    """
    pairs = torch.einsum("qid,njd->qinj", queries.float(), documents.float())
    best = pairs.masked_fill(document_mask[None, None] == 0, -torch.inf).amax(-1)  # (m, query_length, n)
    kept = (query_mask > 0)[:, :, None]
    return best.masked_fill(~kept, 0).sum(1) / kept.sum(1).clamp(min=1)
