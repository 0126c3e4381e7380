"""Curves as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from histocc.report.markup import Markup, escaped

# Units of the drawing, about pixels of a narrow screen.
_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 28
# A curve has at most so many points; more are not told apart.
_MOST_POINTS = 240
# Colour and dashes of the curves of a chart: to be told apart without colours too.
STYLES = (("#1b5fa8", ""), ("#b3430f", "6 3"), ("#1e7145", "2 3"), ("#6b3fa0", "9 3 2 3"))


class Curve(NamedTuple):
    """A curve: its name, and (step, value) of each point in order of steps."""

    name: str
    points: Sequence[tuple[float, float]]


def chart(title: str, unit: str, curves: Sequence[Curve], *, from_zero: bool = False) -> Markup:
    """A chart with its legend; curves without a point are left out, and a chart without a curve is empty.

    With `from_zero` the axis of the values has its zero.
    """
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return Markup("")
    steps = [step for curve in curves for step, _ in curve.points]
    values = [value for curve in curves for _, value in curve.points] + ([0.0] if from_zero else [])
    x_ticks, y_ticks = _ticks(min(steps), max(steps), 4, whole=True), _ticks(min(values), max(values), 4)
    x_low, x_high = min(steps), max(max(steps), min(steps) + 1)
    y_low, y_high = min(y_ticks[0], min(values)), max(y_ticks[-1], max(values))

    def place(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + (step - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        y = _TOP + (y_high - value) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    parts = []
    for value in y_ticks:
        y = place(x_low, value)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_label(value, y_ticks)}</text>')
    for step in x_ticks:
        if x_low <= step <= x_high:
            x = place(step, y_low)[0]
            anchor = "end" if x > _WIDTH - 40 else "middle"
            parts.append(f'<text x="{x}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{_label(step, x_ticks)}</text>')
    legend = []
    for (name, points), (colour, dashes) in zip(curves, STYLES):
        places = [place(*point) for point in _thinned(points)]
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        line = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline class="curve" stroke="{colour}"{dashed} points="{line}"/>')
        x, y = places[-1]
        parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        line = f'<line x1="0" x2="28" y1="5" y2="5" stroke="{colour}"{dashed}/>'
        key = f'<svg class="key" viewBox="0 0 28 10" aria-hidden="true">{line}</svg>'
        legend.append(f"<li>{key} {escaped(name)}: {_short(points[-1][1])}</li>")
    described = escaped(f"{title}, {unit}, by step, from {x_low:,.0f} to {max(steps):,.0f}")
    return Markup(
        f"<figure>\n<figcaption>{escaped(title)} <span>({escaped(unit)}, by step)</span></figcaption>\n"
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{described}">\n'
        + "\n".join(parts)
        + f'\n</svg>\n<ul class="legend">{"".join(legend)}</ul>\n</figure>'
    )


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= _MOST_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


def _ticks(low: float, high: float, number: int, *, whole: bool = False) -> list[float]:
    """Round values, about `number` of them, from at most `low` to at least `high`."""
    span = high - low
    if span <= 0:
        span = abs(high) or 1.0
    raw = span / number
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step), math.ceil(high / step)
    if last == first:
        last += 1
    return [i * step for i in range(first, last + 1)]


def _label(value: float, ticks: Sequence[float]) -> str:
    if value and max(map(abs, ticks)) < 0.001:
        return f"{value:.1e}"
    step = ticks[1] - ticks[0]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
