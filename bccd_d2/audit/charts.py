"""The page's two charts as SVG: a histogram and the scatter plot of stains.

Drawn as plain shapes without fonts of their own, so that they take the page's type, print sharply and say on hover
what each shape is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import cv2
import numpy as np

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 26, 44
SCATTER_WIDTH, SCATTER_HEIGHT = 680, 520
DOT = 8.0


@dataclass(frozen=True)
class Mark:
    """A vertical line in a histogram with words above it."""

    value: float
    text: str


@dataclass(frozen=True)
class Dot:
    """One image in the scatter plot.

    Attributes:
        x: horizontal value.
        y: vertical value.
        fill: colour of the disc, ``#rrggbb``.
        ground: colour of the tile behind it, ``#rrggbb``.
        label: a letter or number printed beside it.
        title: words shown on hover.
    """

    x: float
    y: float
    fill: str
    ground: str
    label: str
    title: str


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    x_label: str,
    what: str,
    marks: Sequence[Mark] = (),
    beyond: int = 0,
) -> str:
    """A histogram.

    Args:
        edges: n + 1 ascending values.
        counts: n counts.
        x_label: under the axis, with unit.
        what: what is counted, in the plural.
        marks: lines to draw.
        beyond: how many lie above the last edge; said in words.

    Returns:
        An ``<svg>`` element as text.
    """
    svg = _svg(WIDTH, HEIGHT, f"Histogram: {what} by {x_label}")
    if not counts:
        _text(svg, WIDTH / 2, HEIGHT / 2, "nothing to count", "middle")
        return dump(svg)
    low, high = edges[0], edges[-1]
    ticks = _ticks(0, max(max(counts), 1))
    top = max(max(counts), ticks[-1])

    def across(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    for tick in ticks:
        _line(svg, LEFT, down(tick), WIDTH - RIGHT, down(tick), "grid")
        _text(svg, LEFT - 8, down(tick) + 4, _short(tick), "end")
    for start, stop, found in zip(edges[:-1], edges[1:], counts):
        if found:
            left, right = across(start), across(stop)
            gap = min(1.0, (right - left) * 0.2)
            bar = _shape(
                svg, "rect", "bar", x=left + gap / 2, y=down(found), width=right - left - gap,
                height=HEIGHT - BOTTOM - down(found),
            )  # fmt: skip
            ElementTree.SubElement(bar, "title").text = f"{start:g} to {stop:g}: {found:,} {what}"
    _line(svg, LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")
    for tick in _ticks(low, high):
        _text(svg, across(tick), HEIGHT - BOTTOM + 17, _short(tick), "middle")
    _text(svg, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle", "label")
    if beyond:
        _text(svg, WIDTH - RIGHT, HEIGHT - BOTTOM - 6, f"{beyond:,} beyond →", "end")
    for mark in marks:
        if low <= mark.value <= high:
            x = across(mark.value)
            _line(svg, x, TOP - 8, x, HEIGHT - BOTTOM, "mark")
            to_the_left = x > WIDTH * 0.7
            _text(
                svg,
                x + (-5 if to_the_left else 5),
                TOP - 4,
                mark.text,
                "end" if to_the_left else "start",
                "mark",
            )
    return dump(svg)


def scatter(dots: Sequence[Dot], *, x_label: str, y_label: str) -> str:
    """A scatter plot of images, each drawn as a disc of its cells' colour on a tile of its glass's.

    Returns:
        An ``<svg>`` element as text.
    """
    svg = _svg(SCATTER_WIDTH, SCATTER_HEIGHT, f"{y_label} against {x_label}, one mark an image")
    if not dots:
        _text(svg, SCATTER_WIDTH / 2, SCATTER_HEIGHT / 2, "no image with cells and glass", "middle")
        return dump(svg)
    x_low, x_high = _padded([dot.x for dot in dots])
    y_low, y_high = _padded([dot.y for dot in dots])

    def across(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * (SCATTER_WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return SCATTER_HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (SCATTER_HEIGHT - TOP - BOTTOM)

    for tick in _ticks(x_low, x_high):
        _line(svg, across(tick), TOP, across(tick), SCATTER_HEIGHT - BOTTOM, "grid")
        _text(svg, across(tick), SCATTER_HEIGHT - BOTTOM + 17, _short(tick), "middle")
    for tick in _ticks(y_low, y_high):
        _line(svg, LEFT, down(tick), SCATTER_WIDTH - RIGHT, down(tick), "grid")
        _text(svg, LEFT - 8, down(tick) + 4, _short(tick), "end")
    for dot in dots:
        x, y = across(dot.x), down(dot.y)
        group = ElementTree.SubElement(svg, "g")
        ElementTree.SubElement(group, "title").text = dot.title
        side = 2.6 * DOT
        tile = _shape(group, "rect", "tile", x=x - side / 2, y=y - side / 2, width=side, height=side, rx=3.0)
        tile.set("fill", dot.ground)
        disc = _shape(group, "circle", "disc", cx=x, cy=y, r=DOT)
        disc.set("fill", dot.fill)
        _text(group, x, y + 3.8, dot.label, "middle", "dot")
    _text(svg, (LEFT + SCATTER_WIDTH - RIGHT) / 2, SCATTER_HEIGHT - 6, x_label, "middle", "label")
    label = _text(svg, 0, 0, y_label, "start", "label")
    label.set("transform", f"translate({LEFT} {TOP - 10})")
    return dump(svg)


def lab_to_hex(lab: Sequence[float]) -> str:
    """``#rrggbb`` of a CIELAB colour (L* 0..100, a* and b* signed), clipped to what a screen can show."""
    rgb = cv2.cvtColor(np.array(lab, np.float32).reshape(1, 1, 3), cv2.COLOR_LAB2RGB).ravel()
    return "#" + "".join(f"{round(float(value) * 255):02x}" for value in np.clip(rgb, 0, 1))


def _svg(width: int, height: int, label: str) -> Element:
    return Element(
        "svg",
        {"viewBox": f"0 0 {width} {height}", "class": "chart", "role": "img", "aria-label": label},
    )


def _shape(parent: Element, kind: str, name: str, **numbers: float) -> Element:
    return ElementTree.SubElement(
        parent, kind, {"class": name, **{key: f"{value:.2f}" for key, value in numbers.items()}}
    )


def _line(parent: Element, x1: float, y1: float, x2: float, y2: float, name: str) -> None:
    _shape(parent, "line", name, x1=x1, y1=y1, x2=x2, y2=y2)


def _text(parent: Element, x: float, y: float, text: str, anchor: str, name: str = "tick") -> Element:
    element = _shape(parent, "text", name, x=x, y=y)
    element.set("text-anchor", anchor)
    element.text = text
    return element


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(0.08 * (high - low), 0.5)
    return low - margin, high + margin


def _ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count`` of them."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= span)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    text = f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def dump(svg: Element) -> str:
    """An element as text."""
    return ElementTree.tostring(svg, encoding="unicode")
