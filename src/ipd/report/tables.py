"""The result of a run as numbers: means with intervals over seeds and episodes, as text, Markdown, CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ipd.report import read, statistics
from ipd.report.read import Evaluation, Floats, Number, Run

METHODS = {
    "bc": "BC",
    "iql": "IQL",
    "cql": "CQL",
    "rebrac": "ReBRAC",
    "mobile": "MOBILE",
    "dt": "DT",
    "qdt": "QDT",
    "dd": "DD",
    "edt": "EDT",
    "qt": "QT",
    "reinformer": "Reinformer",
    "ipd": "IPD",
}
"""Algorithms, and the policies that they train: names for a reader, in a reader's order."""

LABELS = {
    "data_mean": "Data, mean",
    "data_best_decile": "Data, best decile",
    "cloning": "Behaviour cloning",
    "quasi_optimal": "Quasi-optimal policy",
    "quasi_optimal_refitted": "Quasi-optimal, refitted",
    **METHODS,
    "ipd_reranked": "IPD, actions re-ranked by Q",
}
"""Rows of a run's table: names for a reader, in a reader's order."""

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Row(NamedTuple):
    """One line of the final table; returns in logged units, undiscounted."""

    policy: str
    """A key of LABELS, or the name found in ``evaluations.csv``."""
    mean: float
    low: float
    high: float
    """95 % bootstrap interval of the mean; NaN where there is nothing to resample."""
    normalized: float
    """D4RL scale; NaN for a task without reference values."""
    seeds: int
    """0 for the data."""
    episodes: int

    @property
    def label(self) -> str:
        """The policy in words."""
        return LABELS.get(self.policy, self.policy)


Samples = dict[int, Floats]
"""Returns of one policy: seed to one return an episode."""


def final_table(run: Path | Run) -> list[Row]:
    """The data's mean and best decile, then every policy at its last step; what is missing is left out.

    Raises ReportError for a directory that is no run.
    """
    run = run if isinstance(run, Run) else read.load(run)
    scale = normalisation(run.evaluations)
    rows = data_rows(run, scale)
    for policy in policies(run.evaluations):
        samples = last(run.evaluations, policy)
        low, high = interval(samples)
        mean = mean_of_seeds(samples)
        episodes = sum(len(values) for values in samples.values())
        rows.append(Row(policy, mean, low, high, apply(scale, mean), len(samples), episodes))
    return rows


def data_rows(run: Run, scale: tuple[float, float]) -> list[Row]:
    """The logged data's mean and best decile, logged units; `scale` maps a return to its score."""
    summary = run.summaries.get("data", {})
    if "return" not in summary:
        return []
    returns = read.floats(summary.get("returns", []))
    rows = []
    for policy, mean in (
        ("data_mean", float(summary["return"]["mean"])),
        ("data_best_decile", float(summary["return"]["best_decile"])),
    ):
        share = 1.0 if policy == "data_mean" else 0.1
        low, high = best_share_interval(returns, share)
        rows.append(Row(policy, mean, low, high, apply(scale, mean), 0, max(1, round(share * len(returns)))))
    return rows


def policies(evaluations: Sequence[Evaluation]) -> list[str]:
    """Policies that were evaluated, in a reader's order, unknown ones first."""
    order = list(LABELS)
    names = dict.fromkeys(row.policy for row in evaluations)
    return sorted(names, key=lambda name: order.index(name) if name in order else -1)


def at_step(evaluations: Sequence[Evaluation], policy: str, step: int) -> Samples:
    """Returns of one policy's episodes at one step of training, by seed."""
    found: dict[int, list[float]] = {}
    for row in evaluations:
        if row.policy == policy and row.step == step:
            found.setdefault(row.seed, []).append(row.ret)
    return {seed: np.array(values, np.float64) for seed, values in sorted(found.items())}


def steps_of(evaluations: Sequence[Evaluation], policy: str) -> list[int]:
    """Steps of training at which a policy was evaluated, ascending."""
    return sorted({row.step for row in evaluations if row.policy == policy})


def last(evaluations: Sequence[Evaluation], policy: str) -> Samples:
    """Returns at the policy's last evaluated step."""
    return at_step(evaluations, policy, steps_of(evaluations, policy)[-1])


def best(evaluations: Sequence[Evaluation], policy: str) -> dict[int, tuple[int, float]]:
    """Each seed's best snapshot: seed to (step, mean return). Optimistic."""
    found: dict[int, tuple[int, float]] = {}
    for step in steps_of(evaluations, policy):
        for seed, values in at_step(evaluations, policy, step).items():
            mean = float(values.mean())
            if seed not in found or mean > found[seed][1]:
                found[seed] = (step, mean)
    return dict(sorted(found.items()))


def mean_of_seeds(samples: Samples) -> float:
    """Mean over seeds of each seed's mean over its episodes, so that every seed counts the same."""
    return float(np.mean([values.mean() for values in samples.values()]))


def interval(samples: Samples) -> tuple[float, float]:
    """95 % interval of the mean over seeds and episodes (two-level percentile bootstrap, fixed draws)."""
    if sum(len(values) for values in samples.values()) < 2:
        return math.nan, math.nan
    _, low, high = statistics.mean_interval(list(samples.values()))
    return float(low), float(high)


def difference(ours: Samples, theirs: Samples) -> tuple[float, float, float]:
    """Mean of ours minus mean of theirs with its 95 % interval, the two resampled apart."""
    rng = np.random.default_rng(0)
    first, second = (statistics.resampled_means(list(part.values()), rng) for part in (ours, theirs))
    low, high = np.percentile(first - second, [2.5, 97.5])
    return mean_of_seeds(ours) - mean_of_seeds(theirs), float(low), float(high)


def best_share_interval(returns: Floats, share: float) -> tuple[float, float]:
    """95 % bootstrap interval, over episodes, of the mean of the best ``share`` of them."""
    if len(returns) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    count = max(1, round(share * len(returns)))
    times = statistics.RESAMPLES // 4
    draws = [np.sort(rng.choice(returns, len(returns)))[-count:].mean() for _ in range(times)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def normalisation(evaluations: Sequence[Evaluation]) -> tuple[float, float]:
    """(slope, offset) from return to normalised score, from the two evaluations that lie furthest apart."""
    rows = [row for row in evaluations if math.isfinite(row.normalized)]
    if not rows:
        return math.nan, math.nan
    low, high = min(rows, key=lambda row: row.ret), max(rows, key=lambda row: row.ret)
    if high.ret == low.ret:
        return math.nan, math.nan
    slope = (high.normalized - low.normalized) / (high.ret - low.ret)
    return slope, low.normalized - slope * low.ret


def apply(scale: tuple[float, float], value: Number) -> float:
    """`value` under the line with slope and offset `scale`."""
    return scale[0] * value + scale[1]


def number(value: Number, digits: int = 3) -> str:
    """For a reader: thousands apart, about three figures, a true minus, a dash for what is not known."""
    if not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    size = abs(value)
    if size >= 100 or size == 0 or (value == int(value) and size >= 10):
        text = f"{value:,.0f}"
    elif size >= 1e-3:
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"
    else:
        text, power = f"{value:.{digits - 1}e}".split("e")
        text += f"·10{str(int(power)).translate(SUPERSCRIPT)}"
    return text.replace("-", "−")


def span(low: Number, high: Number) -> str:
    """An interval for a reader."""
    return f"{number(low)} to {number(high)}" if math.isfinite(low) else "–"


HEADER = ("policy", "mean return", "95 % interval", "normalised", "seeds", "episodes")


def cells(row: Row) -> tuple[str, ...]:
    """The row as text: policy, mean, interval, score, seeds, episodes."""
    seeds = str(row.seeds) if row.seeds else "–"
    score = f"{row.normalized:.1f}".replace("-", "−") if math.isfinite(row.normalized) else "–"
    return row.label, number(row.mean), span(row.low, row.high), score, seeds, number(row.episodes)


def format_table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    return aligned(HEADER, [cells(row) for row in rows])


def aligned(header: Sequence[str], lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """Aligned plain text with a rule under the header; the first `words` columns are text."""
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]

    def line(parts: Sequence[str]) -> str:
        sides = [str.ljust] * words + [str.rjust] * (len(widths) - words)
        return "  ".join(side(part, width) for side, part, width in zip(sides, parts, widths, strict=True))

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, lines)])


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    return markdown(HEADER, [cells(row) for row in rows])


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table, the first `words` columns text; a bar in a cell is escaped."""
    rule = "|" + "---|" * words + "---:|" * (len(header) - words)
    text = ["| " + " | ".join(part.replace("|", "\\|") for part in line) + " |" for line in (header, *lines)]
    return "\n".join([text[0], rule, *text[1:]])


def csv_table(rows: Sequence[Row]) -> str:
    """CSV with full digits: policy,mean,low,high,normalized,seeds,episodes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows([[f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows])
    return out.getvalue()


def by_seed(evaluations: Sequence[Evaluation]) -> list[Mapping[str, float | str]]:
    """One entry a policy and seed: last step's mean, std, least, most, and the best snapshot."""
    scale = normalisation(evaluations)
    entries: list[Mapping[str, float | str]] = []
    for policy in policies(evaluations):
        step, tops = steps_of(evaluations, policy)[-1], best(evaluations, policy)
        for seed, values in last(evaluations, policy).items():
            entries.append(
                {
                    "policy": LABELS.get(policy, policy),
                    "seed": seed,
                    "step": step,
                    "episodes": len(values),
                    "mean": float(values.mean()),
                    "std": float(values.std()),
                    "min": float(values.min()),
                    "max": float(values.max()),
                    "normalized": apply(scale, float(values.mean())),
                    "best_step": tops[seed][0],
                    "best_mean": tops[seed][1],
                }
            )
    return entries
