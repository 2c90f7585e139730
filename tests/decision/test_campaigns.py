"""Campaigns of a stream against all pairs, compared one by one, and however the stream is cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.decision.campaigns import NONE, CampaignStream, names_of
from ecom_rag.decision.sketches import KEPT, packed, sketches_of, unpacked
from ecom_rag.errors import UsageError
from ecom_rag.text.minhash import plain, similar
from helpers.campaigns import similarities, variations


def assign(texts, cuts=(), **settings):
    stream = CampaignStream(**{"capacity": 1000} | settings)
    edges = [0, *sorted(cuts), len(texts)]
    return [
        name for start, end in pairwise(edges) for name in names_of(stream.assign(texts[start:end]).campaigns.tolist())
    ]


@pytest.mark.parametrize("similarity", [0.7, 0.85])
@pytest.mark.parametrize("seed", range(3))
def test_a_text_joins_a_near_duplicate_before_it(similarity, seed):
    texts = variations(80, templates=5, length=60, edits=4, seed=seed)
    found, pairs = assign(texts, similarity=similarity), similarities(texts)
    for i in range(len(texts)):
        relatives = {found[j] for j in range(i) if pairs[i][j] >= similarity}
        assert found[i] in relatives if relatives else found[i] not in found[:i]
    assert len(set(found)) > 5


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_cuts_do_not_matter(data):
    texts = variations(60, templates=6, length=50, edits=3, seed=data.draw(st.integers(0, 50)))
    cuts = data.draw(st.lists(st.integers(0, 60), max_size=6))
    capacity = data.draw(st.sampled_from([1, 2, 7, 30, 1000]))
    assert assign(texts, cuts, capacity=capacity) == assign(texts, capacity=capacity)


def test_a_campaign_has_the_name_of_its_first_text_everywhere():
    first = "全新真皮钱包，十二个卡位，全国包邮，限时特价，欢迎选购，支持七天无理由退换货品"
    assert assign([first]) == ["ceac2663aba1"]
    again = assign(["something else", first, first + "！！", "全新真皮钱包 　" + first[6:], "Something  ELSE."])
    assert again[1:4] == ["ceac2663aba1"] * 3
    assert again[0] == again[4] != again[1]


def test_empty_blocks_and_texts():
    assert assign([]) == []
    names = assign(["", "", "!!!", "???", "a", "\ud800", "🙂"])
    assert names[0] == names[1] and len(set(names)) == 6


def test_what_keeps_coming_is_remembered_and_the_rest_forgotten():
    texts = variations(400, templates=400, length=30, edits=0, seed=1)
    stream = CampaignStream(capacity=50)
    kept, gone = texts[0], texts[1]
    variant = "".join([*texts[0], "x"])
    name = stream.assign([kept, gone]).campaigns
    for start in range(2, 302, 20):
        stream.assign([*texts[start : start + 20], kept])
    assert stream.find([kept, variant, gone]).tolist() == [name[0], name[0], NONE]


def test_memory_is_bounded_by_values_too():
    """Texts of more n-grams than a generation has room for on average: it is full earlier."""
    long = variations(40, templates=40, length=600, edits=0, seed=2)
    stream = CampaignStream(capacity=20)  # room for 5 of these
    stream.assign(long)
    assert (stream.find(long) != NONE).tolist() == [False] * 30 + [True] * 10


def test_long_texts_are_estimated_as_well_as_promised():
    """At a true similarity of 0.85 the estimates of 300 pairs have the standard error of the docstring, 0.022."""
    random = np.random.default_rng(5)
    estimates = []
    for _ in range(300):
        values = random.choice(2**32, 1150, replace=False).astype(np.uint32)
        pair = [np.sort(values[:1075])[:KEPT], np.sort(np.append(values[:1000], values[1075:]))[:KEPT]]  # 1000 of 1150
        steps = [step for step in np.arange(0.7, 1, 0.002) if similar(pair[0], pair[1], step, KEPT)]
        estimates.append(steps[-1])
    assert np.mean(estimates) == pytest.approx(1000 / 1150, abs=0.005)
    assert np.std(estimates) == pytest.approx(np.sqrt(0.87 * 0.13 / KEPT), abs=0.004)


def test_long_texts_join():
    [text] = variations(1, templates=1, length=3000, edits=0, seed=3)
    other = text[:1500] + "以及别的" + text[1500:]
    far = "".join(reversed(text[:1500])) + text[1500:]
    names = assign([text, other, far])
    assert names[0] == names[1] != names[2]


def test_sketches_survive_packing():
    sketches = sketches_of(plain(["abcdefgh", "x", "y" * 50, "".join(map(chr, range(0x4E00, 0x4E00 + 702)))]), 3)
    packs = [packed(sketches, text) for text in range(4)]
    assert [len(pack) for pack in packs] == [28, 8, 8, 4 + 4 * KEPT]
    found, items = unpacked([packs[0] + packs[1], b"", packs[2] + packs[3]])
    assert items.tolist() == [0, 0, 2, 2]
    for name, values in found._asdict().items():
        assert values.tolist() == getattr(sketches, name).tolist()
    assert unpacked([])[1].tolist() == []
    for wrong in ([packs[0][:-4]], [packs[0] + b"x"], [b"abc"], [packs[3][:400], packs[3][400:]]):
        with pytest.raises(ValueError, match="a sketch is cut off"):
            unpacked(wrong)


def test_remembered_campaigns_are_joined():
    [text] = variations(1, templates=1, length=60, edits=0, seed=4)
    stream = CampaignStream(capacity=3)
    stream.remember(sketches_of(plain([text, "b", "c", "d", text]), 3), np.array([7, 8, 9, 10, 7]))
    assert stream.find([text + "x", "zzz"]).tolist() == [7, NONE]
    assert stream.assign([text + "x"]).campaigns.tolist() == [7]


def test_settings_out_of_range():
    with pytest.raises(UsageError, match=r"similarity of near-duplicates is 0.5; expected 0.7 to 1"):
        CampaignStream(similarity=0.5)
    with pytest.raises(UsageError, match="`capacity` is 0; expected at least 1"):
        CampaignStream(capacity=0)
