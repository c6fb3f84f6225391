"""The judgement without a simulator, from the judge stage's summary (docs/judging.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from ipd.report import tables
from ipd.report.parts import Section, html_table
from ipd.report.plot import BOTTOM, RIGHT, TOP, Axis, Panel, percent
from ipd.report.read import Run
from ipd.report.tables import number, span

DATA = "behaviour"
LEAD = (
    "Discounted returns from logged first states, in the task's units, by fitted Q evaluation{} Gain: over "
    "the data. Action distance: from the logged actions, by the data's own spread."
)
BOTH = (
    " and by the world model as far as it can be believed. Apart: difference of the estimates in units of "
    "both intervals."
)
ESTIMATES = {"fqe": ("fitted Q", "purple"), "model": ("in the model", "green"), "logged": ("logged", "ink")}
"""Key in the summary: name and colour."""


def section(run: Run) -> Section | None:
    """Verdict, figure and table; None where the run was not judged."""
    told = run.summaries.get("judge")
    if not told:
        return None
    policies = told["policies"]
    imagined = any("model" in each for name, each in policies.items() if name != DATA)
    lines = "".join(f"<li>{_set(line)}</li>" for line in told["verdict"])
    header = ["policy", *_three("fitted Q"), *[*_three("in the model"), "reliable", "apart"] * imagined,
              "action distance", *["pairs outside"] * imagined]  # fmt: skip
    caption = "Discounted return by " + (
        "two estimates; the data's second one is logged" if imagined else "fitted Q"
    )
    table = html_table(caption, header, [_line(name, each, imagined) for name, each in policies.items()])
    lead = LEAD.format(BOTH if imagined else ".")
    return Section(
        "judgement", "Without a simulator", lead, f'<ul class="doubts">{lines}</ul>{figure(policies)}{table}'
    )


def _set(line: str) -> str:
    """A line of the verdict as HTML: a true minus, and commands as such."""
    return re.sub("`(.+?)`", r"<code>\1</code>", escape(re.sub(r"(?<!\w)-(?=\d)", "−", line)))


def _three(name: str) -> list[str]:
    return [name, "95 % interval", "gain"]


def _label(name: str) -> str:
    return (
        "Data's own policy" if name == DATA else tables.LABELS.get(name, name.replace("_", " ").capitalize())
    )


def _line(name: str, told: Mapping[str, Any], imagined: bool) -> list[str]:
    """Cells of one policy; "–" where there is nothing to say."""

    def cells(how: str) -> list[str]:
        if how not in told:
            return ["–"] * 3
        each = told[how]
        gain = number(each["gain"]["mean"]) if "gain" in each else "–"
        return [number(each["mean"]), span(each["low"], each["high"]), gain]

    share, apart = told.get("model", {}).get("reliable_share"), told.get("apart")
    far, outside = told.get("actions", {}).get("relative"), told.get("outside")
    second = [
        *cells("model" if "model" in told else "logged"),
        "–" if share is None else percent(share),
        "–" if apart is None else number(apart),
    ]
    return [
        _label(name),
        *cells("fqe"),
        *second * imagined,
        "–" if far is None else number(far),
        *["–" if outside is None else percent(outside)] * imagined,
    ]


def figure(policies: Mapping[str, Any]) -> str:
    """Every policy's intervals by each estimate, against the data's own return; for desk and phone."""
    panels = {style: _panel(policies, style == "wide") for style in ("wide", "narrow")}
    say = (
        "Look for intervals wholly on one side of the dashed line, the data's own return, and for a policy's "
        "two to overlap. As far as fitted Q misses the line for the data's own policy, it may miss others."
    )
    spoken = "; ".join(
        f"{_label(name)}, {ESTIMATES[how][0]} {number(each[how]['mean'])}, "
        f"95 % interval {span(each[how]['low'], each[how]['high'])}"
        for name, each in policies.items()
        for how in _estimates(each)
    )
    alt = f"Discounted return: {spoken}."
    drawn = "".join(panel.svg(alt, y_ticks=False, style=style) for style, panel in panels.items())
    head = f"<h3>What the policies are worth</h3>{panels['wide'].legend()}"
    return f'<figure class="hero rows">{head}{drawn}<figcaption>{say}</figcaption></figure>'


def _estimates(told: Mapping[str, Any]) -> list[str]:
    return [how for how in ESTIMATES if how in told]


def _panel(policies: Mapping[str, Any], wide: bool) -> Panel:
    spans = [[each[how][end] for end in ("low", "mean", "high")] for each in policies.values()
             for how in _estimates(each)]  # fmt: skip
    left, step, top = (186, 46, 24) if wide else (10, 66, 24)
    width, height = 700 if wide else 360, TOP + top + step * len(policies) + BOTTOM
    # heights in drawing units, downwards from the first row
    panel = Panel(
        Axis.fit([np.array(spans)], "discounted return"), Axis(-step * len(policies), top, ""),
        width, height, left,
    )  # fmt: skip
    for index, (name, each) in enumerate(policies.items()):
        middle = -step * (index + (0.5 if wide else 0.62))
        for row, how in enumerate(_estimates(each)):
            label, colour = ESTIMATES[how]
            y = middle + (7.5, -7.5)[row] * (len(_estimates(each)) > 1)
            panel.bar(each[how]["low"], each[how]["high"], y, colour)
            panel.dots(np.array([each[how]["mean"]]), np.array([y]), colour, label, "big")
        down = TOP + top - middle
        far = each.get("actions", {}).get("relative")
        spread = "" if far is None else f"action distance {number(far, 2)}"
        if wide:
            panel.text(left - 14, down - (3 if spread else -4), _label(name), "end", "strong")
            panel.text(left - 14, down + 13, spread, "end")
        else:
            panel.text(left, TOP + top + step * index + 14, _label(name), "start", "strong")
            panel.text(width - RIGHT, TOP + top + step * index + 14, spread, "end")
    logged = policies[DATA].get("logged")
    if logged:
        panel.rule(f"the data, as logged: {number(logged['mean'])}", x=logged["mean"])
    return panel
