"""Charts as inline SVG. Colours are classes of the page's style, so a chart follows light and dark.

A ``Panel`` collects marks in data units and gives a ``<figure>``: title, legend, drawing, and one
sentence that says what to look for. Panels are drawn small and shown side by side where there is
room, so that text stays readable on a phone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape

import numpy as np

from ipd.report.read import Floats, Number
from ipd.report.tables import SUPERSCRIPT

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 24, 34
"""Margins of the plotting area; the y label stands above it, the x label beneath."""


def short(value: Number) -> str:
    """A tick: 0.5, 20, 1,500, 40k, 1M."""
    size = abs(value)
    if size >= 1e6:
        text = f"{value / 1e6:g}M"
    elif size >= 1e4:
        text = f"{value / 1e3:g}k"
    else:
        text = f"{value:,.0f}" if size >= 1e3 else f"{value:.3g}"
    return text.replace("-", "−")


@dataclasses.dataclass(frozen=True)
class Axis:
    """One direction of a panel, from data units to 0..1."""

    low: Number
    high: Number
    label: str
    log: bool = False
    whole: bool = False
    """Only whole numbers have ticks."""

    @classmethod
    def fit(
        cls, values: Iterable[Floats], label: str, log: bool = False, include: Sequence[Number] = ()
    ) -> Axis:
        """An axis that holds all finite values with a little room; `include` are values it must show."""
        pool = np.concatenate([*(np.ravel(part) for part in values), np.array(include, np.float64)])
        pool = pool[np.isfinite(pool) & ((pool > 0) | (not log))]
        if not len(pool):
            return cls(0.1 if log else 0.0, 1.0, label, log)
        low, high = float(pool.min()), float(pool.max())
        if log:
            room = max((high / low) ** 0.05, 1.05)
            return cls(low / room, high * room, label, log)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low if low in include else low - room, high if high in include else high + room, label)

    def place(self, values: Floats) -> Floats:
        """Share of the way from low to high, held within the axis; NaN stays NaN."""
        low, high = self.low, self.high
        if self.log:
            values = np.log(np.where(values > 0, values, low))
            low, high = math.log(low), math.log(high)
        return np.asarray(np.clip((values - low) / (high - low), 0.0, 1.0))

    def ticks(self) -> list[tuple[float, str]]:
        """About five round values with their labels."""
        if self.log:
            first, final = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            factors = (1,) if final - first > 2 else (1, 2, 5) if final - first == 2 else (1, 2, 3, 5, 7)
            stride = max(1, math.ceil((final - first) / 6))
            powers = [(factor, power) for power in range(first, final + 1, stride) for factor in factors]
            return [(f * 10.0**p, _power(f, p)) for f, p in powers if self.low <= f * 10.0**p <= self.high]
        rough = (self.high - self.low) / 5
        size = 10.0 ** math.floor(math.log10(rough))
        nice = (1, 2, 5, 10) if self.whole else (1, 2, 2.5, 5, 10)
        step = next(size * factor for factor in nice if size * factor >= rough)
        step = max(step, 1.0) if self.whole else step
        values = np.arange(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1) * step
        return [(float(value), short(float(f"{value:.6g}"))) for value in values]


def _power(factor: int, power: int) -> str:
    if -3 <= power <= 3:
        return short(float(f"{factor * 10.0**power:.6g}"))
    tens = "10" + str(power).translate(SUPERSCRIPT)
    return tens if factor == 1 else f"{factor}·{tens}"


def _at(value: Number) -> str:
    return f"{value:.1f}".removesuffix(".0")


class Panel:
    """One chart. Colours are names of the style: ink, muted, blue, orange, green, purple, gold."""

    def __init__(self, x: Axis, y: Axis, width: int = WIDTH, height: int = HEIGHT, left: int = LEFT) -> None:
        self.x, self.y, self.width, self.height, self.left = x, y, width, height, left
        self._marks: list[str] = []
        self._words: list[str] = []
        """Kept apart to be drawn last: no mark may cross a word."""
        self._legend: dict[str, str] = {}

    @contextlib.contextmanager
    def group(self, style: str) -> Iterator[None]:
        """Marks made within belong to one group with these classes, to be shown or hidden together."""
        before, self._marks = self._marks, []
        yield
        self._marks = [*before, f'<g class="{style}">{"".join(self._marks)}</g>']

    def _points(self, xs: Floats, ys: Floats) -> tuple[Floats, Floats]:
        across = self.left + self.x.place(xs) * (self.width - self.left - RIGHT)
        down = self.height - BOTTOM - self.y.place(ys) * (self.height - TOP - BOTTOM)
        return across, down

    def _point(self, x: Number, y: Number) -> tuple[float, float]:
        across, down = self._points(np.array([x], np.float64), np.array([y], np.float64))
        return float(across[0]), float(down[0])

    def _key(self, label: str, kind: str) -> None:
        if label:
            self._legend.setdefault(
                label, f'<svg class="key" viewBox="0 0 22 10" aria-hidden="true">{kind}</svg>'
            )

    def line(
        self, xs: Floats, ys: Floats, colour: str, label: str = "", thin: bool = False, dash: bool = False
    ) -> None:
        """A line, broken where a value is not finite; `thin` for a seed, `dash` for one of a pair."""
        across, down = self._points(xs, ys)
        path, pen = [], "M"
        for u, v, seen in zip(across, down, np.isfinite(across) & np.isfinite(ys), strict=True):
            path.append(f"{pen}{_at(u)} {_at(v)}" if seen else "")
            pen = "L" if seen else "M"
        style = f"s-{colour} line{' thin' if thin else ''}{' dash' if dash else ''}"
        self._marks.append(f'<path class="{style}" d="{"".join(path)}"/>')
        self._key(label, f'<path class="{style}" d="M1 5H21"/>')

    def dots(self, xs: Floats, ys: Floats, colour: str, label: str = "", size: str = "dot") -> None:
        """Round marks; `size` is dot, cloud (many, faint), or big."""
        across, down = self._points(xs, ys)
        seen = np.isfinite(xs) & np.isfinite(ys)
        path = "".join(f"M{_at(u)} {_at(v)}h0" for u, v, ok in zip(across, down, seen, strict=True) if ok)
        self._marks.append(f'<path class="s-{colour} {size}" d="{path}"/>')
        shown = "big" if size in ("mean", "big") else "dot"
        self._key(label, f'<path class="s-{colour} {shown}" d="M11 5h0"/>')

    def histogram(
        self,
        edges: Floats,
        heights: Floats,
        colour: str,
        label: str = "",
        outline: bool = False,
        base: Number | None = None,
    ) -> None:
        """Bars that touch, standing on `base`; `outline` draws only their edge, to lie over filled ones."""
        floor = self.y.low if base is None else base
        xs, ys = np.repeat(edges, 2), np.concatenate([[floor], np.repeat(floor + heights, 2), [floor]])
        across, down = self._points(xs, ys)
        path = "M" + "L".join(f"{_at(u)} {_at(v)}" for u, v in zip(across, down, strict=True))
        style = f"s-{colour} line" if outline else f"f-{colour} area"
        self._marks.append(f'<path class="{style}" d="{path}"/>')
        swatch = '<path class="{}" d="M1 5H21"/>' if outline else '<path class="{}" d="M1 1H21V9H1z"/>'
        self._key(label, swatch.format(style))

    def bar(self, low: Number, high: Number, y: Number, colour: str) -> None:
        """A horizontal interval at height y."""
        across, down = self._points(np.array([low, high], np.float64), np.full(2, float(y)))
        self._marks.append(
            f'<path class="s-{colour} interval" d="M{_at(across[0])} {_at(down[0])}H{_at(across[1])}"/>'
        )

    def stem(self, x: Number, low: Number, high: Number, colour: str) -> None:
        """A vertical interval at x."""
        across, down = self._points(np.full(2, float(x)), np.array([low, high], np.float64))
        self._marks.append(
            f'<path class="s-{colour} interval" d="M{_at(across[0])} {_at(down[0])}V{_at(down[1])}"/>'
        )

    def band(self, xs: Floats, low: Floats, high: Floats, colour: str) -> None:
        """The area between two lines, to lie beneath a third."""
        across, down = self._points(np.concatenate([xs, xs[::-1]]), np.concatenate([low, high[::-1]]))
        path = "L".join(f"{_at(u)} {_at(v)}" for u, v in zip(across, down, strict=True))
        self._marks.append(f'<path class="f-{colour} area faint" d="M{path}Z"/>')

    def rule(self, label: str, x: Number | None = None, y: Number | None = None, row: int = 0) -> None:
        """A dashed reference line at x or y with its name on it; `row` moves the name of an x line down."""
        if x is not None:
            u = self._point(x, self.y.low)[0]
            self._marks.append(f'<path class="rule" d="M{_at(u)} {TOP}V{self.height - BOTTOM}"/>')
            end = u > self.width * 0.6
            self.text(u + (-4 if end else 4), TOP + 10 + 14 * row, label, "end" if end else "start")
        if y is not None:
            v = self._point(self.x.low, y)[1]
            self._marks.append(f'<path class="rule" d="M{self.left} {_at(v)}H{self.width - RIGHT}"/>')
            self.text(self.width - RIGHT - 2, v - 4 if v > TOP + 16 else v + 13, label, "end")

    def diagonal(self, label: str) -> None:
        """Where x equals y."""
        low, high = max(self.x.low, self.y.low), min(self.x.high, self.y.high)
        across, down = self._points(np.array([low, high], np.float64), np.array([low, high], np.float64))
        ends = [f"{_at(u)} {_at(v)}" for u, v in zip(across, down, strict=True)]
        self._marks.append(f'<path class="rule" d="M{ends[0]}L{ends[1]}"/>')
        self._key(label, '<path class="rule" d="M1 5H21"/>')

    def text(self, u: Number, v: Number, label: str, anchor: str = "start", style: str = "note") -> None:
        """Words at a place in drawing units."""
        place = f'x="{_at(u)}" y="{_at(v)}" text-anchor="{anchor}"'
        self._words.append(f'<text class="{style}" {place}>{escape(label)}</text>')

    def _frame(self, y_ticks: bool) -> str:
        parts, floor = [], self.height - BOTTOM
        for value, label in self.x.ticks():
            u = self._point(value, self.y.low)[0]
            parts.append(f'<path class="tick" d="M{_at(u)} {floor}v4"/>')
            parts.append(
                f'<text class="tick" x="{_at(u)}" y="{floor + 16}" text-anchor="middle">{label}</text>'
            )
        for value, label in self.y.ticks() if y_ticks else []:
            v = self._point(self.x.low, value)[1]
            parts.append(f'<path class="mesh" d="M{self.left} {_at(v)}H{self.width - RIGHT}"/>')
            parts.append(
                f'<text class="tick" x="{self.left - 6}" y="{_at(v + 4)}" text-anchor="end">{label}</text>'
            )
        parts.append(f'<path class="axis" d="M{self.left} {floor}H{self.width - RIGHT}"/>')
        parts.append(f'<text class="name" x="2" y="11">{escape(self.y.label)}</text>')
        right = f'x="{self.width - RIGHT}" y="{self.height - 3}" text-anchor="end"'
        return "".join(parts) + f'<text class="name" {right}>{escape(self.x.label)}</text>'

    def svg(self, alt: str, y_ticks: bool = True, style: str = "") -> str:
        """The drawing alone; `alt` is what a screen reader says."""
        head = f'<svg class="chart {style}" viewBox="0 0 {self.width} {self.height}" role="img"'
        drawn = "".join([self._frame(y_ticks), *self._marks, *self._words])
        return f'{head} aria-label="{escape(alt)}">{drawn}</svg>'

    def legend(self) -> str:
        """The keys of the labelled marks; empty where one needs none."""
        items = "".join(f"<li>{key}{escape(label)}</li>" for label, key in self._legend.items())
        return f'<ul class="legend">{items}</ul>' if items else ""

    def figure(self, title: str, say: str) -> str:
        """The whole figure: `say` is the one sentence that says what to look for."""
        alt = f"{title}. {self.y.label} over {self.x.label}. {say}"
        caption = f"<figcaption>{escape(say)}</figcaption>"
        return f"<figure><h3>{escape(title)}</h3>{self.legend()}{self.svg(alt)}{caption}</figure>"


def thinned(xs: Floats, ys: Floats, most: int = 160) -> tuple[Floats, Floats]:
    """At most `most` points: means over equal stretches of a longer line."""
    if len(xs) <= most:
        return xs, ys
    parts = np.array_split(np.arange(len(xs)), most)
    return np.array([xs[part].mean() for part in parts]), np.array([ys[part].mean() for part in parts])


def sample(values: Floats, most: int) -> Floats:
    """At most `most` of the values, evenly spread over their order."""
    rows = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return np.asarray(values[rows], np.float64)


def percent(share: Number) -> str:
    """0.953 as 95 %; three digits where it matters near the ends."""
    if not math.isfinite(share):
        return "–"
    digits = 0 if 0.01 <= share <= 0.99 or share in (0, 1) else 2
    return f"{100 * share:.{digits}f}\u00a0%"
