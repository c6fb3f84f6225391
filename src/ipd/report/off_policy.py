"""The judgement without a simulator, from the judge stage's summary (docs/judging.md)."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ipd.report import tables
from ipd.report.parts import Section, html_table
from ipd.report.plot import percent
from ipd.report.read import Run
from ipd.report.tables import number, span

HEADER = ("policy", "fitted Q", "95 % interval", "gain", "in the model", "95 % interval", "gain", "reliable",
          "apart", "action distance", "pairs outside")  # fmt: skip
LEAD = (
    "Discounted returns from logged first states, in the task's units, by fitted Q evaluation and by the "
    "world model as far as it can be believed. Gain: over the data. Apart: difference of the estimates in "
    "units of both intervals. Action distance: from the logged actions, by the data's own spread."
)


def section(run: Run) -> Section | None:
    """Verdict and table; None where the run was not judged."""
    told = run.summaries.get("judge")
    if not told:
        return None
    lines = "".join(f"<li>{escape(line)}</li>" for line in told["verdict"])
    caption = "Discounted return by two estimates; the data's own is the logged one in the model's column"
    table = html_table(caption, HEADER, [_line(name, each) for name, each in told["policies"].items()])
    return Section("judgement", "Without a simulator", LEAD, f"<ul>{lines}</ul>{table}")


def _line(name: str, told: Mapping[str, Any]) -> list[str]:
    """Cells of one policy; "–" where the data's own policy has nothing to say."""

    def cells(how: str) -> list[str]:
        each = told[how]
        gain = number(each["gain"]["mean"]) if "gain" in each else "–"
        return [number(each["mean"]), span(each["low"], each["high"]), gain]

    share = told["model"].get("reliable_share")
    far, outside = told.get("actions", {}).get("relative"), told.get("outside")
    return [
        tables.LABELS.get(name, name.replace("_", " ").capitalize()),
        *cells("fqe"),
        *cells("model"),
        "–" if share is None else percent(share),
        "–" if told["apart"] is None else number(told["apart"]),
        "–" if far is None else number(far),
        "–" if outside is None else percent(outside),
    ]
