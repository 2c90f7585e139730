"""Random metadata and random filters, of keys and values on which stores differ."""

import json
import sqlite3

from ecom_rag.filters.sql import conditions, index_columns
from ecom_rag.filters.tree import And, Compare, Contains, Exists, In, Not, Or

KEYS = ["a", "b", "a.b", 'q"q', "价格", "x'y", "", "back\\slash", "0", "$", "%s"]
NUMBERS = [0, 1, -1, 2, 3, 0.5, -1.25, 2.0, 0.1, 1e-300, 5e-324, 1e16, 1e300, 2**53, 2**53 + 1, float(2**53), 2**60]
NUMBERS += [float(2**60), 2**63 - 1, 2**63, -(2**63) - 1, 2**64 + 1, float(2**64), 10**30, -0.0]
TEXTS = ["", "a", "b", "B", "é", "é", "中文", "true", "1", "3", "null", "[1]", "\U0001f600", "￿", "a\0b", "a "]
SCALARS = [None, True, False, *NUMBERS, *TEXTS]


def value(chance, depth=0):
    kind = chance.random()
    if depth < 3 and kind < 0.12:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if depth < 3 and kind < 0.3:
        return {chance.choice(KEYS): value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return chance.choice(SCALARS)


def leaf(chance):
    path = tuple(chance.choice(KEYS) for _ in range(chance.choice([1, 1, 1, 2, 3])))
    kind = chance.randrange(5)
    if kind == 0:
        return Exists(path)
    if kind == 1:
        return In(path, tuple(chance.choice(SCALARS) for _ in range(chance.randrange(4))))
    if kind == 2:
        return Contains(path, chance.choice(SCALARS))
    if kind == 3:
        return Compare(path, "=", chance.choice(SCALARS))
    return Compare(path, chance.choice(["<", "<=", ">", ">="]), chance.choice(NUMBERS + TEXTS))


def tree(chance, depth=0):
    kind = chance.random()
    if depth == 4 or kind < 0.4:
        return leaf(chance)
    if kind < 0.6:
        return Not(tree(chance, depth + 1))
    terms = tuple(tree(chance, depth + 1) for _ in range(chance.randrange(4)))
    return And(terms) if kind < 0.8 else Or(terms)


def by_sql(tree, documents, indexed=()):
    """Places of the documents that SQLite finds."""
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE documents (row INTEGER PRIMARY KEY, metadata TEXT)")
    for number, path in enumerate(indexed):
        base.execute(f"CREATE INDEX i{number} ON documents ({', '.join(index_columns(path))})")
    rows = [(n, json.dumps(metadata, ensure_ascii=False)) for n, metadata in enumerate(documents)]
    base.executemany("INSERT INTO documents VALUES (?, ?)", rows)
    where, parameters = conditions(tree, indexed=indexed)
    found = base.execute(f"SELECT row FROM documents WHERE {where} ORDER BY row", parameters).fetchall()
    base.close()
    return [row for (row,) in found]
