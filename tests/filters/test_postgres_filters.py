"""Filters in PostgreSQL mean what ``matches`` says, and find what SQLite finds."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_filters import DOCUMENTS, LISTING, TREES, by_sql

from ecom_rag.filters.parse import parse
from ecom_rag.filters.postgres import comparable, conditions, indexed_value
from ecom_rag.filters.tree import Compare, Not, matches
from helpers.random_filters import KEYS, tree, value

pytestmark = pytest.mark.slow

ASKED = (
    "SELECT place FROM unnest(%s::text[]) WITH ORDINALITY AS given (document, place),"
    " LATERAL (SELECT document::jsonb AS filter) AS seen WHERE {} ORDER BY place"
)


@pytest.fixture(scope="module")
def db(postgres_server):
    import psycopg

    with psycopg.connect(postgres_server.url("none").partition("?")[0], autocommit=True) as found:
        yield found


def by_postgres(db, tree, documents):
    where, parameters = conditions(tree, column="filter")
    found = db.execute(ASKED.format(where), [list(map(comparable, documents)), *parameters]).fetchall()
    return [place - 1 for (place,) in found]


def test_five_thousand_random_filters_find_what_sqlite_finds(db):
    chance, found = random.Random(0), 0
    for _ in range(100):
        documents = [{chance.choice(KEYS): value(chance) for _ in range(chance.randrange(6))} for _ in range(40)]
        for one in (tree(chance) for _ in range(50)):
            expected = [row for row, metadata in enumerate(documents) if matches(one, metadata)]
            assert by_postgres(db, one, documents) == by_sql(one, documents) == expected
            found += 0 < len(expected) < 40
    assert found > 800  # that tell documents apart


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, documents=DOCUMENTS)
def test_sql_equals_the_definition(db, tree, documents):
    assert by_postgres(db, tree, documents) == [n for n, metadata in enumerate(documents) if matches(tree, metadata)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**400), 10**400), min_size=2)
)
def test_numbers_order_as_they_do_in_the_definition(db, numbers):
    documents = [{"n": number} for number in numbers[1:]]
    for operator in ("<", "<=", "=", ">=", ">"):
        one = Compare(("n",), operator, numbers[0])
        assert by_postgres(db, one, documents) == [n for n, own in enumerate(documents) if matches(one, own)]


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ('label = "fraud" and (price < 100 or brand in ("x", "y")) and not seller.vip = true', LISTING),
        ('"a.b"."c\\"d" = 1', LISTING),
        ('"a\\u0000b" = 1', {"a\0b": 1}),  # a key that jsonb cannot hold
        ('"a" = 1 or not "a\\u0000b" = 2', {"a\x01b": 2, "a": 2}),
        ('b = "x\\u0000y"', {"b": "x"}),  # texts up to their first NUL
        ("a < 0.1", {"a": 0.09999999999999999}),
    ],
)
def test_worked_examples(db, text, document):
    assert matches(parse(text), document)
    assert by_postgres(db, parse(text), [document]) == [0]
    assert by_postgres(db, Not(parse(text)), [document]) == []


def test_values_and_keys_are_bound_and_never_pasted():
    where, parameters = conditions(parse({'"a\'; DROP"': "x'; DROP TABLE documents; --"}), column="filter")
    assert "DROP" not in where and json.dumps(parameters).count("DROP") == 2


def test_an_index_takes_any_key(db):
    with db.transaction(force_rollback=True):
        db.execute("CREATE TEMPORARY TABLE documents (filter jsonb)")
        for number, key in enumerate(KEYS):
            db.execute(f"CREATE INDEX i{number} ON documents USING hash ({indexed_value((key, 'x'), 'filter')})")
