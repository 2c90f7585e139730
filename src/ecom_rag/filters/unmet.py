"""What a user should know of a filter: that no seed meets it, and which of its keys no seed has.

An empty result reads as "harmless", so a mistyped filter must not give one in silence.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any

from ecom_rag.files.keys import Path, written
from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import And, Compare, Contains, Exists, Filter, In, Not, Or, kind

SAMPLE = 1000  # seeds whose keys are looked at for a message
_SHOWN = 12  # keys named in a message
_KINDS = {
    "string": "strings",
    "number": "numbers",
    "bool": "true or false",
    "null": "null",
    "other": "objects or lists",
}


def filter_notes(
    source: Any,
    *,
    matched: int,
    seeds: int,
    kinds_at: Callable[[Path], set[str]],
    sample: Callable[[], Iterable[Mapping[str, Any]]],
) -> list[str]:
    """One line for each thing that is wrong with a filter; none where it is met and its keys are known.

    Args:
        source: The filter as it was given.
        matched: Seeds that meet it.
        seeds: All seeds.
        kinds_at: The kinds of value (see ``filters.kind``) that seeds have at a path; empty where none has it.
        sample: Metadata of some seeds, for the names of known keys.
    """
    if source is None or seeds == 0:
        return []
    compared = compared_with(parse(source))
    notes = []
    for path, values in compared.items():
        # Without values: exists(key) asks whether there is one, so that none has it may be the point.
        found = kinds_at(path) if values or not matched else {"any"}
        if not found:
            notes.append(_unknown(path, keys_of(sample())))
        elif not matched and values and not found & values:
            notes.append(
                f"filter: the seeds hold {_kinds(found)} under the key {spelled(path)!r}, but the filter"
                f" compares it with {_kinds(values)}"
            )
    if not matched:
        shown = source if isinstance(source, str) else repr(source)
        notes.insert(0, f"0 of {seeds} seeds meet the filter {shown:.200}: nothing can be found")
    return notes


def compared_with(tree: Filter) -> dict[Path, set[str]]:
    """The paths that a filter names, with the kinds of value that it compares them with."""
    found: dict[Path, set[str]] = {}
    todo = [tree]
    while todo:
        match todo.pop(0):
            case And(terms) | Or(terms):
                todo += terms
            case Not(term):
                todo.append(term)
            case Exists(path):
                found.setdefault(path, set())
            case Contains(path, _):
                found.setdefault(path, set()).add("other")
            case In(path, values):
                found.setdefault(path, set()).update(map(kind, values))
            case Compare(path, _, value):
                found.setdefault(path, set()).add(kind(value))
    return found


def keys_of(metadata: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys of the first records, as they are written in a filter, those of nested objects too."""
    found: dict[str, None] = {}
    for one in islice(metadata, SAMPLE):
        todo: list[tuple[Path, Any]] = [((str(key),), value) for key, value in one.items()]
        while todo:
            path, value = todo.pop(0)
            found.setdefault(spelled(path))
            if isinstance(value, Mapping):
                todo += [((*path, str(key)), inner) for key, inner in value.items()]
    return list(found)


def spelled(path: Path) -> str:
    """A path as it is written in a filter."""
    return ".".join(map(written, path))


def _unknown(path: Path, known: list[str]) -> str:
    name = spelled(path)
    shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"filter: no seed has the key {name!r}; known keys: {shown or 'none'}{hint}"


def _kinds(kinds: Iterable[str]) -> str:
    return " and ".join(_KINDS[one] for one in sorted(kinds))
