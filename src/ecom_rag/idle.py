"""Options that would change nothing are refused: a table says when each has an effect, one loop holds it against them.

The tables lie where the options do: ``cli.idle`` for commands and their TOML files, ``training.idle`` for recipes.
What counts is that an option is *given*, not its value: a default that is given where it is idle is a mistake too.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ecom_rag.errors import UsageError


class Needs(NamedTuple):
    """What an option needs to have an effect.

    Args:
        when: Whether it is so, of all values.
        without: How it is where it is not so, to be put behind "has no effect"; may hold values, e.g. ``{mode}``.
        remedy: What to choose instead, to be put behind "or".
    """

    when: Callable[[Mapping[str, Any]], bool]
    without: str
    remedy: str


Table = Mapping[str, tuple[Needs, ...]]
ALWAYS: tuple[Needs, ...] = ()


def missing(name: str, values: Mapping[str, Any], table: Table) -> Needs | None:
    """The first need of an option that is not met; ``None`` where it has an effect."""
    return next((needs for needs in table[name] if not needs.when(values)), None)


def refuse_idle(
    given: Iterable[str], values: Mapping[str, Any], table: Table, *, spelled: Callable[[str], str] = "`{}`".format
) -> None:
    """Refuse the first given option that would change nothing.

    Args:
        given: Names of the options that were given.
        values: Of all options, given or not, and whatever else the table's conditions look at.
        table: For every option what it needs; of several the first that is missing is told.
        spelled: How the user writes an option.

    Raises:
        UsageError: An option without effect.
    """
    for name in given:
        needs = missing(name, values, table)
        if needs is not None:
            without = needs.without.format_map(values)
            raise UsageError(f"{spelled(name)} has no effect {without}; leave it out, or {needs.remedy}")
