"""Plots as SVG, drawn by hand: no plotting library to install, and text in them stays text."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from ecom_rag.evaluation.labels import Curve
from ecom_rag.evaluation.significance import Interval

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 260, 46, 34, 12
_MOST_BARS = 600


def differences(values: NDArray[np.float64], measure: str) -> str:
    """Differences of the queries that changed, sorted: how many gain, how many lose, and by how much."""
    changed = values[np.abs(values) > 1e-12]
    ranked = np.sort(changed)[::-1]
    if len(ranked) > _MOST_BARS:  # every bar stands for several queries
        ranked = np.array([part.mean() for part in np.array_split(ranked, _MOST_BARS)])
    limit = max(float(np.abs(ranked).max(initial=0.0)), 1e-6)
    step = (_WIDTH - _LEFT - 8) / max(len(ranked), 1)
    bars = []
    for place, value in enumerate(ranked.tolist()):
        top, bottom = sorted((_y(value, -limit, limit), _y(0, -limit, limit)))
        bars.append(
            f'<rect x="{_LEFT + place * step:.2f}" y="{top:.2f}" width="{max(step * 0.9, 0.4):.2f}"'
            f' height="{bottom - top:.2f}" fill="{COLOURS[2] if value > 0 else COLOURS[1]}"/>'
        )
    ticks = [-limit, -limit / 2, 0, limit / 2, limit]
    caption = f"difference in {measure} of the {len(changed)} of {len(values)} queries that change"
    return _svg(_y_axis(ticks, -limit, limit) + "".join(bars), caption, f"{caption}, sorted")


def intervals(figures: Mapping[str, Interval], measure: str) -> str:
    """One measure of several runs with its interval, one line a run."""
    height = 26 * len(figures) + 34
    low = min(_end(one.low, one.mean) for one in figures.values())
    high = max(_end(one.high, one.mean) for one in figures.values())
    pad = max(high - low, 1e-3) * 0.08
    low, high = low - pad, high + pad
    left = 180

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (_WIDTH - left - 60)

    parts = []
    for row, (name, one) in enumerate(figures.items()):
        y, colour = 16 + row * 26, COLOURS[row % len(COLOURS)]
        ends = (_end(one.low, one.mean), _end(one.high, one.mean))
        parts.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(name[:26])}</text>'
            f'<line x1="{x(ends[0]):.1f}" x2="{x(ends[1]):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{x(one.mean):.1f}" cy="{y}" r="5" fill="{colour}"/>'
            f'<text x="{x(ends[1]) + 8:.1f}" y="{y + 4}">{one.mean:.4f}</text>'
        )
    for value in np.linspace(low, high, 5).tolist():
        parts.insert(0, f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="4" y2="{height - 22}"/>')
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{height - 8}" text-anchor="middle">{value:.3f}</text>')
    return _svg("".join(parts), f"{measure} with 95 % intervals", f"{measure} of each run", height=height)


def pr_curves(curves: Mapping[str, Curve]) -> str:
    """Precision over recall, one line a class."""
    side = 300
    parts = []
    for place, (label, curve) in enumerate(curves.items()):
        recall = np.concatenate([[0.0], curve.recall])
        precision = np.concatenate([curve.precision[:1], curve.precision])
        points = " ".join(
            f"{_LEFT + r * (side - 20):.1f},{_y(p, 0, 1, side):.1f}"
            for r, p in zip(recall.tolist(), precision.tolist(), strict=True)
        )
        colour, dash = COLOURS[place % len(COLOURS)], ' stroke-dasharray="5 3"' if place >= len(COLOURS) else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        y = 22 + place * 20
        parts.append(
            f'<line x1="{side + 60}" x2="{side + 84}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"{dash}/>'
            f'<text x="{side + 90}" y="{y + 4}">{escape(label[:28])} (AP {curve.average_precision:.3f})</text>'
        )
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LEFT + value * (side - 20)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{side - 16}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{_LEFT + (side - 20) / 2:.0f}" y="{side - 1}" text-anchor="middle">recall</text>')
    axis = _y_axis([0, 0.25, 0.5, 0.75, 1], 0, 1, side)
    return _svg(axis + "".join(parts), "precision over recall", "Precision-recall curves", height=side)


def histogram(figures: Mapping[str, NDArray[np.float64]], measure: str) -> str:
    """How many queries have which figure, ten bins over 0..1, one bar a run."""
    counts = [np.histogram(np.clip(values, 0, 1), bins=10, range=(0, 1))[0] for values in figures.values()]
    most = max(int(count.max()) for count in counts)
    group = (_WIDTH - _LEFT - 8) / 10
    bar = group * 0.85 / len(counts)
    parts = []
    for run, (name, count) in enumerate(zip(figures, counts, strict=True)):
        for place, value in enumerate(count.tolist()):
            y = _y(value, 0, max(most, 1))
            parts.append(
                f'<rect x="{_LEFT + place * group + run * bar:.1f}" y="{y:.1f}" width="{bar:.1f}"'
                f' height="{_HEIGHT - _BOTTOM - y:.1f}" fill="{COLOURS[run % len(COLOURS)]}">'
                f"<title>{escape(name)}: {value}</title></rect>"
            )
    for place in range(11):
        x = _LEFT + place * group
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{place / 10:g}</text>')
    axis = _y_axis([0, round(most / 2), most], 0, max(most, 1), form="{:.0f}")
    return _svg(axis + "".join(parts), f"queries by {measure}; colours as above", f"Number of queries by {measure}")


def _svg(body: str, caption: str, title: str, *, height: int = _HEIGHT) -> str:
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img"'
        f' aria-label="{escape(title, quote=True)}"><title>{escape(title)}</title>{body}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _y_axis(ticks: Sequence[float], low: float, high: float, height: int = _HEIGHT, *, form: str = "{:.2f}") -> str:
    parts = []
    for value in ticks:
        y = _y(value, low, high, height)
        right = _WIDTH - 8 if height == _HEIGHT else _LEFT + height - 20
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{form.format(value)}</text>'
        )
    return "".join(parts)


def _y(value: float, low: float, high: float, height: int = _HEIGHT) -> float:
    return _TOP + (high - value) / (high - low) * (height - _BOTTOM - _TOP)


def _end(end: float, mean: float) -> float:
    return mean if np.isnan(end) else end
