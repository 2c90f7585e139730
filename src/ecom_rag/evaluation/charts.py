"""Plots as SVG, drawn by hand: no plotting library to install, and text in them stays text.

Colours are classes ``c0`` to ``c7`` of ``report.css``, which has them for light and for dark paper.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecom_rag.evaluation.labels import Curve
from ecom_rag.judging.significance import Interval

COLOURS = 8
_WIDTH, _HEIGHT = 440, 230  # narrow, so that a telephone need not shrink the letters much
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40
_ROW = 40  # of a run and its interval
_MOST_BARS = 400
_MOST_TICKS = 8
_LETTERS = 24  # of a name in a plot


class Point(NamedTuple):
    """A figure ``y`` at ``x`` with its interval, and what it says when a mouse rests on it; all of them 0..1."""

    x: float
    y: float
    low: float
    high: float
    told: str


def differences(values: NDArray[np.float64], measure: str) -> str:
    """Differences of the queries that changed, sorted: how many gain, how many lose, and by how much."""
    changed = values[np.abs(values) > 1e-12]
    ranked = np.sort(changed)[::-1]
    if len(ranked) > _MOST_BARS:  # every bar stands for several queries
        ranked = np.array([part.mean() for part in np.array_split(ranked, _MOST_BARS)])
    limit = max(float(np.abs(ranked).max(initial=0.0)), 1e-6)
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(ranked), 1)
    wide = 0.9 if step > 4 else 1.05  # gaps between thin bars would flicker
    bars = []
    for place, value in enumerate(ranked.tolist()):
        top, bottom = sorted((_y(value, -limit, limit), _y(0, -limit, limit)))
        bars.append(_bar(_LEFT + place * step, top, step * wide, bottom - top, colour=2 if value > 0 else 1))
    axes = _y_axis(-limit, limit, "difference") + _x_name("queries, from the largest gain to the largest loss", _HEIGHT)
    caption = f"Difference in {measure} of the {len(changed)} of {len(values)} queries that change"
    return _figure(axes + "".join(bars), caption)


def intervals(figures: Mapping[str, Interval], measure: str) -> str:
    """One measure of several runs with its interval, one line per run."""
    height = _ROW * len(figures) + _BOTTOM
    low = min(_end(one.low, one.mean) for one in figures.values())
    high = max(_end(one.high, one.mean) for one in figures.values())
    pad = max(high - low, 1e-3) * 0.08
    low, high = low - pad, high + pad

    def x(value: float) -> float:
        return _RIGHT + (value - low) / (high - low) * (_WIDTH - 2 * _RIGHT)

    parts = [_x_axis(ticks(low, high), x, 4, height - _BOTTOM, measure)]
    for row, (name, one) in enumerate(figures.items()):
        y = 32 + row * _ROW
        ends = x(_end(one.low, one.mean)), x(_end(one.high, one.mean))
        parts.append(
            f'<text x="{_RIGHT}" y="{y - 13}">{escape(_cut(name))}: {one.mean:.4f}</text>'
            f'<g class="c{row % COLOURS}"><line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}" class="line"/>'
            f'<circle cx="{x(one.mean):.1f}" cy="{y}" r="5" class="fill"/></g>'
        )
    return _figure("".join(parts), f"Each run's {measure} with its 95% interval", height=height)


def pr_curves(curves: Mapping[str, Curve]) -> str:
    """Precision over recall, one line per class."""
    height = 300
    axes = _y_axis(0, 1, "precision", height) + _x_axis(ticks(0, 1), _x, _TOP, height - _BOTTOM, "recall")
    parts = []
    for place, curve in enumerate(curves.values()):
        recall = np.concatenate([[0.0], curve.recall]).tolist()
        precision = np.concatenate([curve.precision[:1], curve.precision]).tolist()
        points = " ".join(f"{_x(r):.1f},{_y(p, 0, 1, height):.1f}" for r, p in zip(recall, precision, strict=True))
        dash = ' stroke-dasharray="5 3"' if place >= COLOURS else ""
        parts.append(f'<polyline points="{points}" class="c{place % COLOURS} line thin"{dash}/>')
    names = [f"{label} (AP {curve.average_precision:.3f})" for label, curve in curves.items()]
    return _figure(axes + "".join(parts), "Precision-recall curves of the classes", names, height=height)


def histogram(figures: Mapping[str, NDArray[np.float64]], measure: str) -> str:
    """How many queries have which figure, ten bins over 0..1, one bar per run."""
    counts = [np.histogram(np.clip(values, 0, 1), bins=10, range=(0, 1))[0] for values in figures.values()]
    most = max(*(int(count.max()) for count in counts), 1)
    width = (_x(0.1) - _x(0)) * 0.85 / len(counts)
    parts = [_y_axis(0, most, "queries", whole=True)]
    for run, (name, count) in enumerate(zip(figures, counts, strict=True)):
        for place, value in enumerate(count.tolist()):
            y, left = _y(value, 0, most), _x(place / 10) + run * width
            parts.append(_bar(left, y, width, _HEIGHT - _BOTTOM - y, colour=run, title=f"{name}: {value}"))
    parts.append(_x_axis(ticks(0, 1), _x, _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM, measure))
    return _figure("".join(parts), f"Number of queries by {measure}", list(figures))


def reliability(points: Sequence[Point], x_name: str, y_name: str, caption: str) -> str:
    """Shares over the probabilities that were given, each with its interval; on the diagonal both are the same.

    Args:
        points: Of one figure each, 0..1.
        x_name: What the probabilities are.
        y_name: What the shares are.
        caption: Below the plot.
    """
    height = 320
    axes = _y_axis(0, 1, y_name, height) + _x_axis(ticks(0, 1), _x, _TOP, height - _BOTTOM, x_name)
    ends = f'x1="{_x(0):.1f}" y1="{_y(0, 0, 1, height):.1f}" x2="{_x(1):.1f}" y2="{_y(1, 0, 1, height):.1f}"'
    parts = [f'<line {ends} class="c7 line thin" stroke-dasharray="5 4"/>']
    for one in points:
        x = _x(one.x)
        low, y, high = (_y(value, 0, 1, height) for value in (one.low, one.y, one.high))
        parts.append(
            f'<g class="c0"><title>{escape(one.told)}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" class="line thin"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="fill"/></g>'
        )
    return _figure(axes + "".join(parts), caption, height=height)


def coverage(
    curve: tuple[Sequence[float], Sequence[float]], point: Point | None, target: float, low: float, caption: str
) -> str:
    """Precision over coverage of one class, the precision asked for, and the point that was chosen with its bound.

    Args:
        curve: Coverages, ascending, at least one, and the precision at each.
        point: The chosen one, from its bound to its precision; ``None`` for none.
        target: The precision asked for.
        low: The lowest precision that is shown.
        caption: Below the plot.
    """
    axes = _y_axis(low, 1, "precision") + _x_axis(ticks(0, 1), _x, _TOP, _HEIGHT - _BOTTOM, "coverage")
    shown = np.unique(np.linspace(0, len(curve[0]) - 1, _MOST_BARS).astype(np.int64)).tolist()
    points = " ".join(f"{_x(curve[0][at]):.1f},{_y(max(curve[1][at], low), low, 1):.1f}" for at in shown)
    asked = _y(target, low, 1)
    ends = f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{asked:.1f}" y2="{asked:.1f}"'
    parts = [
        f'<line {ends} class="c7 line thin" stroke-dasharray="5 4"/>',
        f'<polyline points="{points}" class="c0 line thin"/>',
    ]
    if point is not None:
        x, y, bound = _x(point.x), _y(max(point.y, low), low, 1), _y(max(point.low, low), low, 1)
        parts.append(
            f'<g class="c1"><title>{escape(point.told)}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{bound:.1f}" class="line thin"/>'
            f'<line x1="{x - 7:.1f}" x2="{x + 7:.1f}" y1="{bound:.1f}" y2="{bound:.1f}" class="line"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="fill"/></g>'
        )
    return _figure(axes + "".join(parts), caption)


def side_by_side(figures: Iterable[str]) -> str:
    """Figures in two columns, or one below the other where a screen is narrow."""
    grid = "display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 0 1.5rem"
    return f'<div style="{grid}">{"".join(figures)}</div>'


def ticks(low: float, high: float, *, whole: bool = False) -> list[tuple[float, str]]:
    """Round numbers from ``low`` to ``high`` and how they are written: steps of 1, 2 or 5 times a power of ten.

    Args:
        low: The lower end of an axis.
        high: The upper end, above ``low``.
        whole: Whole numbers only.
    """
    rough = (high - low) / (_MOST_TICKS - 1)
    power = math.floor(math.log10(rough))
    step = next(step for step in (10.0**power * factor for factor in (1, 2, 5, 10)) if step >= rough * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(place * step, f"{place * step:.{digits}f}") for place in range(first, last + 1)]


def _figure(body: str, caption: str, legend: Sequence[str] = (), *, height: int = _HEIGHT) -> str:
    entries = "".join(
        f'<li><span class="swatch c{place % COLOURS}{" dashed" if place >= COLOURS else ""}"></span>{escape(name)}</li>'
        for place, name in enumerate(legend)
    )
    names = f'<ul class="legend">{entries}</ul>' if entries else ""
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img"'
        f' aria-label="{escape(caption, quote=True)}"><title>{escape(caption)}</title>{body}</svg>'
        f"{names}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _y_axis(low: float, high: float, name: str, height: int = _HEIGHT, *, whole: bool = False) -> str:
    parts = []
    for value, said in ticks(low, high, whole=whole):
        y = _y(value, low, high, height)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{said}</text>')
    middle = (_TOP + height - _BOTTOM) / 2
    turned = f'x="12" y="{middle:.0f}" transform="rotate(-90 12 {middle:.0f})"'
    return f'{"".join(parts)}<text class="tick" {turned} text-anchor="middle">{escape(name)}</text>'


def _x_axis(at: Iterable[tuple[float, str]], x: Callable[[float], float], top: float, bottom: float, name: str) -> str:
    parts = []
    for value, said in at:
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{said}</text>')
    return "".join(parts) + _x_name(name, bottom + _BOTTOM)


def _x_name(name: str, height: float) -> str:
    return f'<text class="tick" x="{_WIDTH / 2:.0f}" y="{height - 6}" text-anchor="middle">{escape(name)}</text>'


def _bar(x: float, y: float, width: float, height: float, *, colour: int, title: str = "") -> str:
    told = f"<title>{escape(title)}</title>" if title else ""
    place = f'x="{x:.2f}" y="{y:.2f}" width="{max(width, 0.4):.2f}" height="{height:.2f}"'
    return f'<rect {place} class="c{colour % COLOURS} fill">{told}</rect>'


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, low: float, high: float, height: int = _HEIGHT) -> float:
    return _TOP + (high - value) / (high - low) * (height - _BOTTOM - _TOP)


def _end(end: float, mean: float) -> float:
    return mean if np.isnan(end) else end


def _cut(name: str) -> str:
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"
