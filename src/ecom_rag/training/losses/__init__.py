"""Losses: pure functions over float tensors of scores and boolean tensors of who belongs to whom; each names its paper.

In: a matrix of similarities or scores ``(rows, columns)``, rows being this GPU's anchors or queries and columns the
texts of all GPUs, with two masks of the same shape, ``positives`` and ``negatives``; a column that is in neither is
ignored. ``masks`` makes them from labels, owners and known positives, ``distributed`` gathers columns. Out: a scalar to
minimise.

Everything is computed in float32, whatever comes in, so that bf16 training stays finite. A mean over rows is over the
rows that count (each loss says which) on all GPUs together, and is 0 with zero gradients where no row counts.
"""

from ecom_rag.training.losses.distillation import kl_distillation, margin_mse, ordered_distillation
from ecom_rag.training.losses.distributed import gather, mean_over_rows
from ecom_rag.training.losses.m3 import m3_loss, max_sim, sparse_scores
from ecom_rag.training.losses.masks import class_masks, cosine, query_masks
from ecom_rag.training.losses.ranking import circle_loss, info_nce, supervised_contrastive
from ecom_rag.training.losses.reranking import binary_cross_entropy, listwise_cross_entropy

__all__ = [
    "binary_cross_entropy",
    "circle_loss",
    "class_masks",
    "cosine",
    "gather",
    "info_nce",
    "kl_distillation",
    "listwise_cross_entropy",
    "m3_loss",
    "margin_mse",
    "max_sim",
    "mean_over_rows",
    "ordered_distillation",
    "query_masks",
    "sparse_scores",
    "supervised_contrastive",
]
