"""What is printed moves no cursor and stays on its line."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ecom_rag.text.printing import one_line, printable


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    for shown in (printable(text), one_line(text)):
        assert len(shown.splitlines()) <= 1
        assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
        assert not {unicodedata.bidirectional(character) for character in shown} & {"RLO", "LRO", "RLI", "LRI", "PDF"}
        shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_what_shows_itself_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_escapes_are_told_as_python_writes_them() -> None:
    assert printable("a\x1b[31m\tb\u202e手机") == "a\\x1b[31m\\tb\\u202e手机"
    assert one_line(" a\n\tb\x07 ") == "a b\\x07"
