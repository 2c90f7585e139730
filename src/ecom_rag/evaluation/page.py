"""Parts of an HTML page: one file with everything in it, no scripts, nothing loaded from elsewhere.

A page begins with a verdict, says how it was made, lists its sections and shows them. It is readable on a telephone, on
paper and on a dark screen. Every function takes plain text and escapes it, but for what is called HTML.
"""

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from importlib.metadata import version
from typing import NamedTuple

from ecom_rag._version import __version__
from ecom_rag.evaluation.confusion import Confusion

_TEXT = 240  # characters of a text


class Section(NamedTuple):
    """A part of the page: its heading of level 2 or 3, where the table of contents leads, and its content as HTML."""

    level: int
    anchor: str
    title: str
    body: str


def document(title: str, said: Sequence[str], made: str, sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
        title: The heading.
        said: Sentences that the page begins with.
        made: HTML of ``made_of``.
        sections: What follows, in order.

    Returns:
        HTML, self-contained.
    """
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
    body = [
        f'<h1>{escape(title)}</h1>\n<div class="verdict">{told}</div>',
        made,
        _contents(sections),
        *(f'<h{one.level} id="{one.anchor}">{escape(one.title)}</h{one.level}>\n{one.body}' for one in sections),
    ]
    style = resources.files("ecom_rag.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def made_of(command: str, data: Mapping[str, str], packages: Sequence[str]) -> str:
    """When, from what, how and with which versions a page was made.

    Args:
        command: The command line or the Python call.
        data: What it was made from, by name.
        packages: Those that the figures depend on.

    Returns:
        HTML; the same on one day, which ``SOURCE_DATE_EPOCH`` can set.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch else now
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    lines = {
        "Date": f"{day:%Y-%m-%d}",
        **data,
        "Versions": f"ecom_rag {__version__}, Python {platform.python_version()}, {versions}",
    }
    return facts(lines, f"<dt>Made by</dt><dd><code>{escape(command)}</code></dd>")


def facts(lines: Mapping[str, str], more: str = "") -> str:
    """Names and what they are, below each other.

    Args:
        lines: Texts by name.
        more: HTML of further ones.

    Returns:
        HTML.
    """
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in lines.items())
    return f'<dl class="made">{shown}{more}</dl>'


def table(
    head: Sequence[str], body: Sequence[Sequence[str]], *, texts: int = 1, sure: Sequence[bool] | None = None
) -> str:
    """A table that scrolls in its own box.

    Args:
        head: Names of the columns.
        body: The cells of each line.
        texts: Columns that are text, the first ones; the others are numbers.
        sure: Lines that are set in bold.

    Returns:
        HTML.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        named = (f'<{tag} class="text"><span>{escape(cell)}</span></{tag}>' for cell in cells[:texts])
        return "".join([*named, *(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells[texts:])])

    bold = sure or [False] * len(body)
    kinds = (' class="sure"' if one else "" for one in bold)
    lines = "".join(f"<tr{kind}>{line(cells, 'td')}</tr>" for kind, cells in zip(kinds, body, strict=True))
    return f'<div class="scroll"><table><thead><tr>{line(head, "th")}</tr></thead><tbody>{lines}</tbody></table></div>'


def confusion_table(found: Confusion, told: str, *, neutral: str | None = None) -> str:
    """A confusion matrix: a cell is as dark as its share of the row, and what is right is framed.

    Args:
        found: The counts; rows are own classes.
        told: What rows, columns and numbers are.
        neutral: Name of a column that is neither right nor wrong.

    Returns:
        HTML.
    """
    head = "".join(f'<th class="class">{escape(name)}</th>' for name in found.predicted)
    lines = []
    for name, counts, right in zip(found.gold, found.counts.tolist(), found.right.tolist(), strict=True):
        names = [one in (name, neutral) for one in found.predicted]
        cells = "".join(_cell(*one, sum(counts)) for one in zip(counts, right, names, strict=True))
        lines.append(
            f'<tr><th class="text"><span>{escape(name)}</span></th><td class="all">{sum(counts)}</td>{cells}</tr>'
        )
    return (
        f'<div class="scroll"><table class="confusion"><thead><tr><th class="text">own class</th><th>all</th>{head}'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f"{note(f'{told}; the darker, the larger the share of the row. Framed: right.')}"
    )


def note(text: str) -> str:
    """A remark below a table or a plot, as HTML."""
    return f'<p class="note">{escape(text, quote=False)}</p>'


def cut(text: str) -> str:
    """A text on one line, and short enough to be read beside others."""
    text = " ".join(text.split())
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def _contents(sections: Sequence[Section]) -> str:
    lines = ""
    for one in sections:
        link = f'<a href="#{one.anchor}">{escape(one.title)}</a>'
        lines += f"</li><li>{link}" if one.level == 2 else f" · {link}"
    return f"<nav><ul>{lines.removeprefix('</li>')}</li></ul></nav>"


def _cell(count: int, right: bool, same: bool, total: int) -> str:
    """A cell; among the rare classes that share a row and a column, right and wrong votes stand in one cell."""
    if not count:
        return "<td>·</td>"
    kind = "hit" if right else "mixed" if same else "miss"
    return f'<td class="{kind}" style="--share: {0.08 + 0.5 * count / total:.2f}">{count}</td>'
