"""Filter expressions: text or dict in, the tree of ``filters`` out.

::

    label = "fraud" and (price < 100 or brand in ("a", "b")) and not seller.vip = true and "medical" in policies

    filter     = all ("or" all)*            all  = one ("and" one)*
    one        = "not" one | "(" filter ")" | "exists" "(" key ")" | key operator value
               | key ["not"] "in" "(" value ("," value)* ")" | value ["not"] "in" key     (an element of an array)
    operator   = "=" | "!=" | "<" | "<=" | ">" | ">="
    key        = as ``ecom_rag.keys`` says
    value      = a quoted string | a number | true | false | null
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ecom_rag.errors import UsageError
from ecom_rag.files.keys import STRING, Path, parse_key, read_key, unquoted
from ecom_rag.filters.tree import And, Compare, Contains, Exists, Filter, In, Not, Or, Scalar, kind
from ecom_rag.values import MAX_BITS, has_surrogate, scalar, shown

OPERATORS = ("=", "!=", "<=", ">=", "<", ">")
_CONSTANTS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_DEPTH = 20  # nested parentheses and nots; SQLite parses no more than about 25
_LEAVES = 500  # comparisons

_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<string>{STRING})
    | (?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w-]))
    | (?P<word>[\w-]+)
    | (?P<operator><=|>=|!=|<>|==|[=<>])
    | (?P<sign>[().,])
    | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)


def parse(source: "str | Mapping[str, Any] | Filter") -> Filter:
    """A filter from its text, its dict form, or itself.

    Args:
        source: Text as above, or a dict whose entries all must hold: ``{"label": "fraud", "price": {"<": 100},
            "brand": {"in": ["a", "b"]}, "policies": {"contains": "medical"}, "note": {"exists": True},
            "$or": [dict, ...], "$not": dict}``. Keys are written as in the text form; NumPy values are Python's.

    Raises:
        UsageError: Not a filter; the message says where, what was found and what was expected.
    """
    if isinstance(source, str):
        return _Parser(source).whole()
    if isinstance(source, Mapping):
        return _limited(_of_dict(source, 0))
    return _limited(source)


class _Parser:
    """Recursive descent over one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._leaves = 0
        self._next = 0  # where the text after the current token begins
        self._advance()

    def whole(self) -> Filter:
        found = self._any(0)
        if self._kind != "end":
            raise self._wrong('"and", "or" or the end')
        return found

    def _advance(self) -> None:
        token = _TOKEN.match(self._text, self._next)
        if token is None:
            self._place = self._next + len(self._text[self._next :]) - len(self._text[self._next :].lstrip())
            found = self._text[self._place :][:20]
            expected = "the closing quote of this string" if found[0] in "\"'" else "a key, an operator or a value"
            raise UsageError(f"filter, character {self._place + 1}: found {found!r}; expected {expected}")
        self._kind = str(token.lastgroup)
        self._value = token[self._kind]
        self._place, self._next = token.start(self._kind), token.end()

    def _wrong(self, expected: str) -> UsageError:
        found = "the end" if self._kind == "end" else repr(self._value[:40])
        return UsageError(f"filter, character {self._place + 1}: found {found}; expected {expected}")

    def _word(self, *words: str) -> bool:
        return self._kind == "word" and self._value.lower() in words

    def _take_sign(self, sign: str, expected: str) -> None:
        if self._kind != "sign" or self._value != sign:
            raise self._wrong(expected)
        self._advance()

    def _any(self, depth: int) -> Filter:
        if depth > _DEPTH:
            raise self._wrong(f"at most {_DEPTH} levels of parentheses and nots")
        terms = [self._all(depth)]
        while self._word("or"):
            self._advance()
            terms.append(self._all(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _all(self, depth: int) -> Filter:
        terms = [self._one(depth)]
        while self._word("and"):
            self._advance()
            terms.append(self._one(depth))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _one(self, depth: int) -> Filter:
        if depth > _DEPTH:
            raise self._wrong(f"at most {_DEPTH} levels of parentheses and nots")
        if self._word("not"):
            self._advance()
            return Not(self._one(depth + 1))
        if self._kind == "sign" and self._value == "(":
            self._advance()
            found = self._any(depth + 1)
            self._take_sign(")", '"and", "or" or ")"')
            return found
        self._leaves += 1
        if self._leaves > _LEAVES:
            raise self._wrong(f"at most {_LEAVES} comparisons; join values of one key with in (...)")
        if self._word("exists"):
            self._advance()
            self._take_sign("(", '"(" and a key')
            path = self.path()
            self._take_sign(")", '"." or ")"')
            return Exists(path)
        element = self._element()
        return self._comparison(self.path()) if element is None else element

    def _element(self) -> Filter | None:
        """``value in key``; ``None``, and nothing taken, where something else stands here."""
        start = self._kind, self._value, self._place, self._next
        if self._kind in ("string", "number") or self._word(*_CONSTANTS):
            value = self._scalar()
            self._advance()
            negative = self._word("not")
            if negative:
                self._advance()
            if self._word("in"):
                self._advance()
                if (self._kind, self._value) != ("sign", "("):
                    found = Contains(self.path(), value)
                    return Not(found) if negative else found
        self._kind, self._value, self._place, self._next = start
        return None

    def path(self) -> Path:
        path, self._next = read_key(self._text, self._place, what="filter")
        self._advance()
        return path

    def _comparison(self, path: Path) -> Filter:
        if self._kind == "operator":
            operator = {"==": "=", "<>": "!="}.get(self._value, self._value)
            self._advance()
            place = self._wrong("true, false and null only with = or !=")
            value = self._scalar()
            if operator not in ("=", "!=") and kind(value) in ("bool", "null"):
                raise place
            self._advance()
            return Not(Compare(path, "=", value)) if operator == "!=" else Compare(path, operator, value)
        negative = self._word("not")
        if negative:
            self._advance()
        if not self._word("in"):
            known = f'{", ".join(OPERATORS)}, "in" or "not in" (an element of an array: "value" in key)'
            raise self._wrong('"in"' if negative else known)
        self._advance()
        self._take_sign("(", '"(" and values (an element of an array: "value" in key)')
        values = [self._scalar()]
        self._advance()
        while self._kind == "sign" and self._value == ",":
            self._advance()
            values.append(self._scalar())
            self._advance()
        self._take_sign(")", '"," or ")"')
        return Not(In(path, tuple(values))) if negative else In(path, tuple(values))

    def _scalar(self) -> Scalar:
        if self._kind == "string":
            return self._string()
        if self._kind == "number":
            return int(self._value) if re.fullmatch(r"-?\d{1,300}", self._value) else float(self._value)
        if self._word(*_CONSTANTS):
            return _CONSTANTS[self._value.lower()]
        raise self._wrong("a value: a quoted string, a number, true, false or null")

    def _string(self) -> str:
        try:
            return unquoted(self._value)
        except ValueError as error:
            raise self._wrong(str(error)) from None


# --- dict -------------------------------------------------------------------------------------------------------------


def _of_dict(source: Any, depth: int) -> Filter:
    if not isinstance(source, Mapping):
        raise UsageError(f"filter: found {type(source).__name__}; expected a dict of keys and conditions")
    if depth > _DEPTH:
        raise UsageError(f"filter: nested deeper than {_DEPTH} levels; flatten it")
    terms: list[Filter] = []
    for key, condition in source.items():
        if key in ("$and", "$or"):
            if not isinstance(condition, list | tuple) or not condition:
                raise UsageError(f"filter: {key} holds {shown(condition)}; expected a list of at least one dict")
            parts = tuple(_of_dict(item, depth + 1) for item in condition)
            terms.append(And(parts) if key == "$and" else Or(parts))
        elif key == "$not":
            terms.append(Not(_of_dict(condition, depth + 1)))
        else:
            terms += _conditions(parse_key(key, what="filter"), key, condition)
    return terms[0] if len(terms) == 1 else And(tuple(terms))


def _conditions(path: Path, key: str, condition: Any) -> list[Filter]:
    if not isinstance(condition, Mapping):
        condition = {"=": condition}
    found: list[Filter] = []
    for operator, given in condition.items():
        value = _own(given)
        if operator in ("in", "not in") and isinstance(value, list | tuple) and all(map(_is_scalar, value)):
            found.append(In(path, tuple(value)) if operator == "in" else Not(In(path, tuple(value))))
        elif operator in ("contains", "not contains") and _is_scalar(value):
            found.append(Contains(path, value) if operator == "contains" else Not(Contains(path, value)))
        elif operator == "exists" and isinstance(value, bool):
            found.append(Exists(path) if value else Not(Exists(path)))
        elif operator == "!=" and _is_scalar(value):
            found.append(Not(Compare(path, "=", value)))
        elif operator in OPERATORS and _is_scalar(value) and (operator == "=" or kind(value) in ("number", "string")):
            found.append(Compare(path, operator, value))
        else:
            known = (
                f'a value, {", ".join(OPERATORS)} with a value, "in" with a list, "contains" with the value of an'
                ' element, "exists" with true or false'
            )
            raise UsageError(f"filter: {key!r} has the condition {operator!r}: {shown(value)}; expected {known}")
    return found


def _own(value: Any) -> Any:
    """NumPy's scalars and arrays as Python's, also inside a list."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return [scalar(item) for item in value] if isinstance(value, list | tuple) else scalar(value)


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return not has_surrogate(value)  # SQLite takes UTF-8
    if isinstance(value, int):
        return value.bit_length() <= MAX_BITS
    return kind(value) != "other" and not (isinstance(value, float) and value != value)


def _check_leaf(leaf: Compare | In | Contains | Exists) -> None:
    """Raise ``UsageError`` where a leaf made in Python holds what the grammar could not say."""
    values = leaf.values if isinstance(leaf, In) else () if isinstance(leaf, Exists) else (leaf.value,)
    operators = [leaf.operator] if isinstance(leaf, Compare) else []
    ordered = all(operator == "=" or kind(value) in ("number", "string") for operator in operators for value in values)
    if not isinstance(leaf.path, tuple) or not leaf.path or not all(isinstance(part, str) for part in leaf.path):
        raise UsageError(f"filter: the path of {shown(leaf)} is not a tuple of keys; expected e.g. ('seller', 'level')")
    if not isinstance(values, tuple) or not all(map(_is_scalar, values)) or not ordered:
        raise UsageError(f"filter: {shown(leaf)} compares with something else than a text, number, true, false or null")
    if not {"=", "<", "<=", ">", ">="}.issuperset(operators):
        raise UsageError(f"filter: {shown(leaf)} has an unknown operator; expected =, <, <=, > or >= (and Not for !=)")


def _limited(tree: Filter) -> Filter:
    """A tree from Python, refused where its SQL would be too deep or too long."""
    level, depth, leaves = [tree], 0, 0
    while level:
        depth += 1
        below: list[Any] = []
        for node in level:
            if isinstance(node, And | Or):
                below += node.terms
            elif isinstance(node, Not):
                below.append(node.term)
            elif isinstance(node, Compare | In | Contains | Exists):
                _check_leaf(node)
                leaves += 1
            else:
                raise UsageError(f"filter: found {type(node).__name__}; expected a string, a dict or a filter tree")
        level = below
    if depth > 2 * _DEPTH + 2 or leaves > _LEAVES:
        raise UsageError(f"filter: {leaves} comparisons on {depth} levels; expected at most {_LEAVES} on {2 * _DEPTH}")
    return tree
