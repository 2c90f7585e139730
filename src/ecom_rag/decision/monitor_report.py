"""What a watch found, as a table for a terminal, as a picture and as a page that contains both."""

import math
from collections.abc import Callable
from html import escape

import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import PathLike, path_of
from ecom_rag.decision.monitor import Monitored, Watched
from ecom_rag.errors import UsageError
from ecom_rag.evaluation.charts import ticks
from ecom_rag.evaluation.tables import table
from ecom_rag.files import publish
from ecom_rag.text.printing import printable

_COLOURS = ("#0072b2", "#d55e00", "#008a65", "#b2568a", "#b57f00", "#3d95cf", "#444444", "#888888")
_WIDTH, _LEFT, _RIGHT, _TOP, _PLOT, _ROW = 720, 64, 20, 34, 300, 22
_POINTS = 800  # of a line
_LOWEST, _HIGHEST = -3.0, 8.0  # powers of ten that are drawn; what lies outside is drawn at the edge
_LETTERS = 24  # of a class's name
_HEAD = ("class", "promised error", "audited", "errors", "error rate", "e-value", "highest", "alarm")


def as_text(found: Monitored) -> str:
    """A table with a row per class, and what the alarm means."""
    return f"{table(list(_HEAD), _rows(found))}\n\n{_meaning(found)}\n"


def write_plot(found: Monitored, path: PathLike) -> None:
    """Write the picture as ``.svg``, or a page with picture and table as ``.html``.

    Raises:
        UsageError: Another ending, or the file cannot be written.
    """
    name = check_plot(path)
    content = as_svg(found) if name.lower().endswith(".svg") else as_html(found)
    with publish.writing(name) as sink:
        sink.write(content.encode("utf-8", "replace"))


def check_plot(path: PathLike) -> str:
    """The path of a picture.

    Raises:
        UsageError: It does not end in ``.svg`` or ``.html``.
    """
    name = path_of(path, "plot")
    if not name.lower().endswith((".svg", ".html")):
        raise UsageError(f"{name}: ends in no known format of a picture; expected .svg or .html")
    return name


def as_html(found: Monitored) -> str:
    """A page with the table and the picture; nothing is loaded from elsewhere."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in _HEAD)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(found))
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    style = (
        "body{font:15px/1.5 system-ui,'Noto Sans CJK SC',sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}td,th{padding:.3rem .7rem;border-bottom:1px solid #d1d9e0;text-align:right}"
        "td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Monitor</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>\n<body>'
        f"<h1>{escape(_verdict(found))}</h1>\n<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n"
        f"<p>{escape(_meaning(found))}</p>\n{as_svg(found)}\n<ul>{notes}</ul></body></html>\n"
    )


def as_svg(found: Monitored) -> str:
    """The wealth of each class over its audited decisions, on a logarithmic scale, and the line of the alarm."""
    classes = [one for one in found.classes if len(one.wrong)]
    line = math.log10(1 / found.classes[0].alpha)
    paths = [_path(one) for one in classes]
    low = max(_LOWEST, math.floor(min([-1.0, *(float(logs.min()) for _, logs in paths)])))
    high = min(_HIGHEST, math.ceil(max([line + 0.3, *(float(logs.max()) for _, logs in paths)])))
    high = max(high, math.ceil(line + 0.3))
    last = max([1, *(len(one.wrong) for one in classes)])

    def x(count: float) -> float:
        return _LEFT + count / last * (_WIDTH - _LEFT - _RIGHT)

    def y(power: float) -> float:
        return _TOP + (high - min(max(power, low), high)) / (high - low) * _PLOT

    parts = [_axes(low, high, last, x, y)]
    parts.append(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(line):.1f}" y2="{y(line):.1f}" stroke="#a30000"'
        f' stroke-width="1.5" stroke-dasharray="6 4"/><text x="{_WIDTH - _RIGHT - 4}" y="{y(line) - 6:.1f}"'
        f' text-anchor="end" style="fill:#a30000">alarm at {1 / found.classes[0].alpha:.4g}</text>'
    )
    for place, (one, (counts, logs)) in enumerate(zip(classes, paths, strict=True)):
        points = " ".join(f"{x(n):.1f},{y(v):.1f}" for n, v in zip(counts.tolist(), logs.tolist(), strict=True))
        parts.append(f'<polyline points="{points}" fill="none" {_stroke(place)} stroke-width="2"/>')
        if one.alarm is not None:
            reached = y(float(one.log_wealth[one.alarm - 1]) / math.log(10))
            parts.append(f'<circle cx="{x(one.alarm):.1f}" cy="{reached:.1f}" r="5" fill="{_colour(place)}"/>')
        parts.append(_legend(place, one))
    return _framed("".join(parts), _TOP + _PLOT + 56 + _ROW * len(classes), _verdict(found))


def _rows(found: Monitored) -> list[list[str]]:
    return [
        [
            one.label,
            f"{100 * one.limit:.3g} %",
            str(len(one.wrong)),
            str(one.errors),
            "-" if one.error_rate is None else f"{100 * one.error_rate:.1f} %",
            _value(one.wealth),
            _value(one.highest),
            "no" if one.alarm is None else f"after {one.alarm}",
        ]
        for one in found.classes
    ]


def _verdict(found: Monitored) -> str:
    names = ", ".join(one.label for one in found.alarms)
    return f"Alarm: more errors than promised in {names}" if names else "No alarm"


def _meaning(found: Monitored) -> str:
    count, line = len(found.classes), f"{1 / found.classes[0].alpha:.4g}"
    begun = f"The alarm goes off where the e-value reaches {line}: with a promise that holds"
    if found.jointly or count == 1:
        whose = f" for any of the {count} classes" if count > 1 else ""
        return f"{begun}, this happens with a probability of at most {found.alpha:.3g}{whose}, however often one looks."
    return (
        f"{begun}, this happens with a probability of at most {found.alpha:.3g} per class, and of at most"
        f" {min(1.0, count * found.alpha):.3g} for any of the {count} classes, however often one looks."
    )


def _value(value: float) -> str:
    if 0.01 <= value < 100:
        return f"{value:.2f}"
    return f"{value:.0f}" if 100 <= value < 1e6 else f"{value:.2g}"


def _path(one: Watched) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts of decisions and the wealth's powers of ten, from 0 decisions on; some points of a long line."""
    logs = np.concatenate([[0.0], one.log_wealth / math.log(10)])
    kept = np.unique(np.linspace(0, len(logs) - 1, min(len(logs), _POINTS)).round().astype(np.int64))
    if one.alarm is not None:
        kept = np.union1d(kept, [one.alarm])
    return kept, logs[kept]


def _axes(low: float, high: float, last: int, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    parts = []
    for power in range(math.ceil(low), math.floor(high) + 1):
        said = f"{10.0**power:g}" if -4 < power < 6 else f"1e{power}"
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(power):.1f}" y2="{y(power):.1f}" class="grid"/>'
        )
        parts.append(f'<text x="{_LEFT - 8}" y="{y(power) + 4:.1f}" text-anchor="end">{said}</text>')
    bottom = _TOP + _PLOT
    for value, said in ticks(0, last, whole=True):
        parts.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{bottom}" y2="{bottom + 5}" class="grid"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 20}" text-anchor="middle">{said}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 14}">e-value (wealth), logarithmic</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{bottom + 40}" text-anchor="middle">audited decisions of the class</text>')
    return "".join(parts)


def _legend(place: int, one: Watched) -> str:
    y = _TOP + _PLOT + 60 + _ROW * place
    name = one.label if len(one.label) <= _LETTERS else one.label[: _LETTERS - 1] + "…"
    alarm = "" if one.alarm is None else f", alarm after {one.alarm}"
    told = f"{name}: {one.errors} of {len(one.wrong)} wrong, at most {100 * one.limit:.3g} % promised{alarm}"
    return (
        f'<line x1="{_LEFT}" x2="{_LEFT + 24}" y1="{y}" y2="{y}" {_stroke(place)} stroke-width="3"/>'
        f'<text x="{_LEFT + 32}" y="{y + 4}">{escape(printable(told))}</text>'
    )


def _framed(body: str, height: int, title: str) -> str:
    said = escape(printable(title), quote=True)
    style = "text{font:13px system-ui,'Noto Sans CJK SC',sans-serif;fill:#1f2328}.grid{stroke:#d1d9e0}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        f' role="img" aria-label="{said}"><title>{said}</title><style>{style}</style>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>{body}</svg>\n'
    )


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _stroke(place: int) -> str:
    dashes = ' stroke-dasharray="7 3"' if place >= len(_COLOURS) else ""
    return f'stroke="{_colour(place)}"{dashes}'
