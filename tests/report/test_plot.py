"""The small plotter: axes, ticks, places, escapes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ipd.report.plot import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Panel,
    percent,
    sample,
    short,
    thinned,
)


def test_linear_axis_places_and_ticks() -> None:
    axis = Axis(0, 10, "x")
    np.testing.assert_allclose(axis.place(np.array([0, 2.5, 10, 12, np.nan])), [0, 0.25, 1, 1, np.nan])
    assert axis.ticks() == [(0, "0"), (2, "2"), (4, "4"), (6, "6"), (8, "8"), (10, "10")]
    assert [label for _, label in Axis(-0.4, 5.4, "x", whole=True).ticks()] == ["0", "2", "4"]


def test_log_axis_places_and_ticks() -> None:
    axis = Axis(0.001, 1000, "x", log=True)
    np.testing.assert_allclose(axis.place(np.array([0.001, 1, 1000])), [0, 0.5, 1])
    assert [label for _, label in axis.ticks()] == ["0.001", "0.01", "0.1", "1", "10", "100", "1,000"]
    assert [label for _, label in Axis(1e-5, 1e-4, "x", log=True).ticks()][-1] == "10⁻⁴"


def test_fit_holds_all_finite_values_and_what_is_included() -> None:
    axis = Axis.fit([np.array([3.0, np.nan, np.inf]), np.array([7.0])], "x", include=(0.0,))
    assert axis.low == 0.0 and 7.0 < axis.high < 8.0
    log = Axis.fit([np.array([0.0, 1e-3, 1.0])], "x", log=True)
    assert 0 < log.low < 1e-3
    flat = Axis.fit([np.full(3, 5.0)], "x")
    assert flat.low < 5.0 < flat.high
    assert Axis.fit([np.array([np.nan])], "x").ticks()


def test_marks_stand_where_the_data_says() -> None:
    panel = Panel(Axis(0, 1, "x"), Axis(0, 1, "y"))
    panel.line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "blue")
    assert f"M{LEFT} {HEIGHT - BOTTOM}L{WIDTH - RIGHT} {TOP}" in panel.svg("alt")


def test_a_line_breaks_where_a_value_is_missing() -> None:
    panel = Panel(Axis(0, 3, "x"), Axis(0, 1, "y"))
    panel.line(np.arange(4.0), np.array([0.0, np.nan, 1.0, 1.0]), "blue")
    path = re.findall(r'class="s-blue line" d="([^"]*)"', panel.svg("alt"))[0]
    assert path.count("M") == 2 and path.count("L") == 1


def test_words_are_escaped_and_drawn_after_the_marks() -> None:
    panel = Panel(Axis(0, 1, "<x>"), Axis(0, 1, '"y"'))
    panel.rule("<script>", x=0.5)
    panel.line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "blue", "a & b")
    figure = panel.figure("<b>", "1 < 2")
    assert "<script" not in figure and "<b>" not in figure and "a &amp; b" in figure
    assert figure.index("&lt;script&gt;") > figure.index("s-blue line", figure.index('role="img"'))


def test_thinned_keeps_means_and_sample_keeps_the_ends() -> None:
    xs, ys = thinned(np.arange(1000.0), np.arange(1000.0) * 2, most=100)
    assert len(xs) == 100 and xs[0] == 4.5 and ys[0] == 9.0
    picked = sample(np.arange(1000.0), 11)
    assert len(picked) == 11 and picked[0] == 0 and picked[-1] == 999
    assert len(sample(np.arange(3.0), 11)) == 3


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (1500, "1,500"), (40_000, "40k"), (2e6, "2M"), (-20, "−20")]
)
def test_ticks_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_percent() -> None:
    assert [percent(share) for share in (0.5, 1, 0.9987, float("nan"))] == [
        "50\u00a0%",
        "100\u00a0%",
        "99.87\u00a0%",
        "–",
    ]
