"""The form by which texts are the same: what makes no difference, what does, and what search makes of a text."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.text.normalization import canonical, normalize
from helpers.disguises import ENDINGS, INVISIBLE, disguised

# Characters whose scripts OpenCC converts both ways, with what else stands in listings.
TEXTS = st.lists(
    st.sampled_from(
        [*"手机壳代开发票头发国产转账红包赢钱网贷", *"abcXYZ", *"0158", *" +#%-/.?&@", "🙂", "カメラ", "é"]
    ),
    min_size=1,
    max_size=20,
).map("".join)
READABLE = TEXTS.filter(lambda text: any(character.isalnum() for character in text))


def form(text):
    return canonical([text])[0]


def test_traditional_phrases_follow_their_meaning():
    assert normalize(["乾隆 乾燥 頭髮 出發"], simplify=True) == ["乾隆 干燥 头发 出发"]


def test_normalize_keeps_one_line_a_text():
    assert normalize(["a\nb", "Ｃ\u2028\r\n", "", "①"]) == ["a b", "c   ", "", "1"]
    assert normalize([]) == []


@settings(max_examples=300, deadline=None)
@given(READABLE, st.data())
def test_a_disguise_is_the_same_text(text, data):
    assert form(data.draw(disguised(text))) == form(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=20) | TEXTS, max_size=6))
def test_a_form_is_its_own_form_and_does_not_depend_on_the_batch(texts):
    forms = canonical(texts)
    assert canonical(forms) == forms == [form(text) for text in texts]
    assert [bool(one) for one in forms] == [bool(text) for text in texts]


@pytest.mark.slow
def test_every_character_has_a_form_that_is_its_own():
    every = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    forms = canonical(every)
    assert canonical(forms) == forms and all(forms)


@pytest.mark.parametrize(
    "texts",
    [
        ("头发 2 件", "頭髮2件", "头发 ２件。", "头\u200b发2件！！", "头发2件 … "),
        ("乾燥", "乾 燥", "干燥"),
        ("看着 卫生 台灯", "看著衛生臺燈", "看着衞生枱燈"),
        ("iPhone 15 手机", "IPHONE  15手机", "ｉＰｈｏｎｅ　15 手机~"),
        ("café", "cafe\u0301", "CAFÉ."),
        ("STRASSE", "straße"),
        ("①③⑤", "135"),
        ("👨\u200d👩\u200d👧", "👨👩👧"),
        ("❤️", "❤"),
        ("…", "..."),
        ("ガ", "ｶﾞ"),
    ],
)
def test_same_texts(texts):
    assert len(set(canonical(texts))) == 1


@pytest.mark.parametrize(
    "texts",
    [
        ("1.5", "15", "1,5", "1 5", "-15", "15%", "15元", "¥15", "15+", "1/5", "1:5"),
        ("A", "A+", "A#", "A-", "A*", "A?", "A/"),
        ("C", "C++", "C#"),
        ("50", "50%", "50‰", "50°", "5 0"),
        ("5g", "5kg", "5mg", "5ml"),
        ("是正品", "不是正品", "是正品?", "是正品吗"),
        ("wallet", "not wallet", "no wallet", "walle t"),
        ("微信", "威信", "徽信", "微.信", "微-信", "weixin", "vx"),  # evasive spellings are for the route variant
        ("apple", "аpple", "app1e"),
        ("未", "末"),
        ("!", "!!", "?", "???"),
        (" ", "\u200b", "\n", "。"),
    ],
)
def test_different_texts(texts):
    assert len(set(canonical(texts))) == len(texts)


def test_what_is_invisible_or_final_alone_keeps_itself():
    assert canonical(["", " ", "\u200b", "!!", " 。 ", "…\ufeff"]) == ["", " ", "\u200b", "!!", "。", "..."]
    assert all(form(mark) == form("a" + mark).removeprefix("a") != "" for mark in "+#%?*)）】")
    assert {form(f"壳{a}A{b}{c}") for a in INVISIBLE for b in INVISIBLE for c in ENDINGS} == {"壳a"}


@settings(max_examples=50, deadline=None)
@given(st.text(st.sampled_from("e\u0301\u0323\u0327\u0344\u0f73\u0f71é\u05b4\u3099"), min_size=40, max_size=200))
def test_long_runs_of_combining_marks_are_as_nfkc_has_them(text):
    text = "x" * 1000 + text
    assert normalize([text]) == [unicodedata.normalize("NFKC", text)]


def test_a_megabyte_of_combining_marks_ends():
    """The library's own NFKC would take minutes."""
    text = "e" + "\u0301\u0323" * 250_000
    assert len(form(text)) == len(text) - 1
