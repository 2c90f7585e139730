import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.text.spelling import CHANNELS, codes, tables, with_words


def values(text, channel):
    return codes([text])[channel].values.tolist()


@pytest.mark.parametrize(
    ("clean", "evasive"),
    [
        ("加微信", "佳威新"),  # homophones, tones aside
        ("加微信", "加 微❤️信！"),  # inserted symbols
        ("加微信", "加\u200b微\u2060信"),  # and what cannot be seen
        ("代开发票", "代開發票"),  # traditional
        ("张先生", "弓长先生"),  # split
        ("微信号", "weixin号"),  # spelled out
        ("abc123", "ａｂｃ１２３"),  # full width
        ("iphone15", "1ph0neIS"),  # letters and digits for each other
        ("appie", "аррlе"),  # Cyrillic
        ("三星", "山型"),  # -n and -ng
    ],
)
def test_evasive_spellings_sound_like_the_plain_one(clean, evasive):
    assert values(clean, "sound") == values(evasive, "sound")
    hidden = clean in ("代开发票", "abc123") or "\u200b" in evasive  # what any search folds is no difference at all
    assert (values(clean, "plain") == values(evasive, "plain")) == hidden


@pytest.mark.parametrize(("one", "other"), [("未", "末"), ("己", "已"), ("人", "入"), ("土", "士"), ("免", "兔")])
def test_lookalikes_share_a_shape(one, other):
    assert values(one, "shape") == values(other, "shape")
    assert values(one, "plain") != values(other, "plain")


def test_what_differs_stays_different():
    assert values("苹果", "sound") != values("香蕉", "sound")
    assert values("苹果", "shape") != values("香蕉", "shape")
    assert values("cat", "sound") != values("dog", "sound")


def test_letters_that_are_no_syllables_stay_letters():
    assert len(values("strong", "sound")) == 6
    assert len(values("shuma", "sound")) == 2
    assert len(values("shuang", "sound")) == 6  # one syllable alone may be any word
    assert len(values("wei信号", "sound")) == 5


@pytest.mark.parametrize(
    ("clean", "evasive"),
    [
        ("微信号", "wei信号"),  # a syllable beside a character
        ("加微信号", "加 wei-信号"),
        ("微信号", "wei xin hao"),
        ("加微信", "jia w.e.i.x.in"),  # and broken by marks
        ("卖手机壳", "卖📱壳"),
        ("v3", "v3"),
        ("abc", "abc"),
    ],
)
def test_what_may_stand_for_characters_is_read_so_where_asked(clean, evasive):
    read = codes([evasive, "另一条"], as_words=True)
    assert read["sound"].values[read["sound"].rows == 0].tolist() == values(clean, "sound")
    assert read["plain"].values.tolist() == codes([evasive, "另一条"])["plain"].values.tolist()
    assert with_words([evasive, "手机壳", "wallet"]) == ([0] if clean != evasive else [])


def test_other_letters_stay_letters():
    for text in ("shuang 3", "苹果phone手机", "big men run far", "a b c d", "iphone15"):
        assert codes([text], as_words=True)["sound"].values.tolist() == values(text, "sound")
    initials = codes(["加wx", "加vx", "wx"], as_words=True)["sound"]
    by_text = [initials.values[initials.rows == row].tolist() for row in range(3)]
    assert by_text[0] == by_text[1] and by_text[0][1:] == [tables.INITIALS + 22, tables.INITIALS + 23]
    assert by_text[2] == [ord("w"), ord("x")]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["xi", "an", "xian", "ng", "hao", "shuang", "q", "a", "n", "g", "zhe", "er"]), max_size=8)
)
def test_letters_are_cut_at_the_longest_syllable_that_leaves_syllables(parts):
    syllables = tables.load().syllables
    letters = "".join(parts)
    one = "|".join(sorted(syllables.numbers, key=len, reverse=True))
    expected, rest = [], letters
    if re.fullmatch(f"(?:{one})+", letters):
        while rest:
            match = re.match(f"({one})(?=(?:{one})*$)", rest)
            expected.append(syllables.numbers[match[1]])
            rest = rest[match.end(1) :]
    found = syllables.split(letters)
    assert [ord(character) - 0xF0000 for character in found or ""] == expected


def test_long_runs_of_syllables_end():
    """Cut in one way out of very many, or in none: a pattern would try them all."""
    assert len(values("xian" * 25_000, "sound")) == 25_000
    assert len(values("xian" * 25_000 + "q", "sound")) == 100_001


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=5))
def test_a_batch_is_its_texts_one_by_one(texts):
    together = codes(texts)
    assert list(together) == list(CHANNELS)
    for row, text in enumerate(texts):
        for name, channel in together.items():
            assert channel.values[channel.rows == row].tolist() == values(text, name)
            assert (channel.values < 2**21).all() and (channel.values >= 0).all()
    assert (together["sound"].rows == together["shape"].rows).all()
