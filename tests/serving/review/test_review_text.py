"""What the review page makes of a text: hidden characters, marks, evasive spellings; and the words it says."""

import re
import string
import unicodedata
from importlib import resources
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_rag.serving.review import chinese, english
from ecom_rag.serving.review.hidden import Span, pieces, visible
from ecom_rag.serving.review.languages import Chosen, preferred
from ecom_rag.serving.review.marks import marks_of, shared_terms
from ecom_rag.serving.review.pages import HEADERS, static
from ecom_rag.serving.review.spelled import readings

TURNING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def marked(text, *seeds):
    return [text[one.start : one.end] for one in shared_terms(text, seeds)]


def read(text, *seeds):
    return [(one.written, one.read) for one in readings(text, seeds)]


def test_hidden_characters_become_boxes_with_names():
    found = pieces("a\u202eb\u200b\ud83dc\x00")
    assert [piece.text for piece in found] == ["a", "RLO", "b", "ZWSP", "U+D83D", "c", "NUL"]
    assert [piece.name for piece in found if piece.name] == [
        "U+202E RIGHT-TO-LEFT OVERRIDE",
        "U+200B ZERO WIDTH SPACE",
        "U+D83D without a name",
        "U+0000 NUL",
    ]


def test_an_emoji_hides_nothing():
    for emoji in ("❤️", "👩‍🏫", "1️⃣", "👁️‍🗨️"):
        assert [piece.name for piece in pieces(emoji)] == [None], emoji
    assert [piece.text for piece in pieces("a\ufe0f加\u200d微")] == ["a", "U+FE0F", "加", "ZWJ", "微"]


def test_white_space_that_people_write_is_kept():
    assert [piece.text for piece in pieces("a\n\tb  c")] == ["a\n\tb  c"]
    assert visible(" a\n b\u202e ") == "a b[RLO]"


def test_marks_overlap():
    found = pieces("abcdef", [Span(0, 4, "bm25"), Span(2, 6, "variant")])
    assert [(piece.text, piece.routes) for piece in found] == [
        ("ab", ("bm25",)),
        ("cd", ("bm25", "variant")),
        ("ef", ("variant",)),
    ]


@given(st.text(), st.lists(st.tuples(st.integers(-2, 30), st.integers(-2, 30))))
def test_pieces_are_the_whole_text_and_turn_nothing_round(text, places):
    found = pieces(text, [Span(min(place), max(place), "bm25") for place in places])
    place = 0
    for piece in found:
        size = 1 if piece.name else len(piece.text)
        assert piece.name or piece.text == text[place : place + size]
        place += size
    assert place == len(text)
    shown = "".join(piece.text for piece in found)
    assert not TURNING.search(shown) and not any(unicodedata.category(one) == "Cs" for one in shown)


@pytest.mark.parametrize(
    ("text", "seed", "expected"),
    [
        ("便宜出售，加薇❤信详谈", "加微信私下转账便宜", [("加薇❤信", "加微信")]),
        ("请加wei.xin转账", "加微信私下转账", [("加wei.xin", "加微信")]),
        ("加v信 低价", "加微信低价", [("加v信", "加微信")]),
        ("加wx转帐", "加微信转账", [("加wx转帐", "加微信转账")]),
        ("刷*单*返*利", "刷单返利", [("刷*单*返*利", "刷单返利")]),
        ("刷💰", "刷钱", [("刷💰", "刷钱")]),
        ("月半子", "胖子", [("月半子", "胖子")]),
        ("Replica w.a.t.c.h", "replica watch", [("w.a.t.c.h", "watch")]),
        ("Onl1ne c@s1no", "online casino", [("Onl1ne c@s1no", "online casino")]),
        ("加\u200b微\u200d信", "加微信", [("加\u200b微\u200d信", "加微信")]),
        ("便宜手机壳", "便宜手机壳", []),
        ("頭髮護理", "头发护理", []),  # traditional is no evasion
        ("便宜，手机壳", "便宜手机壳", []),  # nor is a comma
        ("", "加微信", []),
        ("加薇信", "", []),
    ],
)
def test_evasive_spellings_are_read_as_their_seed(text, seed, expected):
    assert read(text, seed) == expected


@given(st.text(alphabet="加微信薇❤v wx.*\u200b买卖a1", max_size=40), st.text(alphabet="加微信低价a1 ", max_size=20))
def test_readings_are_parts_of_both_texts(text, seed):
    found = readings(text, [seed])
    assert all(text[one.start : one.end] == one.written and one.read in seed for one in found)
    assert all(first.end <= second.start for first, second in pairwise(found))


def test_terms_are_marked_where_they_stand():
    text = "全新iPhone15ProMax 手机壳，Running shoes 頭髮 KX-TG1032S"
    assert marked(text, "手机壳 iphone run 头发") == ["iPhone15ProMax", "手机壳", "Running", "頭髮"]
    assert marked(text, "nothing") == [] and marked("", "a") == [] and marked("ＡＢＣ", "abc") == ["ＡＢＣ"]


def test_only_seeds_of_a_route_count_for_it():
    result = {"text": "便宜 加薇信", "topk_seed": ["加微信", "便宜"], "topk_evidence": [{"bm25": {}}, {"variant": {}}]}
    assert marks_of(result) == ([], [])
    result["topk_evidence"] = [{"variant": {}}, {"bm25": {}}]
    spans, found = marks_of(result)
    assert spans == [Span(0, 2, "bm25"), Span(3, 6, "variant")] and found[0].read == "加微信"


def test_both_languages_have_the_same_words_and_places():
    assert list(english.WORDS) == list(chinese.WORDS)
    places = [
        {key: {name for _, name, _, _ in string.Formatter().parse(words) if name} for key, words in table.items()}
        for table in (english.WORDS, chinese.WORDS)
    ]
    assert places[0] == places[1]


def test_every_word_is_used_and_every_used_word_is_there():
    room = resources.files("ecom_rag.serving.review")
    files = [*room.iterdir(), *room.joinpath("templates").iterdir()]
    text = "".join(
        one.read_text()
        for one in files
        if one.name.endswith((".py", ".html")) and one.name not in ("english.py", "chinese.py")
    )
    used = set(re.findall(r"""(?:\bt|say)\(\s*f?["']([a-z0-9_]+)["']""", text))
    missing = {key for key in used - set(english.WORDS) if not key.endswith("_")}
    assert missing == set()
    made = ("said_", "act_", "reason_", "short_", "age_", "state_", "mark_", "action_", "export_")
    quoted = set(re.findall(r"""["']([a-z0-9_]+)["']""", text))
    unused = {key for key in english.WORDS if key not in quoted and not key.startswith(made)}
    assert unused == set()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9", "en"),
        ("de, zh;q=0.1", "zh"),
        ("en;q=0.1,zh-TW;q=0.7", "zh"),
        ("zh;q=0, en;q=0.1", "en"),
        ("fr", "en"),
        ("", "en"),
        ("zh;q=x", "en"),
    ],
)
def test_the_browser_chooses_the_language(accepted, language):
    assert preferred(accepted) == language


def test_ages_are_said_in_the_largest_unit():
    english_, chinese_ = Chosen("en", True, False), Chosen("zh", True, False)
    assert [english_.age(s) for s in (0, 59, 60, 7200, 259200)] == ["under 1 min", "under 1 min", "1 min", "2 h", "3 d"]
    assert chinese_.age(7200) == "2 小时"


def test_nothing_inline_and_nothing_from_elsewhere():
    for one in resources.files("ecom_rag.serving.review").joinpath("templates").iterdir():
        text = one.read_text()
        assert "|safe" not in text and "| safe" not in text and "<style" not in text, one.name
        assert not re.search(r"\sstyle=|\son\w+=|javascript:|https?://", text), one.name
        assert not re.search(r"<script(?! src=)", text), one.name
    assert "http" not in re.sub(r"/\*.*?\*/", "", static("review.css").decode())
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]
