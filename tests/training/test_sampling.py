"""What the samplers guarantee, as properties over random class sizes; and near-duplicate groups against brute force."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.text.near_duplicates import near_duplicates
from ecom_rag.training.sampling import pk_batches, row_batches
from ecom_rag.training.schedule import apportion, spread

SIZES = st.lists(st.integers(1, 30), min_size=2, max_size=12)
SEEDS = st.integers(0, 10**6)


def shuffled(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(labels)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(2, 6), st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.0]), SEEDS, st.booleans())
def test_pk_guarantees(sizes, p, k, alpha, seed, hierarchical):
    """P distinct classes of K texts; every class drawn; no text again before its class is through, over epochs too."""
    assume(len(sizes) >= p)
    labels = shuffled(sizes, seed)
    parents = labels % 3 if hierarchical else None
    sampler = pk_batches(labels, classes_per_batch=p, texts_per_class=k, alpha=alpha, parents=parents, seed=seed)
    shown = Counter()
    for _ in range(3):
        drawn = set()
        batches = list(sampler)
        assert len(batches) == len(sampler)
        for batch in batches:
            blocks = labels[np.array(batch).reshape(p, k)]
            assert (blocks == blocks[:, :1]).all()
            assert len(set(blocks[:, 0])) == p
            for number in blocks[:, 0]:
                rows = [row for row in batch if labels[row] == number]
                assert len(set(rows)) == min(k, sizes[number])
            drawn |= set(blocks[:, 0].tolist())
            shown.update(batch)
        assert drawn == set(range(len(sizes)))
        report = sampler.report()
        assert report.total.draws == len(batches) * p * k == sum(s.draws for s in report.classes.values())
    for number in range(len(sizes)):
        counts = [shown[row] for row in np.flatnonzero(labels == number)]
        assert max(counts) - min(counts) <= 1


@settings(max_examples=40, deadline=None)
@given(SIZES, SEEDS, st.integers(0, 3), st.integers(0, 40))
def test_a_resumed_sampler_goes_on_where_it_stood(sizes, seed, epochs, position):
    labels = shuffled(sizes, seed)

    def new(world=1, rank=0):
        return pk_batches(labels, classes_per_batch=2, texts_per_class=2, seed=seed, world=world, rank=rank)

    whole = new()
    for _ in range(epochs):
        list(whole)
    position = min(position, len(whole))
    iterator = iter(whole)
    for _ in range(position):
        next(iterator)
    resumed = new()
    resumed.load_state_dict(whole.state_dict())
    assert list(resumed) == list(iterator)
    trainer = new()
    trainer.set_epoch(epochs)
    assert list(trainer)[position:] == whole.plan(epochs)[position:].tolist()


@settings(max_examples=30, deadline=None)
@given(SIZES, SEEDS, st.sampled_from([2, 3]))
def test_ranks_share_every_batch(sizes, seed, world):
    """Disjoint shares that make up the global batch, whole classes each, and in turn for accelerate's sharding."""
    p = 2 * world
    assume(len(sizes) >= p)
    labels = shuffled(sizes, seed)

    def new(rank, world=world):
        return list(pk_batches(labels, classes_per_batch=p, texts_per_class=2, seed=seed, rank=rank, world=world))

    whole, shares, in_turn = new(0, 1), [new(rank) for rank in range(world)], new(None)
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert [row for part in parts for row in part] == batch
        classes = [set(labels[part]) for part in parts]
        assert len(set.union(*classes)) == sum(map(len, classes))
        assert in_turn[number * world : (number + 1) * world] == parts


def test_draws_follow_the_power_of_the_size():
    labels = shuffled([1000, 100, 10, 10], 0)
    for alpha, expected in ((0.0, [0.25] * 4), (0.5, [0.613, 0.194, 0.0613, 0.0613])):
        sampler = pk_batches(labels, classes_per_batch=2, texts_per_class=2, alpha=alpha, batches=500)
        found = [shown.draws / 2000 for shown in sampler.report(0).classes.values()]
        capped = np.minimum(expected, 0.5)  # a class is at most once in each batch of two
        if alpha == 0.5:
            rest = np.array(expected[1:]) * 0.5 / sum(expected[1:])
            capped = np.concatenate([[0.5], rest])
        np.testing.assert_allclose(found, capped, atol=0.002)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=20), st.integers(0, 300), st.integers(1, 40), SEEDS)
def test_apportion(weights, extra, most, seed):
    weights = np.array(weights)
    total = min(len(weights) + extra, len(weights) * most)
    found = apportion(weights, total, random=np.random.default_rng(seed), most=most)
    assert found.sum() == total and found.min() >= 1 and found.max() <= most
    # There is one scale from which every number is its clipped share rounded up or down.
    low = max([0.0, *((found - 1) / weights)[found > 1]])
    high = min([np.inf, *((found + 1) / weights)[found < most]])
    assert low < high + 1e-9


def test_apportion_is_fair_over_epochs():
    """Twenty classes share thirty draws: each gets one or two, one and a half on average."""
    counts = [apportion(np.ones(20), 30, random=np.random.default_rng(seed)) for seed in range(400)]
    assert set(np.unique(counts)) == {1, 2}
    np.testing.assert_allclose(np.mean(counts, axis=0), 1.5, atol=0.1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), SEEDS)
def test_spread_never_puts_a_class_twice_in_a_batch(per_batch, batches, seed):
    random = np.random.default_rng(seed)
    classes = int(random.integers(per_batch, 4 * per_batch))
    total = per_batch * batches
    draws = apportion(random.random(classes) + 0.01, total, random=random, least=0, most=batches)
    table = spread(draws, batches, per_batch, random)
    np.testing.assert_array_equal(np.bincount(table.ravel(), minlength=classes), draws)
    assert all(len(set(row)) == per_batch for row in table.tolist())


def test_hierarchical_batches_stay_in_one_group():
    """Three groups of six classes of equal size: nearly every batch is of one group; a plain one never is."""
    labels = np.repeat(np.arange(18), 40)
    parents = labels // 6

    def groups(sampler):
        return np.mean([len(set(parents[batch])) == 1 for batch in sampler])

    options = {"classes_per_batch": 6, "texts_per_class": 2}
    assert groups(pk_batches(labels, parents=parents, **options)) > 0.9
    assert groups(pk_batches(labels, **options)) < 0.1
    two = pk_batches(labels, parents=parents, parents_per_batch=2, **options)
    assert np.mean([len(set(parents[batch])) <= 2 for batch in two]) > 0.9


def test_one_source_a_batch():
    """The same label in two files is two classes; each batch is of one file; files share batches by their power."""
    labels = np.array(["a", "b", "c"] * 40 + ["a", "b"] * 15)
    sources = np.array(["big"] * 120 + ["small"] * 30)
    for source_alpha, share in ((1.0, 0.8), (0.0, 0.5)):
        sampler = pk_batches(
            labels, sources=sources, classes_per_batch=2, texts_per_class=2, source_alpha=source_alpha, batches=100
        )
        batches = list(sampler)
        assert all(len(set(sources[batch])) == 1 for batch in batches)
        assert np.mean([sources[batch[0]] == "big" for batch in batches]) == pytest.approx(share)
        report = sampler.report()
        assert set(report.classes) == {"big/a", "big/b", "big/c", "small/a", "small/b"}
        assert report.sources["big"].draws == 400 * share


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(1, 8), SEEDS, st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_row_guarantees(sizes, batch_size, seed, source_alpha, one_source):
    sources = shuffled(sizes, seed)
    sampler = row_batches(
        len(sources),
        batch_size=batch_size,
        sources=sources,
        source_alpha=source_alpha,
        one_source=one_source,
        seed=seed,
        batches=-(-sum(sizes) // batch_size) + len(sizes),
    )
    shown = Counter()
    for _ in range(2):
        batches = list(sampler)
        assert all(len(batch) == batch_size for batch in batches)
        if one_source:
            assert all(len(set(sources[batch])) == 1 for batch in batches)
        assert {sources[row] for batch in batches for row in batch} == set(range(len(sizes)))
        shown.update(row for batch in batches for row in batch)
    for number in range(len(sizes)):
        counts = [shown[row] for row in np.flatnonzero(sources == number)]
        assert max(counts) - min(counts) <= 1


def test_plain_rows_are_each_shown_once():
    sampler = row_batches(103, batch_size=10, seed=3)
    first = Counter(row for batch in sampler for row in batch)
    assert len(first) == 103 and sum(first.values()) == 110
    second = Counter(row for batch in sampler for row in batch)
    both = first + second
    assert set(both.values()) == {2, 3}  # what filled the last batch goes on in the next epoch's order


def test_class_balanced_rows():
    labels = shuffled([300, 30, 3], 1)
    report = row_batches(333, batch_size=9, labels=labels, alpha=0.0).report(0)
    assert [shown.draws for shown in report.classes.values()] == [111, 111, 111]
    assert report.classes["2"].repeats == 108 and report.classes["0"].repeats == 0
    assert report.as_dict()["draws_per_class"] == {"least": 111, "median": 111.0, "most": 111}
    assert report.as_dict(limit=2)["classes_left_out"] == 1


def test_near_duplicates_are_capped():
    """Forty copies and ten others in one class: a pass shows one copy, the next passes other ones."""
    labels = np.array([0] * 50 + [1] * 11)
    duplicates = np.array([0] * 40 + list(range(1, 22)))
    sampler = pk_batches(labels, classes_per_batch=2, texts_per_class=11, alpha=0.0, duplicates=duplicates, batches=40)
    batches = np.array(list(sampler))
    copies = batches[(batches < 40)]
    assert len(copies) == 40 and set(copies) == set(range(40))
    for batch in batches:
        assert len(set(batch)) == 22
    two = pk_batches(
        labels, classes_per_batch=2, texts_per_class=12, alpha=0.0, duplicates=duplicates, duplicate_cap=2, batches=10
    )
    assert all((np.array(batch) < 40).sum() == 2 for batch in two)


def test_part_of_an_epoch_is_reported_as_far_as_it_was_shown():
    sampler = row_batches(20, batch_size=4)
    iterator = iter(sampler)
    next(iterator)
    next(iterator)
    report = sampler.report()
    assert (report.batches, report.planned, report.total.draws) == (2, 5, 8)


def test_settings_that_cannot_be_met_are_refused():
    labels = np.repeat(np.arange(6), 4)
    with pytest.raises(UsageError, match="6 classes cannot fill batches of 8"):
        pk_batches(labels, classes_per_batch=8)
    with pytest.raises(UsageError, match="cannot be shared by 3 processes"):
        pk_batches(labels, classes_per_batch=4, world=3)
    with pytest.raises(UsageError, match="at least 3 batches an epoch"):
        pk_batches(labels, classes_per_batch=2, batches=2)
    with pytest.raises(UsageError, match="class 1 is in group 5 here and in 0 elsewhere"):
        pk_batches(labels, classes_per_batch=2, parents=[0] * 4 + [5] + [0] * 19)
    with pytest.raises(UsageError, match="sources: 3 entries for 4 rows"):
        row_batches(4, sources=[0, 0, 1])
    with pytest.raises(UsageError, match="does not fit an epoch of 1 batches"):
        row_batches(4, batch_size=4).load_state_dict({"epoch": 0, "position": 7})


# --- near-duplicate groups -------------------------------------------------------------------------------------------


def test_near_duplicates_of_listings():
    texts = [
        "Brand new leather wallet, 12 card slots, free shipping!!",
        "BRAND NEW leather wallet 12 card slots free shipping",
        "Brand new leather wallet, 14 card slots, free shipping!!",
        "Replica watches, ask for the price list",
        "全新真皮钱包　包邮",
        "全新真皮钱包包邮！",
        "!!!",
        "???",
    ]
    assert near_duplicates(texts, similarity=0.8).tolist() == [0, 0, 0, 1, 2, 2, 3, 4]
    assert near_duplicates(texts, similarity=1.0).tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    assert near_duplicates([]).tolist() == []
    with pytest.raises(UsageError, match=r"expected 0.7 to 1"):
        near_duplicates(texts, similarity=0.5)


def test_near_duplicates_against_brute_force():
    """Random edits of ten templates: components of the exact Jaccard graph."""
    random = np.random.default_rng(0)
    alphabet = np.array(list("abcdefghijkl"))
    texts = []
    for _ in range(10):
        template = random.choice(alphabet, 40)
        for _ in range(8):
            copy = template.copy()
            copy[random.integers(0, 40, random.integers(0, 3))] = random.choice(alphabet)
            texts.append("".join(copy))
    grams = [{text[i : i + 3] for i in range(len(text) - 2)} for text in texts]
    groups = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if len(grams[i] & grams[j]) / len(grams[i] | grams[j]) >= 0.85:
                groups = [groups[j] if group == groups[i] else group for group in groups]
    found = near_duplicates(texts, similarity=0.85).tolist()
    assert len(set(zip(found, groups, strict=True))) == len(set(found)) == len(set(groups))
