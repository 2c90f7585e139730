import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.text.analysis import Analyzer


def terms(text, **options):
    return Analyzer(**options).tokens([text])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iPhone15ProMax手机壳", {"iphone15promax", "iphon", "15", "promax", "pro", "max", "手机", "壳"}),
        ("iphone15promax", {"iphone15promax", "iphon", "15", "promax"}),
        ("3.5mm", {"3.5mm", "3.5", "mm"}),
        ("A4纸", {"a4", "4", "纸"}),
        ("ＡＢ１２", {"ab12", "ab", "12"}),
        ("微\u200b信", {"微信"}),
        ("蘋果手機殼", {"苹果", "手机", "壳"}),
        ("Running SHOES", {"run", "shoe"}),
        ("the cat and a dog", {"cat", "dog"}),
        ("Straße café", {"straße", "café"}),
        ("KX-TG1032S", {"kx", "tg1032s", "tg", "1032", "s", "kxtg1032s"}),
        ("kxtg1032s", {"kxtg1032s", "kxtg", "1032", "s"}),
        ("LCS-CSQ/B2壳", {"lcs", "csq", "b2", "b", "2", "lcscsqb2", "壳"}),
        ("920-000264", {"920", "000264", "920000264"}),
        ("1/2-in 12-gauge 5-10 e-mail", {"1", "2", "12", "gaug", "5", "10", "e", "mail"}),
        ("!!! ... 🙂", set()),
        ("", set()),
        ("\ud800abc", {"abc"}),
    ],
)
def test_terms_of_mixed_text(text, expected):
    assert set(terms(text)) == expected


def test_options_take_their_part_away():
    assert terms("iPhone15", pieces=False) == ["iphone15"]
    assert terms("920-000264", joined=False) == ["920", "000264"]
    assert terms("Shoes", stem=False) == ["shoes"]
    assert terms("the shoe", stopwords=False) == ["the", "shoe"]
    assert "蘋" in "".join(terms("蘋果", simplify=False))
    assert terms("手机壳 手机", subwords=True).count("手机") == 2


def test_own_words_stay_whole_and_split_glued_letters():
    words = ("飞云防摔壳", "promax", "pro", "max", "plus")
    found = terms("新款飞云防摔壳 promaxplus", words=words)
    assert "飞云防摔壳" in found and {"promax", "plus"} <= set(found)
    assert "飞云防摔壳" not in terms("新款飞云防摔壳")
    assert "飛雲防摔殼" not in terms("飛雲防摔殼", words=("飛雲防摔殼",)) and "飞云防摔壳" in terms(
        "飛雲防摔殼", words=("飛雲防摔殼",)
    )


@pytest.mark.parametrize("word", ["T恤", "双11", "大哥大phone", "A片", "3C产品", "卡-5", "苹果15pro手机"])
@pytest.mark.parametrize("text", ["纯棉{}批发", "{}", "red {}, 新款", "国产大{}", "买.{}", "a-{}。", "{0}{0}"])
def test_own_words_of_both_scripts_are_found_where_their_letters_stand_alone(word, text):
    listing = text.format(word).upper()
    whole, without = terms(listing, words=(word, "手机壳")), terms(listing, words=("手机壳",))
    assert word.lower() in whole and word.lower() not in without
    assert terms(listing, words=(word,), subwords=False).count(word.lower()) == text.count("{")
    assert terms(word, words=(word,), subwords=False) == [word.lower()]
    assert set(terms(word)) <= set(terms(word, words=(word,)))  # its parts are still found


@pytest.mark.parametrize(("word", "text"), [("T恤", "ST恤"), ("双11", "双112"), ("3C产品", "13C产品"), ("卡a", "卡ab")])
def test_own_words_do_not_cut_other_letters_and_digits(word, text):
    assert terms(text, words=(word,)) == terms(text)


@pytest.mark.parametrize("word", ["", "two words"])
def test_own_words_that_cannot_be_words_are_refused(word):
    with pytest.raises(UsageError, match="own word"):
        Analyzer(words=(word,))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=6))
def test_a_batch_is_its_texts_one_by_one(texts):
    analyzer = Analyzer()
    assert analyzer.tokens(texts) == [analyzer.tokens([text])[0] for text in texts]
    assert all(term and not any(map(str.isspace, term)) for line in analyzer.tokens(texts) for term in line)


def test_a_text_of_100_000_characters_has_an_answer():
    assert len(terms("x" * 100_000)) == 1
    assert len(terms("手机壳" * 33_000)) >= 60_000
