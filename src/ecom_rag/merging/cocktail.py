"""LM-Cocktail's weights: a softmax over what each model loses on a few examples (Xiao et al. 2023, arXiv:2311.13534).

For embedders loss and weights are those of the authors' package LM_Cocktail; it has none for rerankers, for which the
loss here is the cross-entropy of the positive among its own negatives.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.merging.files import Opened
from ecom_rag.mining.triples import Example
from ecom_rag.models import CrossEncoder, Encoder

_INFO_NCE_TEMPERATURE = 0.05


def weights_of(losses: Sequence[float], *, temperature: float = 5.0) -> tuple[float, ...]:
    """``softmax(-loss / temperature)``.

    Args:
        losses: One a model.
        temperature: Small: the best model takes all; large: all weigh the same. 5.0 is the authors' default.

    Raises:
        UsageError: A temperature of 0 or less.
    """
    if not temperature > 0:
        raise UsageError(f"temperature is {temperature}; expected a number above 0")
    logits = -np.array(losses, np.float64) / temperature
    shares = np.exp(logits - logits.max())
    return tuple((shares / shares.sum()).tolist())


def model_losses(
    models: Sequence[Opened],
    examples: Sequence[Example],
    *,
    batch_size: int = 2,
    negatives: int = 7,
    device: str = "auto",
) -> list[float]:
    """The loss of each model on the examples, as ``embedder_loss`` or ``reranker_loss`` says.

    Args:
        models: Of one kind, loaded one after the other.
        examples: A few of the task that the merged model is for.
        batch_size: Queries whose documents are each other's negatives.
        negatives: Used of each example.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """
    losses = []
    for model in models:
        if model.is_reranker:
            cross_encoder = CrossEncoder.from_pretrained(model.name, runtime="torch", device=device)
            losses.append(reranker_loss(cross_encoder, examples, negatives=negatives))
        else:
            encoder = Encoder.from_pretrained(model.name, runtime="torch", device=device)
            losses.append(embedder_loss(encoder, examples, batch_size=batch_size, negatives=negatives))
    return losses


def embedder_loss(encoder: Encoder, examples: Sequence[Example], *, batch_size: int = 2, negatives: int = 7) -> float:
    """InfoNCE of each query's first positive among all documents of its batch; the mean of the batches' means.

    Scores are cosines by 0.05. The authors' code pools by the first token and draws negatives at random; here the
    checkpoint's own pooling and instructions hold and the first negatives are taken, so that a run can be repeated.
    """
    total = 0.0
    starts = range(0, len(examples), batch_size)
    for start in starts:
        batch = examples[start : start + batch_size]
        groups = [[example.positives[0], *example.negatives[:negatives]] for example in batch]
        documents = encoder.encode([text for group in groups for text in group]).dense
        queries = encoder.encode([example.query for example in batch], side="query").dense
        assert queries is not None and documents is not None
        first = np.cumsum([0, *(len(group) for group in groups[:-1])])
        total += _cross_entropy(queries @ documents.T / _INFO_NCE_TEMPERATURE, first)
    return total / len(starts)


def reranker_loss(cross_encoder: CrossEncoder, examples: Sequence[Example], *, negatives: int = 7) -> float:
    """Cross-entropy of each query's first positive among its own negatives, the mean over examples."""
    groups = [[example.positives[0], *example.negatives[:negatives]] for example in examples]
    pairs = [(example.query, text) for example, group in zip(examples, groups, strict=True) for text in group]
    ends = np.cumsum([len(group) for group in groups])
    rows = np.split(cross_encoder.score(pairs), ends[:-1])
    return float(np.mean([_cross_entropy(row[None], np.zeros(1, np.int64)) for row in rows]))


def _cross_entropy(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Mean of ``-log softmax`` at the targets; ``scores (rows, columns)``."""
    wide = scores.astype(np.float64)
    top = wide.max(axis=1)
    logs = np.log(np.exp(wide - top[:, None]).sum(axis=1)) + top
    return float((logs - wide[np.arange(len(wide)), targets]).mean())
