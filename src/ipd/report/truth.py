"""The truth check: what imagination promised against what the simulator paid, from the audit's summary.

Rows of the audit are told apart by ``states`` (chosen, random) and ``planner`` (greedy, mpc).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipd.report.imagination import CLOUD, PLANNERS, Seed, average, depth_axis, having, stacked
from ipd.report.plot import Axis, Panel, percent, sample
from ipd.report.read import floats
from ipd.report.tables import number

NAMES = {"greedy": "greedy", "mpc": "MPC"}


def rows_of(seeds: Sequence[Seed], states: str, planner: str) -> list[Seed]:
    """The audit's rows of one kind, one a seed."""
    every = (row for seed in seeds for row in seed.get("rows", []))
    return [row for row in every if (row.get("states"), row.get("planner")) == (states, planner)]


def kinds(seeds: Sequence[Seed]) -> list[tuple[str, str]]:
    """(states, planner) pairs that were audited, chosen states first."""
    return [
        (states, planner)
        for states in ("chosen", "random")
        for planner in PLANNERS
        if rows_of(seeds, states, planner)
    ]


def scatter(seeds: Sequence[Seed], states: str) -> str:
    """Imagined against true return, one point a start state."""
    found = {}
    for planner in PLANNERS:
        pairs = [row["pairs"] for row in having(rows_of(seeds, states, planner), "pairs")]
        if pairs:
            found[planner] = [
                np.concatenate([floats(pair[name]) for pair in pairs]) for name in ("imagined", "true")
            ]
    if not found:
        return ""
    pool = [values for pair in found.values() for values in pair]
    panel = Panel(Axis.fit(pool, "imagined return, scaled"), Axis.fit(pool, "true return, scaled"))
    for planner, (imagined, true) in found.items():
        points = sample(imagined, CLOUD // 2), sample(true, CLOUD // 2)
        panel.dots(*points, PLANNERS[planner], NAMES[planner], "cloud")
    panel.diagonal("as imagined")
    ranks = ", ".join(f"{rank_correlation(seeds, states, name)} ({NAMES[name]})" for name in found)
    say = f"Look for points on the diagonal: below it the model promised too much; rank correlation {ranks}."
    return panel.figure(f"Imagined and true return, {states} states", say)


def rank_correlation(seeds: Sequence[Seed], states: str, planner: str) -> str:
    """Between imagined and true return, mean over seeds, for a reader."""
    return number(average(row.get("rank_correlation") for row in rows_of(seeds, states, planner)))


def by_depth(seeds: Sequence[Seed], states: str) -> str:
    """Return so far, imagined (dashed) and true, by depth."""
    found = {
        p: having(rows_of(seeds, states, p), "depth", "true_return", "imagined_return") for p in PLANNERS
    }
    found = {planner: rows for planner, rows in found.items() if rows}
    if not found:
        return ""
    lines = {p: (stacked(rows, "true_return"), stacked(rows, "imagined_return")) for p, rows in found.items()}
    pool = [values.mean(axis=0) for pair in lines.values() for values in pair]
    depth = floats(next(iter(found.values()))[0]["depth"])
    panel = Panel(depth_axis(depth), Axis.fit(pool, "mean return so far, scaled"))
    for planner, (true, imagined) in lines.items():
        panel.line(depth, true.mean(axis=0), PLANNERS[planner], f"{NAMES[planner]}, true")
        panel.line(depth, imagined.mean(axis=0), PLANNERS[planner], f"{NAMES[planner]}, imagined", dash=True)
    say = "Look for dashed and solid to stay together: where they part, imagination misleads."
    return panel.figure(f"Return by depth, {states} states", say)


def observation_error(seeds: Sequence[Seed]) -> str:
    """Distance of the imagined from the true state by depth."""
    found = {kind: having(rows_of(seeds, *kind), "depth", "observation_error") for kind in kinds(seeds)}
    found = {kind: rows for kind, rows in found.items() if rows}
    if not found:
        return ""
    lines = {kind: stacked(rows, "observation_error") for kind, rows in found.items()}
    depth = floats(next(iter(found.values()))[0]["depth"])
    pool = list(lines.values())
    panel = Panel(depth_axis(depth), Axis.fit(pool, "error of the state, log scale", log=True))
    for (states, planner), rows in lines.items():
        label = f"{NAMES[planner]}, {states}"
        panel.line(depth, rows.mean(axis=0), PLANNERS[planner], label, dash=states == "random")
    if len(next(iter(lines.values()))) > 1:
        for (_, planner), rows in lines.items():
            for row in rows:
                panel.line(depth, row, PLANNERS[planner], thin=True)
    say = "Look for slow growth: error that bends upwards on this scale compounds faster than plans can bear."
    return panel.figure("Error of the state by depth", say)


def reliable(seeds: Sequence[Seed]) -> str:
    """Error of roll-outs inside and outside the reliable set, one row a kind."""
    found = {}
    for kind in kinds(seeds):
        pair = [
            average(row.get(name) for row in rows_of(seeds, *kind))
            for name in ("error_reliable", "error_unreliable")
        ]
        if np.isfinite(pair).all():
            found[kind] = pair
    if not found:
        return ""
    pool = np.array(list(found.values()))
    panel = Panel(Axis.fit([pool], "error of the state", include=(0.0,)), Axis(0, len(found), ""), left=10)
    for index, ((states, planner), (inside, outside)) in enumerate(found.items()):
        y = np.array([len(found) - index - 0.65])
        panel.bar(min(inside, outside), max(inside, outside), float(y[0]), "muted")
        panel.dots(np.array([inside]), y, "blue", "inside", "mean")
        panel.dots(np.array([outside]), y, "orange", "outside", "mean")
        row_height = (panel.height - 58) / len(found)
        panel.text(10, 24 + row_height * (index + 0.3), f"{NAMES[planner]}, {states} states", style="strong")
    ratios = pool[:, 1] / pool[:, 0]
    times = " to ".join(dict.fromkeys(number(float(ratio), 2) for ratio in (ratios.min(), ratios.max())))
    say = (
        "Look for “outside” well to the right: then U sees where the model errs; the error there is "
        f"{times} times that inside."
    )
    alt = f"Error inside and outside the reliable set. {say}"
    body = f"{panel.legend()}{panel.svg(alt, y_ticks=False)}<figcaption>{say}</figcaption>"
    return f"<figure><h3>Inside and outside the reliable set</h3>{body}</figure>"


def table(seeds: Sequence[Seed]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the audit, means over seeds."""
    header = [
        "states",
        "plan",
        "count",
        "truly better",
        "true gain",
        "imagined gain",
        "rank corr.",
        "reliable",
    ]
    lines = []
    for states, planner in kinds(seeds):
        rows = rows_of(seeds, states, planner)
        mean = {
            name: average(row.get(name) for row in rows)
            for name in ("better", "reliable_share", "gain", "imagined_gain", "rank_correlation")
        }
        count = sum(int(row.get("count", 0)) for row in rows)
        better, share = (percent(mean[name]) for name in ("better", "reliable_share"))
        gains = [number(mean[name]) for name in ("gain", "imagined_gain", "rank_correlation")]
        lines.append([states, NAMES[planner], number(count), better, *gains, share])
    return header, lines
