"""Figures of the result and of training; each is HTML, or "" where the run has not made its numbers yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipd.report import read, tables
from ipd.report.plot import Axis, Panel, thinned
from ipd.report.read import Floats, Run, Series
from ipd.report.tables import Row, number

COLOURS = {"cloning": "gold", "quasi_optimal": "blue", "ipd": "orange"}
"""A policy has the same colour in every figure."""

MEASURES: dict[str, tuple[str, str]] = {
    "value_loss": ("Loss of V", "Look for a fall that flattens; a late rise means the targets run away."),
    "critic_loss": ("Loss of Q", "Look for a level that stays bounded; growth without end is divergence."),
    "actor_loss": ("Loss of the quasi-optimal policy", "Look for a steady fall to a level line."),
    "q_mean": (
        "Mean Q of logged pairs",
        "Look for a plateau within the returns the data can give, not a climb.",
    ),
    "v_mean": ("Mean V of logged states", "Look for a plateau close beneath Q."),
    "advantage_mean": (
        "Mean advantage",
        "Look for a small, steady value: most logged actions are no bargain.",
    ),
    "huber_delta": ("Huber threshold", "Look for it to follow the size of the errors and settle."),
    "log_std": ("Log-std of the quasi-optimal policy", "Look for a slow fall that stays off its bounds."),
    "dynamics_loss": (
        "Loss of the dynamics",
        "Look for a fall that ends where held-out error stops falling.",
    ),
    "reward_loss": (
        "Loss of the reward",
        "Look for a fall by orders of magnitude; rewards are the easy part.",
    ),
    "termination_loss": ("Loss of the termination", "Look for a fall towards zero."),
    "log_variance": (
        "Predicted log-variance",
        "Look for a level off the bounds: noise neither gone nor everywhere.",
    ),
    "held_out_error": ("Held-out error", "Look for the floor: a rise after it is over-fitting."),
    "best_error": ("Best held-out error", "Look for long steps at the end: nothing more was to be learned."),
    "policy_loss": (
        "Loss of the policy",
        "Look for a level line at the end; a fall there asks for more updates.",
    ),
    "action_error": (
        "Error of the action",
        "Look for a fall to the spread of the data's own actions, not to zero.",
    ),
    "q_gain": (
        "Q gained over the logged action",
        "Look for a small lead above zero; a large one exploits Q.",
    ),
    "q_policy": (
        "Mean Q of the policy's actions",
        "Look for it to stay near that of logged pairs; far above, it exploits Q.",
    ),
    "conservative_gap": (
        "Conservative gap: sampled over logged actions",
        "Look for a bounded level; a fall far below zero would mean that every new action is feared.",
    ),
    "inconsistency": (
        "Disagreement of the models' Bellman targets",
        "Look for a small, steady value beside Q; growth says the rollouts leave the data.",
    ),
    "entropy": ("Entropy of the policy", "Look for a fall to its target, then a level line."),
    "temperature": ("Weight of the entropy", "Look for a level line above zero."),
    "return_loss": (
        "Loss of the return",
        "Look for a fall that flattens: the best return of each state is known.",
    ),
    "return_gain": (
        "Predicted over logged return",
        "Look for a small lead above zero: the best of the data, no more.",
    ),
    "observation_error": ("Error of the next observation", "Look for a fall that flattens."),
    "diffusion_error": ("Error of the denoiser", "Look for a fall that flattens well above zero."),
    "gradient_norm": ("Norm of the gradient", "Look for calm: peaks that grow announce divergence."),
}
"""Metric: title and what to look for. A metric not named here is drawn under its own name."""


def mean_line(series: Series) -> tuple[Floats, Floats]:
    """Mean over seeds at the steps that all of them have."""
    shared = sorted(set.intersection(*(set(steps.tolist()) for steps, _ in series.values())))
    at = [dict(zip(steps.tolist(), values.tolist(), strict=True)) for steps, values in series.values()]
    return np.array(shared), np.array([np.mean([values[step] for values in at]) for step in shared])


def curve(name: str, series: Series, colour: str) -> str:
    """One metric over updates: seeds thin, their mean bold; logarithmic where it spans two decades."""
    title, say = MEASURES.get(
        name, (name.replace("_", " ").capitalize(), "Look for a level line at the end.")
    )
    pool = np.concatenate([values[np.isfinite(values)] for _, values in series.values()])
    log = bool(len(pool)) and bool(pool.min() > 0) and float(pool.max() / pool.min()) > 50
    lines = {seed: thinned(steps, values) for seed, (steps, values) in series.items()}
    x = Axis.fit([steps for steps, _ in lines.values()], "updates", include=(0.0,))
    panel = Panel(x, Axis.fit([values for _, values in lines.values()], "log scale" if log else "", log))
    if len(lines) > 1:
        for steps, values in lines.values():
            panel.line(steps, values, colour, thin=True)
    panel.line(*thinned(*mean_line(series)), colour)
    return panel.figure(title, say)


def curves(run: Run, stage: str, colour: str) -> list[str]:
    """All metrics of a stage, the known ones first."""
    found = run.metrics.get(stage, {})
    names = sorted(found, key=lambda name: list(MEASURES).index(name) if name in MEASURES else len(MEASURES))
    return [curve(name, found[name], colour) for name in names]


def result(run: Run, rows: Sequence[Row], wide: bool) -> str:
    """Every policy's mean, interval, seeds and episodes over the data's own distribution of returns."""
    returns = read.floats(run.summaries.get("data", {}).get("returns", []))
    measured = [row for row in rows if row.seeds]
    if not measured:
        return ""
    samples = [tables.last(run.evaluations, row.policy) for row in measured]
    everything = [returns, *(values for sample in samples for values in sample.values())]
    x = Axis.fit(
        everything, "return of an episode", include=(min(0.0, *map(np.min, filter(len, everything))),)
    )
    left, step, top = (176, 60, 128) if wide else (10, 58, 130)
    height = top + step * len(measured) + 40
    panel = Panel(x, Axis(0, 1, ""), 700 if wide else 360, height, left)
    base = step * len(measured) / (height - 58)
    if len(returns):
        counts, edges = np.histogram(returns, 48 if wide else 32, (x.low, x.high))
        panel.histogram(edges, (0.86 - base) * counts / counts.max(), "muted", base=base)
        floor = height - 34 - base * (height - 58) - 6
        panel.text(left - 14 if wide else 350, floor, f"{len(returns):,} logged episodes", "end")
    for index, row in enumerate(row for row in rows if not row.seeds):
        panel.rule(f"{row.label.lower().replace(',', '')} {number(row.mean)}", x=row.mean, row=index)
    for index, (row, sample) in enumerate(zip(measured, samples, strict=True)):
        y = base * (1 - (index + (0.5 if wide else 0.72)) / len(measured))
        colour = COLOURS.get(row.policy, "purple")
        for values in sample.values():
            panel.dots(values, np.full(len(values), y), colour, size="cloud")
        panel.bar(row.low, row.high, y, colour)
        means = np.array([values.mean() for values in sample.values()])
        panel.dots(means, np.full(len(means), y), colour, size="dot")
        panel.dots(np.array([row.mean]), np.array([y]), colour, size="mean")
        middle = top + step * (index + 0.5) if wide else top + step * index + 24
        words = [(left - 14, "end")] if wide else [(left, "start")]
        for u, anchor in words:
            panel.text(u, middle - (2 if wide else 0), row.label, anchor, "strong")
            where = (u, middle + 14, "end") if wide else (350, middle, "end")
            panel.text(where[0], where[1], f"{number(row.mean)} [{tables.span(row.low, row.high)}]", where[2])
    spoken = "; ".join(
        f"{row.label} {number(row.mean)}, 95 % interval {tables.span(row.low, row.high)}" for row in rows
    )
    return panel.svg(f"Mean return: {spoken}.", y_ticks=False, style="wide" if wide else "narrow")


def training(run: Run, rows: Sequence[Row]) -> str:
    """The policy's return over training, seeds thin, mean bold; the last and the best snapshot marked."""
    steps = tables.steps_of(run.evaluations, run.algo)
    if not steps:
        return ""
    colour = COLOURS.get(run.algo, "purple")
    levels = {row.policy: row.mean for row in rows}
    at = {step: tables.at_step(run.evaluations, run.algo, step) for step in steps}
    means = np.array([tables.mean_of_seeds(samples) for samples in at.values()])
    lines = {
        seed: np.array([samples[seed].mean() if seed in samples else np.nan for samples in at.values()])
        for seed in at[steps[-1]]
    }
    xs = np.array(steps, np.float64)
    references = [
        levels[name] for name in ("data_mean", "data_best_decile", "quasi_optimal") if name in levels
    ]
    panel = Panel(
        Axis.fit([xs], "updates of the policy", include=(0.0,)),
        Axis.fit([means, *lines.values()], "return", include=(*references, min(0.0, *references, 0.0))),
    )
    for name, label in (
        ("data_mean", "data"),
        ("data_best_decile", "best decile"),
        ("quasi_optimal", "quasi-optimal"),
    ):
        if name in levels:
            panel.rule(label, y=levels[name])
    for values in lines.values():
        panel.line(xs, values, colour, thin=True)
    panel.line(xs, means, colour, "mean of seeds")
    top = int(np.argmax(means))
    panel.dots(xs[top : top + 1], means[top : top + 1], "green", "best", "mean")
    panel.dots(xs[-1:], means[-1:], colour, "last", "mean")
    if top == len(steps) - 1:
        say = f"Look for the last snapshot to be the best, as it is here: {number(means[-1])}."
    else:
        say = (
            f"The tables report the last snapshot ({number(means[-1])}); look at how far the best of "
            f"{len(steps)} ({number(means[top])}, at {steps[top]:,} updates) lies above it."
        )
    return panel.figure("Return along training", say)
