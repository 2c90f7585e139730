import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.retrieval import postings, variant_query
from ecom_rag.retrieval import variant_kernels as kernels
from ecom_rag.retrieval.variant import VariantIndex
from ecom_rag.retrieval.variant_query import pairs as pairs_of
from ecom_rag.text.spelling import codes, tables

SEEDS = [
    "加微信购买低价香烟",
    "正品手机壳包邮",
    "代开发票请联系张先生",
    "iphone15 手机壳",
    "欢迎光临本店选购",
    "高仿名表一比一复刻",
]


@pytest.mark.parametrize(
    ("query", "row"),
    [
        ("佳薇❤信购买低价香火因", 0),
        ("加weixin购买低价香烟", 0),
        ("正.品.手.机.壳.包.邮", 1),
        ("代開發剽请联系弓长先生", 2),
        ("1ph0ne15 守机壳", 3),
        ("欢 迎 光 临 本 店 选 购", 4),
        ("高仿茗表一笔一复克", 5),
        ("gao fang ming biao一比一复ke", 5),
        ("jia微信gou买di价香yan", 0),
        ("正品📱壳bao you", 1),  # emoji as a word
        ("正📱品🔥手💰机壳包邮", 1),  # and as a mark
        ("加vx购买低价xy", 0),  # initials
        ("代开fp请lx张先生", 2),
        ("正手品机壳包邮", 1),  # in another order
        ("欢光迎临本店购选", 4),
    ],
)
def test_evasive_spellings_are_found(query, row):
    found = VariantIndex(SEEDS).search([query], 3)
    assert found.rows[0, 0] == row
    assert 0.4 <= found.scores[0, 0] <= 1


@pytest.mark.parametrize("query", [*SEEDS, "手机壳", "纯棉儿童袜子", "", "!", "a", "🙂"])
def test_clean_queries_find_nothing(query):
    assert (VariantIndex(SEEDS).search([query], 3).rows == -1).all()


def test_both_readings_of_emoji_are_results_once_each():
    index = VariantIndex([*SEEDS, "手机手机手机壳", "正品壳壳包邮"])
    found = index.search(["📱📱📱壳", "正品📱壳包邮"], 8)
    assert found.rows[0, 0] == 6
    rows = found.rows[1][found.rows[1] >= 0].tolist()
    assert 1 in rows and len(set(rows)) == len(rows)
    assert (np.diff(found.scores[1, : len(rows)]) <= 0).all() and np.isneginf(found.scores[1, len(rows) :]).all()


def other_readings(text, as_words):
    """For each gram the pairs of sounds that it may have been, and how much they count, by their definition."""
    channel = codes([text], as_words=as_words)["sound"]
    sounds = channel.values.tolist()
    terms, places = kernels.grams(channel.values, channel.rows, 1)
    first = tables.INITIALS
    of_letter = {chr(97 + letter): set() for letter in range(26)}
    for name, number in tables.load().syllables.names.items():
        of_letter[name[0]].add(tables._SOUNDS + number)

    def options(code):
        return of_letter[chr(97 + code - first)] if first <= code < first + 26 else {code}

    def is_letter(code):
        return chr(code).isascii() and chr(code).isalnum() if code < 128 else False

    def pair(one, other):
        return 1 << 60 | one << 21 | other

    for term, i in zip(terms.tolist(), places.tolist(), strict=True):
        if term >> 59 & 1:
            yield []
            continue
        a, b = sounds[i : i + 2]
        if len(options(a)) > 1 or len(options(b)) > 1:
            yield [(pair(x, y), 0.9) for x in options(a) for y in options(b)]
        elif is_letter(a) or is_letter(b):
            yield []
        else:
            around = [(b, a, 0.8)]
            around += [(a, c, 0.8) for c in sounds[i + 2 : i + 3] if not is_letter(c)]
            around += [(z, b, 0.79) for z in sounds[max(0, i - 1) : i] if not is_letter(z)]
            yield [(pair(one, other), factor) for one, other, factor in around]


def slow_search(rows, query, floor, margin):
    """Overlaps by the formula, from lists of grams: a row's number and overlap where it is a result."""
    grams = [{name: pairs_of([text])[name][0].tolist() for name in ("plain", "sound", "shape")} for text in rows]
    average = sum(len(g["plain"]) for g in grams) / len(rows)

    def idf(name, term):
        frequency = sum(term in g[name] for g in grams)
        return math.log(1 + (len(rows) - frequency + 0.5) / (frequency + 0.5))

    def share(name, term, g):
        count = g[name].count(term)
        return min(1.0, 1.2 * count / (count + 0.2 + 0.2 * len(g["plain"]) / average))

    plain = pairs_of([query])["plain"][0].tolist()
    less = [idf("plain", term) for term in plain]
    written = [sum(w * share("plain", t, g) for w, t in zip(less, plain, strict=True)) / sum(less) for g in grams]
    overlaps = [0.0] * len(rows)
    for as_words in (False, True):  # the better of both readings
        asked = [codes([query], as_words=as_words)[name] for name in ("sound", "shape")]
        sound, shape = (kernels.grams(one.values, one.rows, n)[0].tolist() for n, one in enumerate(asked, start=1))
        pairs = list(zip(sound, shape, other_readings(query, as_words), strict=True))
        weights = [(idf("sound", a) + idf("shape", b)) / 2 for a, b, _ in pairs]
        for row, g in enumerate(grams):
            found = sum(
                w * max(share("sound", a, g), share("shape", b, g), *(f * share("sound", c, g) for c, f in others), 0)
                for w, (a, b, others) in zip(weights, pairs, strict=True)
            )
            overlaps[row] = max(overlaps[row], found / sum(weights))
    bar = max(floor, max(written) + margin)
    return {row: overlap for row, overlap in enumerate(overlaps) if overlap >= bar}


@pytest.mark.parametrize(
    "query",
    [
        "佳薇信购买低价香火因",
        "1ph0ne15 守机壳",
        "代 开 发 票 手机壳",
        "高仿茗表",
        "加vx购买低jx烟",
        "光欢迎临本店购选",
        "正手品机壳包邮",
    ],
)
def test_scores_are_those_of_the_formula(query):
    found = VariantIndex(SEEDS, floor=0.1, margin=0.05).search([query], 6)
    expected = slow_search(SEEDS, query, 0.1, 0.05)
    ids = found.rows[0][found.rows[0] >= 0]
    assert expected and set(ids) == set(expected)
    np.testing.assert_allclose(found.scores[0, : len(ids)], [expected[row] for row in ids], atol=1e-5)
    assert (np.diff(found.scores[0, : len(ids)]) <= 0).all()


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_changes_end_where_a_fresh_index_does(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    alphabet = list("微信购买低价香烟正品手机壳包邮")
    texts = ["".join(rng.choice(alphabet, rng.integers(0, 12))) for _ in range(60)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postings, "FULL", (0, 400, 80, 20))
        index = VariantIndex(texts[:20])
        index.remove(np.array([3, 3, 7]))
        for start in range(20, 60, 8):
            index.extend(texts[start : start + 8])
            index.remove(rng.integers(0, len(index), 3))
    live = np.flatnonzero(index.arrays()["live"])
    queries = [text.replace("微", "威").replace("香", "相").replace("正", "政") for text in texts[::5]]
    fresh = VariantIndex([texts[row] for row in live]).search(queries, 10)
    assert (fresh.rows >= 0).any()
    for same in (index, VariantIndex.from_arrays(index.arrays())):
        found = same.search(queries, 10)
        np.testing.assert_array_equal(found.scores, fresh.scores)
        np.testing.assert_array_equal(found.rows, np.where(fresh.rows < 0, -1, live[fresh.rows]))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["佳薇信购买低价香火因", *SEEDS]), st.integers(1, 9)), max_size=5))
def test_a_long_query_finds_what_it_would_pair_by_pair(parts):
    """Equal pairs of a long query are added up first; a short one beside it keeps its own order."""
    queries = [("佳薇信购买低价香火因" * 40), "".join(text * times for text, times in parts), "佳薇❤信购买低价香火因"]
    index = VariantIndex(SEEDS)
    with pytest.MonkeyPatch.context() as patch:
        plain = index.search(queries, 3)
        patch.setattr(variant_query, "MANY", 20)
        summed = index.search(queries, 3)
    assert plain.rows[0, 0] == 0 and summed.rows.tolist() == plain.rows.tolist()
    np.testing.assert_allclose(summed.scores, plain.scores, rtol=1e-4)
    assert summed.scores[2].tolist() == plain.scores[2].tolist()


@pytest.mark.parametrize("query", ["正手品机壳包邮", "加vx购买低价xy", "正品📱壳包邮", "佳薇信购买低价香火因"])
def test_a_query_finds_the_same_beside_a_long_one(query, monkeypatch):
    monkeypatch.setattr(variant_query, "MANY", 20)
    index = VariantIndex(SEEDS)
    alone = index.search([query], 3)
    assert alone.rows[0, 0] >= 0
    for beside in ([query, "佳薇信购买低价香火因" * 40], ["佳薇信购买低价香火因" * 40, query, query]):
        found = index.search(beside, 3)
        place = beside.index(query)
        assert found.rows[place].tolist() == alone.rows[0].tolist()
        assert found.scores[place].tolist() == alone.scores[0].tolist()


def test_a_filter_takes_rows_away_and_no_more():
    index = VariantIndex([*SEEDS, "加微信购买低价香烟"])
    query = "佳薇信购买低价香烟火"
    every = index.search([query], 3)
    assert every.rows[0].tolist() == [0, 6, -1]
    allowed = np.arange(7) > 0
    some = index.search([query], 3, allowed=allowed)
    assert some.rows[0].tolist() == [6, -1, -1] and some.scores[0, 0] == every.scores[0, 1]


def test_snapshots_are_mapped_and_grow(tmp_path):
    for name, array in VariantIndex(SEEDS[:2]).arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = VariantIndex.from_arrays({p.stem: np.load(p, mmap_mode="r") for p in tmp_path.iterdir()})
    mapped.extend(SEEDS[2:])
    query = "高仿茗表一笔一复克"
    assert mapped.search([query], 2).scores.tolist() == VariantIndex(SEEDS).search([query], 2).scores.tolist()


def test_edges():
    assert VariantIndex().search(["微信"], 3).rows.shape == (1, 0)
    assert VariantIndex(SEEDS).search([], 3).rows.shape == (0, 3)
    assert (VariantIndex(["", "!"]).search(["微信"], 3).rows == -1).all()
    for options in ({"floor": 2.0}, {"margin": -0.1}, {"floor": float("nan")}):
        with pytest.raises(UsageError, match="expected 0 to 1"):
            VariantIndex(**options)
