"""Filters: the grammar by example, its mistakes in one line, and SQL equal to the definition on arbitrary metadata."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import UsageError
from ecom_rag.filters.parse import parse
from ecom_rag.filters.sql import conditions, indexable
from ecom_rag.filters.tree import And, Compare, Contains, Exists, In, Not, Or, matches
from helpers.random_filters import by_sql

pytestmark = pytest.mark.slow

LISTING = {
    "label": "fraud",
    "price": 99.5,
    "brand": "acme",
    "seller": {"vip": False, "level": 3, "name": None},
    "tags": ["a"],
    "mixed": [1, "2", True, None, 0.5, ["deep"], {"k": "v"}],
    "empty": [],
    "a.b": {'c"d': 1},
    "sold": 0,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('label = "fraud"', True),
        ("label == 'fraud'", True),
        ("label = 'other'", False),
        ('label = "fraud" and (price < 100 or brand in ("x", "y")) and not seller.vip = true', True),
        ("price <= 99.5 and price >= 99.5 and not price < 99.5 and not price > 99.5", True),
        ("price < 99.5 or sold = 0", True),
        ('price < "a"', False),  # another type
        ('price = "99.5"', False),
        ("sold = false", False),  # 0 is not false
        ("seller.vip = false", True),
        ("seller.vip = 0", False),
        ("seller.vip != true", True),
        ("missing = 1", False),
        ("missing != 1", True),
        ("not missing = 1", True),
        ("not missing < 1 and not missing >= 1", True),
        ("missing = null", False),
        ("seller.name = null", True),
        ("seller.name != null", False),
        ("exists(seller.name)", True),
        ("exists(seller.none)", False),
        ("not exists (seller.none.deeper)", True),
        ('brand in ("acme", 1, null, true)', True),
        ('brand not in ("acme")', False),
        ("sold in (0.0)", True),
        ('sold in ("0", false)', False),
        ('tags = "a"', False),  # arrays equal nothing
        ("exists(tags)", True),
        ('"a" in tags', True),
        ("'b' in tags", False),
        ('"b" not in tags and not "b" in tags', True),
        ("1 in mixed and 1.0 in mixed and .5 in mixed and true in mixed and null in mixed", True),
        ('"1" in mixed', False),  # another kind
        ('2 in mixed or false in mixed or 0 in mixed or "deep" in mixed or "v" in mixed', False),
        ('"a" in empty', False),
        ('"fraud" in label', False),  # a text is no array
        ('"a" in missing', False),
        ('"a" not in missing', True),
        ("false in seller", False),  # an object is none either
        ('"tags" in ("a")', False),  # a key in quotes, and values
        ('label in ("fraud") and "a" in tags or 5 = 1', True),
        ("exists(seller)", True),
        ('"a.b"."c\\"d" = 1', True),
        ("'a.b'.'c\"d' > 0", True),
        ("a.b = 1", False),
        ("NOT label = 'x' AND Exists(label)", True),
        ("a = 1 or label = 'fraud' and price > 1000", False),  # and binds tighter
        ("(a = 1 or label = 'fraud') and price > 90", True),
        (r'label = "\u0066raud"', True),
        (r"label = 'fr\'aud'", False),
        ("sold > -1e3 and sold < .5", True),
    ],
)
def test_worked_examples(text, expected):
    tree = parse(text)
    assert matches(tree, LISTING) is expected
    assert by_sql(tree, [LISTING]) == ([0] if expected else [])


def test_precedence_and_shape():
    tree = parse("a = 1 or not b in (2) and exists(c.d)")
    assert tree == Or((Compare(("a",), "=", 1), And((Not(In(("b",), (2,))), Exists(("c", "d"))))))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"label": "fraud"}, 'label = "fraud"'),
        ({"price": {">=": 1, "<": 5}, "seller.vip": {"!=": True}}, "price >= 1 and price < 5 and seller.vip != true"),
        ({"$or": [{"a": 1}, {"b": {"in": [1, "x"]}}]}, 'a = 1 or b in (1, "x")'),
        ({"$not": {"a": None}}, "not a = null"),
        ({"a": {"exists": False}}, "not exists(a)"),
        ({"a": {"not in": [1]}}, "a not in (1)"),
        ({"a": {"contains": "x"}, "b.c": {"not contains": 1}}, '"x" in a and 1 not in b.c'),
        ({"a": np.int64(1), "b": {"<": np.float32(0.5)}}, "a = 1 and b < 0.5"),
        ({"a": {"in": np.array([1, 2])}, "b": np.str_("x")}, 'a in (1, 2) and b = "x"'),
        ({"a": {"in": [np.int64(1), np.bool_(True)]}, "b": {"contains": np.int8(3)}}, "a in (1, true) and 3 in b"),
        ({'"a.b".c': 1}, '"a.b".c = 1'),
    ],
)
def test_dicts_mean_what_the_text_means(source, text):
    assert parse(source) == parse(text)


def test_an_empty_dict_matches_all():
    assert by_sql(parse({}), [{}, {"a": 1}]) == [0, 1]


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", 1, "a key"),
        ("label", 6, '"in"'),
        ("label = ", 9, "a value"),
        ("label = fraud", 9, "a quoted string"),
        ('label = "fraud', 9, "closing quote"),
        ("label = 'a' price < 3", 13, '"and", "or" or the end'),
        ("(label = 'a'", 13, '")"'),
        ("label in 'a'", 10, '"("'),
        ("label in labels", 10, '(an element of an array: "value" in key)'),
        ("labels contains 'a'", 8, '(an element of an array: "value" in key)'),
        ("'a' in", 7, "a key"),
        ("'a' in true", 8, "a key"),
        ("'a' not label", 9, '"in"'),
        (r"a = '\ud83d'", 5, "whole characters"),
        ("a = '\ud83d'", 5, "whole characters"),
        ("label in ()", 11, "a value"),
        ("label in ('a' 'b')", 15, '","'),
        ("not", 4, "a key"),
        ("seller..vip = 1", 8, "a key"),
        ("exists label", 8, '"("'),
        ("price ~ 3", 7, "an operator"),
        ("price < true", 9, "only with = or !="),
        ("and = 1", 1, "a key"),
        (r'a = "\q"', 5, "escapes"),
        ("a = 12kg", 5, "a value"),
        ("(" * 21 + "a = 1" + ")" * 21, 22, "levels"),
        (" and ".join(["a = 1"] * 501), 5001, "at most 500 comparisons"),
    ],
)
def test_mistakes_say_where_and_what(text, place, expected):
    with pytest.raises(UsageError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith(f"filter, character {place}: found ") and expected in message and "\n" not in message


@pytest.mark.parametrize(
    "source",
    [
        {"a": [1]},
        {"a": {"~": 1}},
        {"a": {"<": None}},
        {"$or": []},
        {"$and": 1},
        {1: 2},
        {"a..b": 1},
        {"a": float("nan")},
        7,
        {"a": {"in": "xy"}},
        {"$not": []},
        {"a": {"contains": ["x"]}},
        {"a": np.datetime64("2020")},
        {"a": {"in": [b"x"]}},
        {"a": {"<": np.bool_(True)}},
        {"a": "\ud83d"},
        {"'\ud83d'": 1},
        {"a": 10**5000},
        Compare("a", "=", 1),
        Compare(("a",), "~", 1),
        Compare(("a",), "<", None),
        Compare(("a",), "=", [1]),
        Contains(("a",), np.int64(1)),
        In(("a",), [1]),
        Exists(()),
        Exists((1,)),
        Not(1),
    ],
)
def test_dict_mistakes(source):
    with pytest.raises(UsageError, match="filter"):
        parse(source)


def test_a_deep_tree_from_python_is_refused():
    tree = Compare(("a",), "=", 1)
    for _ in range(300):
        tree = Not(tree)
    with pytest.raises(UsageError, match="levels"):
        parse(tree)


def test_the_deepest_and_longest_filters_run():
    deep = "a in (1, 'x') or not (a in (2) and (" * 6 + "a.'\"'.b.c in (1, 'x', null)" + "))" * 6
    element = deep.replace("a.'\"'.b.c in (1, 'x', null)", "1 in a.'\"'.b.c")
    for tree in (parse(deep), parse(deep.replace("'\"'", "q")), parse(element), parse(element.replace("'\"'", "q"))):
        assert by_sql(tree, [{"a": 1}, {"a": 2}, {"a": 3}]) == [
            row for row in range(3) if matches(tree, {"a": row + 1})
        ]
    with pytest.raises(UsageError, match="at most 4 parts"):
        conditions(parse("a.b.c.d.'\"' = 1"))
    long = " or ".join(f"a = {i}" for i in range(500))
    wide = f"a in ({', '.join(map(str, range(5000)))})"
    for text in (long, wide):
        assert by_sql(parse(text), [{"a": 1}, {"a": -1}]) in ([0], [1])


def test_values_are_bound_and_never_pasted():
    tree = parse({"label": "x'; DROP TABLE documents; --", '"k\'); DROP TABLE documents; --"': "y"})
    where, parameters = conditions(tree)
    assert "DROP" not in where and len(parameters) == 6
    assert by_sql(tree, [LISTING]) == []


def test_metadata_nested_fifty_deep_and_integers_of_any_size():
    deep = value = {}
    for _ in range(49):
        value["k"] = {}
        value = value["k"]
    value["k"] = 10**30
    documents = [deep, {"k": 1}, {"big": 2**63}, {"big": 2**53 + 1}]
    assert by_sql(parse(".".join("k" * 50) + f" = {10**30}"), documents) == [0]
    assert by_sql(parse(f"big > {2**63 - 1}"), documents) == [2]
    assert by_sql(parse(f"big = {2**53 + 1}"), documents) == [3]
    assert by_sql(parse(f"big = {2**53}"), documents) == []  # within 64 bits integers are exact


KEYS = st.sampled_from(["a", "b", "a.b", 'q"q', "价格", "x'y", "", "back\\slash", "line\nbreak", "0", "$"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0.5, -1.25, 2.0, 1e300]),
    st.sampled_from(["", "a", "b", "é", "中文", "true", "1", "null", '{"a": 1}', "\U0001f600", "a\0b"]),
)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=2) | st.dictionaries(KEYS, v, max_size=3), max_leaves=6)
DOCUMENTS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=6)
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(tuple)
ORDERED = SCALARS.filter(lambda value: not isinstance(value, bool) and value is not None)
LEAVES = st.one_of(
    st.builds(Compare, PATHS, st.just("="), SCALARS),
    st.builds(Compare, PATHS, st.sampled_from(["<", "<=", ">", ">="]), ORDERED),
    st.builds(In, PATHS, st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(Contains, PATHS, SCALARS),
    st.builds(Exists, PATHS),
)
TREES = st.recursive(
    LEAVES,
    lambda t: (
        st.builds(Not, t)
        | st.builds(And, st.lists(t, max_size=3).map(tuple))
        | st.builds(Or, st.lists(t, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(TREES, DOCUMENTS)
def test_sql_equals_the_definition(tree, documents):
    expected = [row for row, metadata in enumerate(documents) if matches(tree, metadata)]
    assert by_sql(tree, documents) == expected
    indexed = [path for path in [("a",), ("b",), ("a", "b"), ("价格",), ("x'y",), ("a.b",)] if indexable(path)]
    assert by_sql(tree, documents, indexed) == expected


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_parses_or_is_refused_in_one_line(text):
    try:
        parse(text)
    except UsageError as error:
        assert str(error).startswith("filter, character ")
