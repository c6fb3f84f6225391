"""The first screen of a run's page: the result, and what speaks for and against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from ipd.report import figures, tables, truth
from ipd.report.imagination import Seed, average
from ipd.report.parts import html_table, missing
from ipd.report.plot import percent
from ipd.report.read import Run, floats
from ipd.report.tables import Row, number, span


def verdict(rows: Sequence[Row], algo: str) -> str:
    """The page's headline: is the policy better than the data, and by how much."""
    found = {row.policy: row for row in rows}
    ours, data = found.get(algo), found.get("data_mean")
    if ours is None:
        return "Not evaluated yet"
    if data is None:
        return f"{ours.label} returns {number(ours.mean)}"
    low, high = (ours.low, ours.high) if math.isfinite(ours.low) else (ours.mean, ours.mean)
    if low > data.mean:
        if data.mean > 0:
            return f"Better than its data: {number(ours.mean / data.mean, 2)} times the mean return"
        return f"Better than its data: {number(ours.mean - data.mean)} above the mean return"
    if high < data.mean:
        return f"Worse than its data: {number(data.mean - ours.mean)} below the mean return"
    return "No better than its data, as far as these episodes can tell"


def story(run: Run, rows: Sequence[Row]) -> str:
    """The headline in a paragraph with intervals."""
    found = {row.policy: row for row in rows}
    ours = found.get(run.algo)
    if ours is None:
        return ""
    seeds = f"{ours.seeds} seed{'s' if ours.seeds != 1 else ''}"
    text = (
        f"Over {seeds} and {ours.episodes} episodes in the real task, {ours.label} returns "
        f"{number(ours.mean)} (95 % interval {span(ours.low, ours.high)})."
    )
    if "data_mean" in found:
        mean, top = found["data_mean"].mean, found["data_best_decile"].mean
        text += f" The data it learned from averages {number(mean)}; the best tenth of it, {number(top)}."
    return text


def checks(run: Run, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(yes | no | open, sentence): what speaks for the headline and what against it."""
    found = {row.policy: row for row in rows}
    ours = found.get(run.algo)
    if ours is None:
        return []
    items = []
    samples = tables.last(run.evaluations, run.algo)
    if "data_mean" in found:
        level = found["data_mean"].mean
        above = sum(float(values.mean()) > level for values in samples.values())
        text = f"{above} of {len(samples)} seeds are above the data's mean"
        items.append(("yes" if above == len(samples) > 1 else "no", text))
        top = found["data_best_decile"].mean
        beats = "lies above" if ours.low > top else "does not clear"
        items.append(
            ("yes" if ours.low > top else "no", f"the interval {beats} the data's best decile, {number(top)}")
        )
    names = {"cloning": "behaviour cloning", "quasi_optimal": "the quasi-optimal policy that guided it",
             "quasi_optimal_refitted": "the quasi-optimal policy of the refitted values"}  # fmt: skip
    for policy, name in names.items():
        if policy in found:
            gain, low, high = tables.difference(samples, tables.last(run.evaluations, policy))
            state = "yes" if low > 0 else "no"
            side = f"{number(abs(gain))} {'above' if gain >= 0 else 'below'}"
            items.append((state, f"{side} {name} (95 % interval {span(low, high)})"))
    if run.algo != "ipd":  # nothing was imagined
        return items
    return items + truth_checks(run.summaries.get("audit", {}).get("seeds", []))


def wrong(run: Run) -> list[tuple[str, str]]:
    """Seeds that were stopped, and warnings with their cures; seeds of one warning on one line."""
    items = [
        ("no", f"seed {seed} was stopped in the stage {stage}: {text}; its results are left out")
        for stage, seeds in run.failed.items()
        for seed, text in seeds.items()
    ]
    for stage, summary in run.summaries.items():
        for warning in summary.get("warnings", []):
            if "seed" in warning:
                text = f"{stage}, seed {warning['seed']}: {warning['what']}. Try {warning['cure']}"
            else:  # the data are every seed's
                text = f"{stage}, {warning['what']}; {warning['cure']}"
            items.append(("no", text))
    return items


def truth_checks(seeds: Sequence[Seed]) -> list[tuple[str, str]]:
    """The audit's part of the checks; open where there is none."""
    if not seeds:
        return [("open", "whether imagined returns come true is not checked yet: ipd audit RUN")]
    items = []
    errors = floats(seed.get("replay_error") for seed in seeds)
    if np.isfinite(errors).all():
        worst = float(errors.max())
        text = (
            f"recorded actions replay {f'to within {number(worst)}' if worst else 'exactly'} in the simulator"
        )
        items.append(("yes" if worst < 1e-3 else "no", text))
    for states, enough in (("chosen", 0.95), ("random", 0.7)):
        rows = truth.rows_of(seeds, states, "mpc")
        better = average(row.get("better") for row in rows)
        if math.isfinite(better):
            rank = truth.rank_correlation(seeds, states, "mpc")
            text = f"plans from {states} states truly pay more in {percent(better)} of cases"
            text += f" (rank correlation of imagined with true return {rank})"
            items.append(("yes" if better >= enough else "no", text))
    return items


def first_screen(run: Run, rows: Sequence[Row]) -> str:
    """Headline, chart, table and checks."""
    task = run.manifest.get("task")
    named = {"task": task.get("id") if isinstance(task, dict) else task, **run.summaries.get("data", {})}
    title = "Imaginary Planning Distillation" if run.algo == "ipd" else tables.LABELS.get(run.algo, run.algo)
    words = (title, named["task"], named.get("source"))
    kicker = " · ".join(str(word) for word in words if word)
    chart = figures.result(run, rows, wide=True) + figures.result(run, rows, wide=False)
    chart = f'<figure class="hero">{chart}<figcaption>{RESULT_SAY}</figcaption></figure>' if chart else ""
    lines = [tables.cells(row)[:4] for row in rows]
    table = html_table("Mean return of an episode", tables.HEADER[:4], lines) if rows else ""
    if run.taskless:
        if "judge" not in run.summaries:
            table += missing("what the policy is worth without a simulator", "ipd judge RUN")
    elif run.algo not in {row.policy for row in rows}:
        table += missing("returns in the real task", "ipd evaluate RUN")
    marks = {"yes": "✓", "no": "✗", "open": "○"}
    spoken = {"yes": "Yes", "no": "No", "open": "Open"}
    believe = "".join(
        f'<li class="{state}"><span role="img" aria-label="{spoken[state]}:">{marks[state]}</span>'
        f"{escape(text[0].upper() + text[1:])}</li>"
        for state, text in wrong(run) + checks(run, rows)
    )
    believe = f'<div class="believe"><h2>Can I believe it?</h2><ul>{believe}</ul></div>' if believe else ""
    head = f'<p class="kicker">{escape(kicker)}</p><h1>{escape(verdict(rows, run.algo))}</h1>'
    lead = f'<p class="lead">{escape(story(run, rows))}</p>'
    first = f'<div class="first">{chart}<div>{table}{believe}</div></div>'
    return f'<header id="result">{head}{lead}{first}</header>'


RESULT_SAY = (
    "Look for a policy whose whole bar lies right of the dashed lines. Large dot: mean; bar: 95 % interval "
    "over seeds and episodes; small dots: seeds; faint dots: episodes. Grey: returns of the logged episodes."
)
