"""Figures of the world model, of augmentation, and of the truth check.

Each takes the entries of a ``summary.json`` (one a seed) and gives HTML, or "" where none of them
has its numbers. Thin lines are seeds, bold lines their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ipd.report.plot import Axis, Panel, percent, sample
from ipd.report.read import Floats, floats
from ipd.report.tables import number

Seed = dict[str, Any]
PLANNERS = {"greedy": "blue", "mpc": "orange"}
CLOUD = 1_200
"""Points of a scatter at most: more only make the file larger."""


def having(seeds: Iterable[Seed], *names: str) -> list[Seed]:
    """The entries that hold something under every one of `names`."""
    return [seed for seed in seeds if all(seed.get(name) not in (None, [], {}) for name in names)]


def stacked(seeds: Sequence[Seed], name: str) -> Floats:
    """One list of each entry as rows; entries cut to the shortest."""
    rows = [floats(seed[name]) for seed in seeds]
    return np.stack([row[: min(map(len, rows))] for row in rows])


def average(values: Iterable[Any]) -> float:
    """Mean of the finite ones; NaN where there is none."""
    finite = [value for value in floats(values) if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def depth_axis(depth: Floats) -> Axis:
    """Steps into the imagined future."""
    room = 0.05 * float(depth[-1])
    return Axis(float(depth[0]) - room, float(depth[-1]) + room, "steps imagined", whole=True)


def seeds_and_mean(
    panel: Panel, xs: Floats, rows: Floats, colour: str, label: str, dash: bool = False
) -> None:
    """Thin lines for the seeds, a bold one for their mean."""
    xs = xs[: rows.shape[1]]
    if len(rows) > 1:
        for row in rows:
            panel.line(xs, row, colour, thin=True)
    panel.line(xs, rows.mean(axis=0), colour, label, dash=dash)


def one_step(seeds: Sequence[Seed]) -> str:
    """R^2 of the predicted change, a dot a seed and dimension."""
    seeds = having(seeds, "one_step_r2")
    if not seeds:
        return ""
    rows = stacked(seeds, "one_step_r2")
    index = np.arange(rows.shape[1], dtype=np.float64)
    worst = int(rows.mean(axis=0).argmin())
    panel = Panel(
        Axis(-0.6, len(index) - 0.4, "dimension of the observation", whole=True),
        Axis.fit([rows], "R² on held-out episodes", include=(1.0, 0.9)),
    )
    for row in rows:
        panel.dots(index, row, "blue", "a seed", "dot")
    panel.dots(index, rows.mean(axis=0), "blue", "mean of seeds", "big")
    say = (
        f"Look for dimensions far below the rest: on average R² is {number(rows.mean())}, the worst is "
        f"dimension {worst} with {number(rows.mean(axis=0)[worst])}; the reward has "
        f"{number(average(seed.get('reward_r2') for seed in seeds))}."
    )
    return panel.figure("One step ahead", say)


def depth_error(seeds: Sequence[Seed]) -> str:
    """Open-loop error by depth against the forecast that nothing changes."""
    seeds = having(seeds, "depth", "model_error", "no_change_error")
    if not seeds:
        return ""
    depth, model, still = (
        floats(seeds[0]["depth"]),
        stacked(seeds, "model_error"),
        stacked(seeds, "no_change_error"),
    )
    panel = Panel(depth_axis(depth), Axis.fit([model, still], "mean squared error, std²", log=True))
    seeds_and_mean(panel, depth, still, "muted", "no change", dash=True)
    seeds_and_mean(panel, depth, model, "blue", "model")
    ratio = float(still.mean(axis=0)[-1] / model.mean(axis=0)[-1])
    verdict = f"{number(ratio, 2)} times smaller" if ratio >= 1 else f"{number(1 / ratio, 2)} times larger"
    say = (
        "Look for the model to stay well below the forecast that nothing changes; after "
        f"{depth[-1]:.0f} steps its error is {verdict}."
    )
    return panel.figure("Deeper and deeper", say)


def calibration(seeds: Sequence[Seed]) -> str:
    """Observed against nominal share of the truth inside the ensemble's interval."""
    seeds = having(seeds, "coverage")
    if not seeds:
        return ""
    nominal = floats(seeds[0]["coverage"]["nominal"])
    panel = Panel(Axis(0, 1, "nominal share"), Axis(0, 1, "observed share inside the interval"))
    panel.diagonal("honest")
    depths = sorted((name for name in seeds[0]["coverage"] if name != "nominal"), key=int)
    shares = []
    for name, colour in zip(depths, ("blue", "orange", "purple", "green", "gold"), strict=False):
        rows = stacked([seed["coverage"] for seed in seeds if name in seed["coverage"]], name)
        seeds_and_mean(panel, nominal, rows, colour, f"depth {name}")
        shares.append(f"{percent(float(rows.mean(axis=0)[-1]))} at depth {name}")
    say = (
        "Look for lines near the diagonal: below it the model is too sure of itself, above it too timid; "
        f"its {percent(float(nominal[-1]))} interval holds {', '.join(shares)}."
    )
    return panel.figure("Does it know its error?", say)


def uncertainty(seeds: Sequence[Seed]) -> str:
    """U over kappa of the same seed, in and out of distribution."""
    seeds = having(seeds, "uncertainty", "kappa")
    if not seeds:
        return ""
    groups = {}
    for name in ("held_out", "random_actions", "shuffled"):
        found = [floats(seed["uncertainty"].get(name, [])) / seed["kappa"] for seed in seeds]
        groups[name] = np.maximum(np.concatenate(found), 1e-9)
    groups = {name: values for name, values in groups.items() if len(values)}
    pool = np.concatenate(list(groups.values()))
    low, high = np.percentile(pool, [0.2, 99.8])
    x = Axis.fit([np.array([low, high])], "U / κ, log scale", log=True, include=(1.0,))
    edges = np.geomspace(x.low, x.high, 41)
    shares = {name: _shares(values, edges) for name, values in groups.items()}
    panel = Panel(x, Axis.fit(list(shares.values()), "share of pairs", include=(0.0,)))
    labels = {
        "held_out": "held-out pairs",
        "random_actions": "random actions",
        "shuffled": "shuffled actions",
    }
    for name, colour in (("held_out", "muted"), ("random_actions", "orange"), ("shuffled", "purple")):
        if name in shares:
            panel.histogram(edges, shares[name], colour, labels[name], outline=name != "held_out")
    panel.rule("κ", x=1.0)
    inside = ", ".join(f"{percent(float((v <= 1).mean()))} of {labels[name]}" for name, v in groups.items())
    return panel.figure(
        "In and out of distribution",
        f"Look for the unfamiliar pairs to lie right of κ, where imagination stops: it lets pass {inside}.",
    )


def _shares(values: Floats, edges: Floats) -> Floats:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return np.asarray(counts / max(1, len(values)), np.float64)


def when(seeds: Sequence[Seed]) -> str:
    """Where in the episode candidates and chosen states lie."""
    seeds = having(seeds, "timestep_edges", "timestep_candidates", "timestep_chosen")
    if not seeds:
        return ""
    edges = floats(seeds[0]["timestep_edges"])
    every, chosen = (stacked(seeds, name).sum(axis=0) for name in ("timestep_candidates", "timestep_chosen"))
    every, chosen = every / max(1.0, every.sum()), chosen / max(1.0, chosen.sum())
    panel = Panel(
        Axis(edges[0], edges[-1], "step of the episode"),
        Axis.fit([every, chosen], "share of states", include=(0.0,)),
    )
    panel.histogram(edges, every, "muted", "candidates")
    panel.histogram(edges, chosen, "orange", "chosen", outline=True)
    say = "Look for where the line leaves the grey: there the data is improved more often than it is visited."
    return panel.figure("When in an episode", say)


def gaps(seeds: Sequence[Seed]) -> str:
    """Imagined minus real return, of all candidates and of the chosen."""
    seeds = having(seeds, "gap", "chosen_gap")
    if not seeds:
        return ""
    every, chosen = (np.concatenate([floats(seed[name]) for seed in seeds]) for name in ("gap", "chosen_gap"))
    low, high = np.percentile(np.concatenate([every, chosen]), [0.5, 99.5])
    x = Axis.fit([np.array([low, high])], "imagined − real return, scaled", include=(0.0,))
    edges = np.linspace(x.low, x.high, 41)
    shares = [_shares(every, edges), _shares(chosen, edges)]
    panel = Panel(x, Axis.fit(shares, "share of states", include=(0.0,)))
    panel.histogram(edges, shares[0], "muted", "candidates")
    panel.histogram(edges, shares[1], "orange", "chosen", outline=True)
    panel.rule("no gain", x=0.0)
    gain, chosen_gain = percent(float((every > 0).mean())), percent(float((chosen > 0).mean()))
    say = (
        f"Look for the chosen to be the right-hand tail: {gain} of the candidates promise a gain, "
        f"{chosen_gain} of the chosen (the outer ½ % is piled up at the ends)."
    )
    return panel.figure("Promised gain", say)


def before_after(seeds: Sequence[Seed]) -> str:
    """Return of the logged steps against that of the segment that stands in for them."""
    seeds = having(seeds, "real_return", "imagined_return")
    if not seeds:
        return ""
    real, imagined = (
        np.concatenate([floats(s[name]) for s in seeds]) for name in ("real_return", "imagined_return")
    )
    panel = Panel(Axis.fit([real, imagined], "logged"), Axis.fit([real, imagined], "imagined return, scaled"))
    panel.dots(sample(real, CLOUD), sample(imagined, CLOUD), "orange", "a segment", "cloud")
    panel.diagonal("equal")
    say = (
        f"Look for points above the diagonal: {percent(float((imagined > real).mean()))} of the segments "
        "promise more than what they stand in for, "
        f"{number(imagined.mean())} instead of {number(real.mean())} on average."
    )
    return panel.figure("Before and after", say)
