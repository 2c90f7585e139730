"""Filters in Milvus mean what ``matches`` says, and find what SQLite finds, or are refused."""

import contextlib
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_filters import LISTING

from ecom_rag.errors import UsageError
from ecom_rag.filters.milvus import conditions, facts
from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import Compare, Not, matches
from ecom_rag.seeds.address import Address
from helpers.random_filters import KEYS, by_sql, tree, value

FIELDS = [("row", "INT64", {}), ("filter", "JSON", {}), ("none", "FLOAT_VECTOR", {"dim": 2})]


@pytest.fixture(scope="module", params=["milvus_lite", pytest.param("milvus_standalone", marks=pytest.mark.slow)])
def asked(request):
    """A function that asks a server which of some metadata meet filters."""
    from ecom_rag.seeds.milvus.client import Client

    server = request.getfixturevalue(request.param)
    with contextlib.closing(Client(Address.of(server.url("filters")))) as client:
        client.create("filters", FIELDS, {"none": "FLAT"})
        first = 0

        def ask(documents, *trees):
            nonlocal first
            own = range(first, first + len(documents))
            rows = zip(own, documents, strict=True)
            client.insert("filters", [{"row": row, "filter": facts(one), "none": [0, 0]} for row, one in rows])
            found = []
            for one in trees:
                where = f"row >= {own.start} and row < {own.stop} and {conditions(one, field='filter')}"
                found.append(sorted(hit["row"] - first for hit in client.query("filters", where, ["row"])))
            first = own.stop
            return found

        ask.rounds = 5 if request.param == "milvus_lite" else 3
        yield ask
        client.drop("filters")


def test_random_filters_find_what_sqlite_finds(asked):
    chance, told = random.Random(1), 0
    for _ in range(asked.rounds):
        documents = [{chance.choice(KEYS): value(chance) for _ in range(chance.randrange(6))} for _ in range(40)]
        trees = [tree(chance) for _ in range(50)]
        for one, found in zip(trees, asked(documents, *trees), strict=True):
            expected = [row for row, metadata in enumerate(documents) if matches(one, metadata)]
            assert found == by_sql(one, documents) == expected, one
            told += 0 < len(expected) < 40
    assert told > 8 * asked.rounds  # that tell documents apart


def test_worked_examples(asked):
    examples = [
        ('label = "fraud" and (price < 100 or brand in ("x", "y")) and not seller.vip = true', LISTING),
        ('"a.b"."c\\"d" = 1', LISTING),
        ('"a\\u0000b" = 1', {"a\0b": 1}),
        ('b = "x\\u0000y"', {"b": "x"}),  # texts up to their first NUL
        ("a < 0.1", {"a": 0.09999999999999999}),
        ("a > 9007199254740992", {"a": 9007199254740993}),  # beyond what a double tells apart
        ('a > "长"', {"a": "长" * 500}),
        ('not a = "2026-11-29" and a < "2026-12"', {"a": "2026-11-30"}),
    ]
    for text, document in examples:
        assert matches(parse(text), document), text
        assert asked([document, {}], parse(text), Not(parse(text))) == [[0], [1]], text


def test_a_text_too_long_to_be_ordered_by_is_refused():
    with pytest.raises(UsageError, match=r"ordered against a text of 101 bytes; .* keeps the order of the first 100"):
        conditions(parse({"a": {"<": "x" * 101}}), field="filter")
    assert conditions(parse({"a": {"<": "x" * 100}, "b": "x" * 101}), field="filter")


def test_values_and_keys_are_never_pasted():
    where = conditions(parse({'"a\'; DROP"': 'x"] or row >= 0 --', "b": {">": '"'}}), field="filter")
    assert "DROP" not in where and "--" not in where and '""' not in where


def ordered(one, other):
    """How what the server keeps of two values orders them, where they are of one kind."""
    kept = [next(iter(facts({"n": own})["order"].values())) for own in (one, other)]
    return (kept[0] > kept[1]) - (kept[0] < kept[1])


def defined(one, other):
    leaves = (Compare(("n",), operator, other) for operator in ("<", ">"))
    below, above = (matches(leaf, {"n": one}) for leaf in leaves)
    return above - below


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**400), 10**400) | st.integers(-9, 9)
TEXTS = st.text(max_size=30) | st.sampled_from(["", "a", "a\0b", "长" * 30, "长" * 33, "\U0001f600", "\uffff", "é"])


@settings(max_examples=500, deadline=None)
@given(st.tuples(NUMBERS, NUMBERS) | st.tuples(TEXTS, TEXTS))
def test_what_is_kept_of_values_orders_as_they_do(pair):
    one, other = pair
    assert ordered(one, other) == defined(one, other)
    equal = facts({"n": one})["tokens"] == facts({"n": other})["tokens"]
    assert equal == matches(Compare(("n",), "=", other), {"n": one})


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=80, max_size=200), st.text(max_size=33))
def test_a_long_text_orders_against_a_short_one(long, short):
    order = ordered(long, short)
    assert order == defined(long, short) or len(short.encode()) > 100


def test_what_filters_see_is_ascii_of_few_letters():
    seen = json.dumps(facts({"价格": ['"', "\\", {"a": 1}], "b": {"c": "x'y", "d": None}}))
    assert set(seen) <= set('0123456789abcdefg {}[]":,tokensorder')
