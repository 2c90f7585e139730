"""The losses as the modules that sentence-transformers' trainers call: embed, gather over GPUs, mask, and add up.

``CachedLossMixin`` is sentence-transformers' gradient caching (Gao et al. 2021, arXiv:2101.06983): with ``mini_batch``
set, texts are embedded a few at a time, twice, and memory no longer grows with the batch.
"""

from contextlib import nullcontext
from typing import Any

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin, RandContext
from torch import Tensor, nn

from ecom_rag.training import losses
from ecom_rag.training.losses.distributed import rank
from ecom_rag.training.recipe import Loss

_TEMPERATURES = {"supervised_contrastive": 0.1}
PART = 1024  # padded tokens that go through the model together on a CPU, in texts of like length


class EmbedderLoss(CachedLossMixin, nn.Module):
    """Loss of an embedder over labelled texts or over queries with documents.

    Args:
        model: The ``SentenceTransformer`` in training.
        settings: The recipe's loss.
        group: Documents a query brings.
        mini_batch: Texts embedded at once, for gradient caching; ``None`` is all.
        ignore: With loss ``m3``: token ids that have no sparse weight.
    """

    def __init__(
        self, model: Any, settings: Loss, *, group: int, mini_batch: int | None, ignore: Tensor | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.mini_batch_size = mini_batch or 0
        self._settings, self._group = settings, group
        self._temperature = settings.temperature or _TEMPERATURES.get(settings.name, 0.02)
        self._ignore = ignore

    def forward(self, features: list[dict[str, Tensor]], labels: Any) -> Tensor:
        """The scalar to minimise."""
        if self._settings.name == "m3":
            return self._m3([self.model(feature) for feature in features], labels)
        if self.mini_batch_size:
            found: Tensor = self.forward_cached(features, labels)
            return found
        embeddings = [_in_parts(self.model, feature, "sentence_embedding") for feature in features]
        return self.calculate_loss([[part] for part in embeddings], labels)

    def calculate_loss(self, reps: list[list[Tensor]], labels: Any = None, *, with_backward: bool = False) -> Tensor:
        """The loss of embeddings that came in mini-batches; see ``CachedLossMixin``."""
        embeddings = [torch.cat(parts) for parts in reps]
        loss = self._labelled(embeddings[0], labels) if len(embeddings) == 1 else self._grouped(embeddings, labels)
        if with_backward:
            loss.backward()  # type: ignore[no-untyped-call]
            loss = loss.detach()
        return loss

    def _labelled(self, texts: Tensor, labels: dict[str, Tensor]) -> Tensor:
        numbers = labels["labels"]
        masks = losses.class_masks(numbers, columns=losses.gather(numbers), offset=rank() * len(numbers))
        return self._rank(losses.cosine(texts, losses.gather(texts)), *masks)

    def _grouped(self, embeddings: list[Tensor], labels: dict[str, Tensor]) -> Tensor:
        queries, documents = embeddings
        similarities = losses.cosine(queries, losses.gather(documents))
        total = similarities.sum() * 0
        if self._settings.name != "none":
            total = total + self._rank(similarities, *self._masks(labels, gathered=True))
        if self._settings.distillation != "none":
            own = similarities.gather(1, labels["groups"]) / self._temperature
            total = total + self._settings.distillation_weight * _distil(self._settings, own, labels["teacher"])
        return total

    def _rank(self, similarities: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        if self._settings.name == "circle":
            return losses.circle_loss(
                similarities, positives, negatives, margin=self._settings.margin, gamma=self._settings.gamma
            )
        if self._settings.name == "supervised_contrastive":
            return losses.supervised_contrastive(similarities, positives, negatives, temperature=self._temperature)
        return losses.info_nce(similarities, positives, negatives, temperature=self._temperature)

    def _masks(self, labels: dict[str, Tensor], *, gathered: bool) -> tuple[Tensor, Tensor]:
        owners, is_positive, texts = (
            losses.gather(labels[key]) if gathered else labels[key]
            for key in ("owners", "is_positive", "document_texts")
        )
        known: dict[str, Tensor] = {}
        if self._settings.mask_false_negatives:
            known = {"document_texts": texts} | {key: labels[key] for key in ("query_texts", "known_positives")}
        return losses.query_masks(labels["queries"], owners, is_positive, in_batch=self._settings.in_batch, **known)

    def _m3(self, outputs: list[dict[str, Tensor]], labels: dict[str, Tensor]) -> Tensor:
        """Within one GPU, as FlagEmbedding: token vectors of unequal lengths are not gathered."""
        queries, documents = outputs
        assert self._ignore is not None
        sparse = losses.sparse_scores(
            queries["sparse_weights"],
            queries["input_ids"],
            documents["sparse_weights"],
            documents["input_ids"],
            ignore=self._ignore,
        )
        multi = losses.max_sim(
            queries["token_vectors"],
            queries["attention_mask"][:, 1:],
            documents["token_vectors"],
            documents["attention_mask"][:, 1:],
        )
        dense = losses.cosine(queries["sentence_embedding"], documents["sentence_embedding"])
        teacher = labels.get("teacher") if self._settings.distillation != "none" else None
        own = torch.arange(len(documents["input_ids"]), device=dense.device).reshape(len(dense), self._group)
        return losses.m3_loss(
            dense,
            sparse,
            multi,
            *self._masks(labels, gathered=False),
            temperature=self._temperature,
            self_distillation=self._settings.self_distillation,
            teacher=teacher,
            groups=own,
        )


class RerankerLoss(CachedLossMixin, nn.Module):
    """Loss of a reranker over queries' groups of pairs.

    Args:
        model: The ``CrossEncoder`` of sentence-transformers in training.
        settings: The recipe's loss.
        group: Pairs of a query.
        mini_batch: Pairs scored at once, for gradient caching; ``None`` is all.
    """

    def __init__(self, model: Any, settings: Loss, *, group: int, mini_batch: int | None) -> None:
        super().__init__()
        self.model = model
        self.mini_batch_size = mini_batch or 0
        self._settings, self._group = settings, group

    def forward(
        self,
        features: list[dict[str, Tensor]],
        labels: Any,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """The scalar to minimise; ``prompt`` and ``task`` are the trainer's and not used."""
        if self.mini_batch_size:
            found: Tensor = self.forward_cached(features, labels)
            return found
        return self.calculate_loss([[_in_parts(self.model, features[0], "scores")]], labels)

    def embed_minibatch(
        self,
        sentence_feature: dict[str, Tensor],
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        """As ``CachedLossMixin``'s, but what is cached is a score and not an embedding."""
        with nullcontext() if random_state is None else random_state, torch.set_grad_enabled(with_grad):
            part = {key: value[begin:end] for key, value in sentence_feature.items()}
            kept = RandContext(*part.values()) if copy_random_state else None
            return self.model(part)["scores"], kept

    def calculate_loss(self, reps: list[list[Tensor]], labels: Any = None, *, with_backward: bool = False) -> Tensor:
        """The loss of logits that came in mini-batches."""
        logits = torch.cat(reps[0]).reshape(-1, self._group)
        relevant = labels["is_positive"].reshape(-1, self._group)
        loss = logits.sum() * 0
        if self._settings.name == "binary":
            loss = loss + losses.binary_cross_entropy(
                logits.flatten(), relevant.flatten().float(), positive_weight=self._settings.positive_weight
            )
        elif self._settings.name != "none":
            loss = loss + losses.listwise_cross_entropy(logits, relevant)
        if self._settings.distillation != "none":
            loss = loss + self._settings.distillation_weight * _distil(self._settings, logits, labels["teacher"])
        if with_backward:
            loss.backward()  # type: ignore[no-untyped-call]
            loss = loss.detach()
        return loss


def _in_parts(model: Any, feature: dict[str, Tensor], output: str) -> Tensor:
    """The model's output for a batch; on a CPU, where padding costs as much as text, in parts of like length."""
    if feature["attention_mask"].device.type != "cpu":
        whole: Tensor = model(feature)[output]
        return whole
    lengths = feature["attention_mask"].sum(1)
    left = bool((feature["attention_mask"][:, 0] == 0).any())  # where the padding is
    order = torch.argsort(lengths, descending=True, stable=True)
    found, start = [], 0
    while start < len(order):
        longest = int(lengths[order[start]])
        rows = order[start : start + max(1, PART // longest)]
        kept = slice(-longest, None) if left else slice(longest)
        found.append(model({name: value[rows, kept] for name, value in feature.items()})[output])
        start += len(rows)
    return torch.cat(found)[torch.argsort(order)]


def _distil(settings: Loss, student: Tensor, teacher: Tensor) -> Tensor:
    if settings.distillation == "margin_mse":
        return losses.margin_mse(student, teacher)
    return losses.kl_distillation(student, teacher, temperature=settings.teacher_temperature)
