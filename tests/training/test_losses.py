"""Losses against hand-computed batches, the papers' pictures, and the reference implementations where they agree."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.training import losses
from ecom_rag.training.losses import (
    circle_loss,
    class_masks,
    cosine,
    info_nce,
    kl_distillation,
    listwise_cross_entropy,
    m3_loss,
    margin_mse,
    max_sim,
    ordered_distillation,
    query_masks,
    sparse_scores,
    supervised_contrastive,
)

pytestmark = [pytest.mark.slow, pytest.mark.reference]


def one_pair(s_p, s_n):
    """A row with one positive and one negative."""
    s = torch.tensor([[s_p, s_n]], requires_grad=True)
    return s, torch.tensor([[True, False]]), torch.tensor([[False, True]])


def random_batch(seed, texts=24, classes=6, dim=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(texts, dim, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(classes, (texts,), generator=generator)
    return vectors, labels


# --- circle loss ------------------------------------------------------------------------------------------------------


def test_circle_loss_of_a_hand_computed_batch():
    """Three texts, labels a a b; m = 0.25, gamma = 2. Row 3 has no positive and does not count.

    Row 1: s_p = 0.6, a_p = 0.65, -2 * 0.65 * (0.6 - 0.75) = 0.195; s_n = 0.1, a_n = 0.35, 2 * 0.35 * -0.15 = -0.105.
    Row 2: the same s_p; s_n = -0.5, a_n = [-0.25]+ = 0, so 0.
    """
    s = torch.tensor([[1.0, 0.6, 0.1], [0.6, 1.0, -0.5], [0.1, -0.5, 1.0]])
    positives, negatives = class_masks(torch.tensor([0, 0, 1]))
    expected = (math.log1p(math.exp(0.195 - 0.105)) + math.log1p(math.exp(0.195))) / 2
    assert circle_loss(s, positives, negatives, margin=0.25, gamma=2.0).item() == pytest.approx(expected, abs=1e-6)


def test_circle_loss_with_several_pairs_by_hand():
    """One query: positives 0.9 and 0.5, negatives 0.3 and 0.0; m = 0.4, gamma = 1, equation 6 term by term."""
    s = torch.tensor([[0.9, 0.5, 0.3, 0.0]])
    is_p = torch.tensor([[True, True, False, False]])
    up = math.exp(0.7 * (0.3 - 0.4)) + math.exp(0.4 * (0.0 - 0.4))
    down = math.exp(-0.5 * (0.9 - 0.6)) + math.exp(-0.9 * (0.5 - 0.6))
    assert circle_loss(s, is_p, ~is_p, margin=0.4, gamma=1.0).item() == pytest.approx(math.log1p(up * down), abs=1e-6)


@pytest.mark.parametrize("angle", [0.8, 1.5, 2.2, 2.9, 3.9])
def test_the_decision_boundary_is_the_papers_circle(angle):
    """Equation 9: on s_n^2 + (s_p - 1)^2 = 2 m^2 both sides balance, so the loss is log 2 for every gamma."""
    margin = 0.25
    radius = math.sqrt(2) * margin
    s, is_p, is_n = one_pair(1 + radius * math.cos(angle), radius * math.sin(angle))
    loss = circle_loss(s, is_p, is_n, margin=margin, gamma=64.0)
    assert loss.item() == pytest.approx(math.log(2), abs=2e-4)


def test_gradient_directions_are_the_papers_figure_2():
    """Similar pairs are pulled up and dissimilar pushed down, the one that is further from its optimum harder."""

    def gradient(s_p, s_n):
        s, is_p, is_n = one_pair(s_p, s_n)
        circle_loss(s, is_p, is_n, margin=0.25, gamma=8.0).backward()
        return s.grad[0].tolist()

    a = gradient(0.8, 0.8)  # the paper's A: s_p is good, s_n is bad
    b = gradient(0.2, 0.2)  # B: s_p is bad, s_n is good
    assert a[0] < 0 < a[1] and abs(a[1]) > abs(a[0])
    assert b[0] < 0 < b[1] and abs(b[0]) > abs(b[1])
    for s_p, s_n in ((0.8, 0.8), (0.2, 0.2), (0.9, 0.1)):  # equation 8: dL/ds = gamma * weight * sigmoid(Z)
        z = 8 * ((s_n + 0.25) * (s_n - 0.25) - (1.25 - s_p) * (s_p - 0.75))
        share = 8 / (1 + math.exp(-z))
        assert gradient(s_p, s_n) == pytest.approx([-share * (1.25 - s_p), share * (s_n + 0.25)], rel=1e-4)
    assert gradient(0.9, -0.4)[1] == 0  # below -m nothing is left to push


@pytest.mark.parametrize("seed", range(4))
def test_circle_equals_pytorch_metric_learning(seed):
    """Equal where no row's loss is exactly 0: their mean leaves such rows out, ours counts them."""
    from pytorch_metric_learning.losses import CircleLoss

    vectors, labels = random_batch(seed)
    s = cosine(vectors, vectors)
    ours = circle_loss(s, *class_masks(labels), margin=0.4, gamma=16.0)
    theirs = CircleLoss(m=0.4, gamma=16)(vectors, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(loss, vectors, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_where_pytorch_metric_learning_differs():
    """A row that is solved so well that its loss is 0 in float32 counts for us."""
    from pytorch_metric_learning.losses import CircleLoss

    vectors = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    rows = []
    for i in range(5):
        positives, negatives = class_masks(labels)
        row = slice(i, i + 1)
        rows.append(circle_loss(cosine(vectors, vectors)[row], positives[row], negatives[row], gamma=1024.0).item())
    assert 0 in rows and max(rows) > 0
    ours = circle_loss(cosine(vectors, vectors), *class_masks(labels), gamma=1024.0).item()
    theirs = CircleLoss(m=0.4, gamma=1024)(vectors, labels).item()
    assert ours == pytest.approx(sum(rows) / 5, rel=1e-5)
    assert theirs == pytest.approx(sum(rows) / sum(row > 0 for row in rows), rel=1e-5)


# --- contrastive ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_supervised_contrastive_equals_pytorch_metric_learning(seed):
    from pytorch_metric_learning.losses import SupConLoss

    vectors, labels = random_batch(seed)
    ours = supervised_contrastive(cosine(vectors, vectors), *class_masks(labels), temperature=0.1)
    theirs = SupConLoss(temperature=0.1)(vectors, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_info_nce_by_hand_with_two_positives():
    s = torch.tensor([[2.0, 1.0, 0.5, 9.0]])
    is_p = torch.tensor([[True, True, False, False]])
    is_n = torch.tensor([[False, False, True, False]])  # the last column is a false negative
    rest = math.exp(0.5)
    expected = -(math.log(math.exp(2) / (math.exp(2) + rest)) + math.log(math.exp(1) / (math.exp(1) + rest))) / 2
    assert info_nce(s, is_p, is_n, temperature=1.0).item() == pytest.approx(expected, abs=1e-6)


def group_batch(seed, queries=5, group=3, dim=8):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(queries, dim, generator=generator).requires_grad_()
    d = torch.randn(queries * group, dim, generator=generator).requires_grad_()
    owners = torch.arange(queries).repeat_interleave(group)
    first = torch.arange(queries * group) % group == 0
    return q, d, query_masks(torch.arange(queries), owners, first)


def flag_m3(queries, group, **options):
    """FlagEmbedding's own m3 model around given vectors."""
    from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3Model
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    heads = {"colbert_linear": torch.nn.Linear(8, 8), "sparse_linear": torch.nn.Linear(8, 1)}
    model = EncoderOnlyEmbedderM3Model(
        {"model": BertModel(config), **heads}, temperature=0.1, normalize_embeddings=False, **options
    )
    model.encode = lambda features: features["vectors"]
    return model.train()


def test_info_nce_equals_flag_embedding():
    q, d, masks = group_batch(0)
    s = cosine(q, d)
    model = flag_m3(5, 3)
    _, theirs = model._compute_in_batch_neg_loss(
        torch.nn.functional.normalize(q, dim=-1),
        torch.nn.functional.normalize(d, dim=-1),
        compute_score_func=model.compute_dense_score,
    )
    torch.testing.assert_close(info_nce(s, *masks, temperature=0.1), theirs)


def m3_batch(seed=0, queries=4, group=3, length=6, vocabulary=50):
    """Vectors, term weights and token vectors as both implementations take them; no padding and no tied weights."""
    generator = torch.Generator().manual_seed(seed)
    n = queries * group

    def unit(*shape):
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)

    made = {}
    for side, count in (("q", queries), ("d", n)):
        made[side] = {
            "dense": unit(count, 8).requires_grad_(),
            "weights": torch.rand(count, length, generator=generator).requires_grad_(),
            "ids": torch.randint(4, vocabulary, (count, length), generator=generator),
            "tokens": unit(count, length, 8).requires_grad_(),
        }
    owners = torch.arange(queries).repeat_interleave(group)
    return made["q"], made["d"], query_masks(torch.arange(queries), owners, torch.arange(n) % group == 0)


def our_m3(q, d, masks, **options):
    mask_q, mask_d = torch.ones(q["tokens"].shape[:2]), torch.ones(d["tokens"].shape[:2])
    sparse = sparse_scores(q["weights"], q["ids"], d["weights"], d["ids"], ignore=torch.arange(4))
    multi = max_sim(q["tokens"], mask_q, d["tokens"], mask_d)
    return m3_loss(q["dense"] @ d["dense"].T, sparse, multi, *masks, temperature=0.1, **options)


def their_m3(q, d, **options):
    model = flag_m3(4, 3, unified_finetuning=True, **options)
    model.tokenizer = type(
        "T", (), {"cls_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "unk_token_id": 3, "padding_side": "right"}
    )

    def side(x):
        rows = torch.zeros(*x["ids"].shape, 50).scatter(-1, x["ids"].unsqueeze(-1), x["weights"].unsqueeze(-1))
        mask = torch.ones(len(x["ids"]), x["ids"].shape[1] + 1)
        return {"vectors": (x["dense"], rows.max(1).values, x["tokens"]), "attention_mask": mask}

    return model, side(q), side(d)


@pytest.mark.parametrize("distill", [False, True])
def test_m3_loss_equals_flag_embedding(distill):
    q, d, masks = m3_batch()
    model, q_side, d_side = their_m3(q, d, use_self_distill=distill)
    theirs = model(queries=q_side, passages=d_side).loss
    ours = our_m3(q, d, masks, self_distillation=distill)
    torch.testing.assert_close(ours, theirs)
    leaves = [x[key] for x in (q, d) for key in ("dense", "weights", "tokens")]
    for mine, other in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_m3_loss_with_teacher_equals_flag_embedding():
    q, d, masks = m3_batch(1)
    teacher = torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    model, q_side, d_side = their_m3(q, d, use_self_distill=True)
    theirs = model(queries=q_side, passages=d_side, teacher_scores=teacher.flatten().tolist()).loss
    groups = torch.arange(12).reshape(4, 3)
    torch.testing.assert_close(our_m3(q, d, masks, groups=groups, teacher=teacher), theirs)


def test_m3_loss_ignores_false_negatives():
    """A masked column may hold anything."""
    q, d, (positives, negatives) = m3_batch(2)
    negatives[:, 4] = False
    positives[:, 4] = False
    before = our_m3(q, d, (positives, negatives))
    with torch.no_grad():
        d["dense"][4] *= 7
    torch.testing.assert_close(our_m3(q, d, (positives, negatives)), before)


def test_sparse_and_max_sim_score_like_the_index():
    """The scores that are trained are the scores that search uses."""
    import numpy as np

    from ecom_rag.models.embeddings import Ragged
    from ecom_rag.retrieval import MultiVectorIndex

    generator = torch.Generator().manual_seed(3)
    lengths = [3, 5, 2]
    tokens = torch.nn.functional.normalize(torch.randn(3, 5, 4, generator=generator), dim=-1)
    mask = torch.tensor([[1] * n + [0] * (5 - n) for n in lengths])
    rows = Ragged.of([tokens[i, :n].numpy() for i, n in enumerate(lengths)])
    expected = MultiVectorIndex(rows).scores(rows)
    np.testing.assert_allclose(max_sim(tokens, mask, tokens, mask).numpy(), expected, atol=1e-5)
    weights = torch.tensor([[0.5, 0.2, 0.9, 0.4]])
    ids = torch.tensor([[7, 7, 8, 1]])
    scored = sparse_scores(
        weights, ids, torch.tensor([[2.0, 3.0, 5.0]]), torch.tensor([[8, 7, 1]]), ignore=torch.tensor([1])
    )
    assert scored.item() == pytest.approx(0.9 * 2 + 0.5 * 3)


# --- distillation, rerankers ------------------------------------------------------------------------------------------


def test_distillation_by_hand_and_flag_embedding():
    from FlagEmbedding.abc.finetune.embedder import AbsEmbedderModel

    student, teacher = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[5.0, 4.0, 2.0]])
    assert margin_mse(student, teacher).item() == pytest.approx(((2 - 1) ** 2 + (3 - 3) ** 2) / 2)
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(4, 5, generator=generator), torch.randn(4, 5, generator=generator)
    theirs = AbsEmbedderModel.distill_loss("kl_div", teacher.softmax(-1), student)
    torch.testing.assert_close(kl_distillation(student, teacher), theirs)
    grown = student.clone().requires_grad_()
    kl_distillation(grown, student).backward()  # the teacher itself is the minimum
    assert grown.grad.abs().max() < 1e-6
    scores = torch.randn(4, 12, generator=generator)
    groups = torch.arange(12).reshape(4, 3)
    theirs = AbsEmbedderModel.distill_loss("m3_kd_loss", teacher[:, :3].softmax(-1), scores, group_size=3)
    torch.testing.assert_close(ordered_distillation(scores, groups, teacher[:, :3]), theirs)


def test_reranker_losses():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])
    first = torch.tensor([[True, False, False]] * 2)
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(2, dtype=torch.long))  # FlagEmbedding's
    torch.testing.assert_close(listwise_cross_entropy(logits, first), expected)
    pointwise = losses.binary_cross_entropy(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]), positive_weight=3.0)
    assert pointwise.item() == pytest.approx((3 * math.log(2) + math.log1p(math.exp(2))) / 2)


# --- all of them ------------------------------------------------------------------------------------------------------

RANKING = [
    lambda s, p, n: circle_loss(s, p, n, margin=0.4, gamma=256.0),
    lambda s, p, n: info_nce(s, p, n, temperature=0.01),
    lambda s, p, n: supervised_contrastive(s, p, n, temperature=0.01),
]


@pytest.mark.parametrize("loss", RANKING)
def test_finite_in_bf16_at_the_extremes(loss):
    """Identical texts in different classes, opposite texts in the same, the largest gamma: no infinity anywhere."""
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 1e-3]], dtype=torch.bfloat16).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(cosine(vectors, vectors), *class_masks(labels))
    value.backward()
    assert value.dtype == torch.float32 and torch.isfinite(value) and torch.isfinite(vectors.grad).all()
    torch.testing.assert_close(
        value, loss(cosine(vectors.float(), vectors.float()), *class_masks(labels)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("loss", RANKING)
@pytest.mark.parametrize("labels", [[0, 1, 2], [0]])
def test_nothing_to_compare_is_zero_with_zero_gradients(loss, labels):
    vectors = torch.randn(len(labels), 4, requires_grad=True)
    value = loss(cosine(vectors, vectors), *class_masks(torch.tensor(labels)))
    value.backward()
    assert value.item() == 0 and (vectors.grad == 0).all()


def test_one_class_has_no_negatives():
    vectors = torch.randn(3, 4, requires_grad=True)
    labels = torch.zeros(3, dtype=torch.long)
    assert circle_loss(cosine(vectors, vectors), *class_masks(labels)).item() == 0
    assert supervised_contrastive(cosine(vectors, vectors), *class_masks(labels)).item() > 0  # still spreads positives


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.sampled_from(range(len(RANKING))))
def test_order_of_the_batch_does_not_matter(seed, texts, which):
    vectors, labels = random_batch(seed, texts=texts, classes=3)
    vectors = vectors.detach().double()
    order = torch.randperm(texts, generator=torch.Generator().manual_seed(seed))
    loss = RANKING[which]
    values = [
        loss(cosine(vectors[rows], vectors[rows]), *class_masks(labels[rows])) for rows in (torch.arange(texts), order)
    ]
    torch.testing.assert_close(values[0], values[1], rtol=1e-3, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_ranking_losses_equal_their_formulas_row_by_row(seed):
    """Brute force in float64 over random masks, columns in neither mask among them."""
    generator = torch.Generator().manual_seed(seed)
    s = torch.rand(4, 6, generator=generator, dtype=torch.float64) * 2 - 1
    kind = torch.randint(3, (4, 6), generator=generator)
    is_p, is_n = kind == 0, kind == 1
    circle, nce, supcon = [], [], []
    for row, p, n in zip(s.tolist(), is_p.tolist(), is_n.tolist(), strict=True):
        up = [x for x, keep in zip(row, p, strict=True) if keep]
        down = [x for x, keep in zip(row, n, strict=True) if keep]
        if up:
            total = sum(math.exp(x / 0.5) for x in up + down)
            supcon.append(-sum(math.log(math.exp(x / 0.5) / total) for x in up) / len(up))
        if up and down:
            pull = sum(math.exp(-4 * max(1.3 - x, 0) * (x - 0.7)) for x in up)
            push = sum(math.exp(4 * max(x + 0.3, 0) * (x - 0.3)) for x in down)
            circle.append(math.log1p(pull * push))
            rest = sum(math.exp(x / 0.5) for x in down)
            nce.append(-sum(math.log(math.exp(x / 0.5) / (math.exp(x / 0.5) + rest)) for x in up) / len(up))

    def mean(values):
        return pytest.approx(sum(values) / len(values) if values else 0, rel=1e-4, abs=1e-5)

    assert circle_loss(s, is_p, is_n, margin=0.3, gamma=4.0).item() == mean(circle)
    assert info_nce(s, is_p, is_n, temperature=0.5).item() == mean(nce)
    assert supervised_contrastive(s, is_p, is_n, temperature=0.5).item() == mean(supcon)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_query_masks_by_brute_force(seed, in_batch):
    generator = torch.Generator().manual_seed(seed)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    m, n = 4, 9
    queries = torch.randperm(10, generator=generator)[:m]
    owners = queries[integers(0, m, n)]
    is_positive = integers(0, 2, n) == 1
    query_texts, document_texts = integers(0, 8, m), integers(0, 8, n)
    known = integers(-1, 8, m, 2)
    positives, negatives = query_masks(
        queries,
        owners,
        is_positive,
        query_texts=query_texts,
        document_texts=document_texts,
        known_positives=known,
        in_batch=in_batch,
    )
    for i in range(m):
        mine = [j for j in range(n) if owners[j] == queries[i] and is_positive[j]]
        texts = {document_texts[j].item() for j in mine} | {query_texts[i].item()} | set(known[i].tolist())
        for j in range(n):
            wanted = j not in mine and document_texts[j].item() not in texts
            wanted &= in_batch or owners[j] == queries[i]
            assert positives[i, j] == (j in mine)
            assert negatives[i, j] == wanted
    assert not (positives & negatives).any()


def _train_on_two_processes(rank, port, expected):
    """One rank's half of a batch; DDP's averaging must give the gradient of the whole batch on one process."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    vectors, labels = random_batch(0, texts=12, classes=5)
    for loss, (value, gradient) in zip(RANKING[:2], expected, strict=True):
        weight = torch.eye(8, requires_grad=True)
        mine = slice(6 * rank, 6 * rank + 6)
        local = vectors[mine].detach() @ weight
        masks = class_masks(labels[mine], columns=losses.gather(labels[mine]), offset=6 * rank)
        found = loss(cosine(local, losses.gather(local)), *masks)
        found.backward()
        averaged = found.detach() / 2
        dist.all_reduce(averaged)
        dist.all_reduce(weight.grad)
        torch.testing.assert_close(averaged, value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weight.grad / 2, gradient, rtol=1e-3, atol=1e-4)
    dist.destroy_process_group()


def test_two_processes_train_like_one():
    import socket

    vectors, labels = random_batch(0, texts=12, classes=5)
    expected = []
    for loss in RANKING[:2]:
        weight = torch.eye(8, requires_grad=True)
        whole = vectors.detach() @ weight
        value = loss(cosine(whole, whole), *class_masks(labels))
        value.backward()
        expected.append((value.detach(), weight.grad))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_train_on_two_processes, args=(port, expected), nprocs=2)


def test_ordered_distillation_leaves_out_what_is_no_negative():
    """A query's own negative that is known as a positive: as if it were not in the group."""
    generator = torch.Generator().manual_seed(0)
    scores, teacher = (torch.randn(2, n, generator=generator) for n in (6, 3))
    groups = torch.tensor([[0, 1, 2], [3, 4, 5]])
    ignored = torch.zeros(2, 6, dtype=torch.bool)
    assert torch.equal(
        ordered_distillation(scores, groups, teacher, ignored=ignored), ordered_distillation(scores, groups, teacher)
    )
    ignored[0, 1] = True
    scores.requires_grad_()
    found = ordered_distillation(scores, groups, teacher, ignored=ignored)
    rest = [0, 2, 3, 4, 5]
    first = ordered_distillation(scores[:1, rest], torch.tensor([[0, 1]]), teacher[:1, [0, 2]])
    second = ordered_distillation(scores[1:], groups[1:], teacher[1:])
    torch.testing.assert_close(found, (first + second) / 2)
    (gradient,) = torch.autograd.grad(found, scores)
    assert gradient.isfinite().all() and gradient[0, 1] == 0
