"""The sections of the page in a reader's order, and what is said where a part is not there yet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from ipd.report import figures, imagination, tables, truth
from ipd.report.imagination import Seed, average, having
from ipd.report.plot import percent
from ipd.report.read import Run, floats
from ipd.report.tables import Row, number, span

TRAIN = "ipd train --out RUN"
TRAIN_AGAIN = "the same ipd train command again"


class Section(NamedTuple):
    anchor: str
    title: str
    lead: str
    """One or two sentences, plain text."""
    body: str
    """HTML."""


def missing(what: str, command: str) -> str:
    """The note that stands where a part of the run is not made yet."""
    return f'<p class="missing"><b>Not yet:</b> {escape(what)}. <code>{escape(command)}</code> makes it.</p>'


def grid(*parts: str) -> str:
    """Figures side by side where there is room; "" without any."""
    shown = [part for part in parts if part]
    columns = "two" if len(shown) in (2, 4) else "three"
    return f'<div class="grid {columns}">{"".join(shown)}</div>' if shown else ""


def html_table(
    caption: str,
    header: Sequence[str],
    lines: Iterable[Sequence[str]],
    words: int = 1,
    heads: Sequence[int] = (),
) -> str:
    """A table in a box that scrolls by itself; the first `words` columns are text, the rest numbers.

    Each line of `heads` begins a block: it stands out, the others step back.
    """

    def row(cells: Sequence[str], tag: str, style: str = "") -> str:
        styles = (' class="word"' if index < words else "" for index in range(len(cells)))
        return (
            f"<tr{style}>"
            + "".join(f"<{tag}{s}>{escape(c)}</{tag}>" for s, c in zip(styles, cells, strict=True))
            + "</tr>"
        )

    kinds = (' class="head"', ' class="more"') if heads else ("", "")
    body = "".join(row(line, "td", kinds[index not in heads]) for index, line in enumerate(lines))
    name = f'aria-label="{escape(caption)}"'
    table = f"<table {name}><thead>{row(header, 'th')}</thead><tbody>{body}</tbody></table>"
    box = f'<div class="scroll" tabindex="0" role="region" {name}>{table}</div>'
    return f'<div class="table"><p class="caption">{escape(caption)}</p>{box}</div>'


def verdict(rows: Sequence[Row]) -> str:
    """The page's headline: is the policy better than the data, and by how much."""
    found = {row.policy: row for row in rows}
    ours, data = found.get("ipd"), found.get("data_mean")
    if ours is None:
        return "Not evaluated yet"
    if data is None:
        return f"IPD returns {number(ours.mean)}"
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
    ours = found.get("ipd")
    if ours is None:
        return ""
    seeds = f"{ours.seeds} seed{'s' if ours.seeds != 1 else ''}"
    text = (
        f"Over {seeds} and {ours.episodes} episodes in the real task, IPD returns {number(ours.mean)} "
        f"(95 % interval {span(ours.low, ours.high)})."
    )
    if "data_mean" in found:
        mean, top = found["data_mean"].mean, found["data_best_decile"].mean
        text += f" The data it learned from averages {number(mean)}; the best tenth of it, {number(top)}."
    return text


def checks(run: Run, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(yes | no | open, sentence): what speaks for the headline and what against it."""
    found = {row.policy: row for row in rows}
    ours = found.get("ipd")
    if ours is None:
        return []
    items = []
    samples = tables.last(run.evaluations, "ipd")
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
    return items + truth_checks(run.summaries.get("audit", {}).get("seeds", []))


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
    words = ("Imaginary Planning Distillation", named["task"], named.get("source"))
    kicker = " · ".join(str(word) for word in words if word)
    chart = figures.result(run, rows, wide=True) + figures.result(run, rows, wide=False)
    chart = f'<figure class="hero">{chart}<figcaption>{RESULT_SAY}</figcaption></figure>' if chart else ""
    lines = [tables.cells(row)[:4] for row in rows]
    table = html_table("Mean return of an episode", tables.HEADER[:4], lines) if rows else ""
    if "ipd" not in {row.policy for row in rows}:
        table += missing("returns in the real task", "ipd evaluate RUN")
    marks = {"yes": "✓", "no": "✗", "open": "○"}
    spoken = {"yes": "Yes", "no": "No", "open": "Open"}
    believe = "".join(
        f'<li class="{state}"><span role="img" aria-label="{spoken[state]}:">{marks[state]}</span>'
        f"{escape(text[0].upper() + text[1:])}</li>"
        for state, text in checks(run, rows)
    )
    believe = f'<div class="believe"><h2>Can I believe it?</h2><ul>{believe}</ul></div>' if believe else ""
    head = f'<p class="kicker">{escape(kicker)}</p><h1>{escape(verdict(rows))}</h1>'
    lead = f'<p class="lead">{escape(story(run, rows))}</p>'
    first = f'<div class="first">{chart}<div>{table}{believe}</div></div>'
    return f'<header id="result">{head}{lead}{first}</header>'


RESULT_SAY = (
    "Look for a policy whose whole bar lies right of the dashed lines. Large dot: mean; bar: 95 % interval "
    "over seeds and episodes; small dots: seeds; faint dots: episodes. Grey: returns of the logged episodes."
)


def all_sections(run: Run, rows: Sequence[Row]) -> list[Section]:
    """Everything beneath the first screen."""
    return [training(run, rows), world(run), augmentation(run), audit(run), evaluations(run), about(run)]


def training(run: Run, rows: Sequence[Row]) -> Section:
    """Learning curves of every stage."""
    body, along = "", figures.training(run, rows)
    for stage, title, colour in (
        ("value", "Values and the quasi-optimal policy", "blue"),
        ("world", "World model", "green"),
        ("cloning", "Behaviour cloning", "gold"),
        ("refit", "Values refitted on the enriched data", "blue"),
        ("policy", "IPD policy", "orange"),
    ):
        if stage == "refit" and stage not in run.metrics:  # only where values were refitted
            continue
        drawn = [along] * (stage == "policy") + figures.curves(run, stage, colour)
        body += f"<h3>{title}</h3>" + (grid(*drawn) or missing(f"the stage “{stage}”", TRAIN_AGAIN))
        if stage == "policy" and not along:
            body += missing("IPD's return along training", "ipd evaluate RUN")
    lead = "Every stage over its updates. Thin lines are seeds, the bold line is their mean."
    return Section("training", "Learning", lead, body)


def world(run: Run) -> Section:
    """The world model against held-out episodes."""
    seeds = run.summaries.get("world", {}).get("seeds", [])
    parts = (imagination.one_step, imagination.depth_error, imagination.calibration, imagination.uncertainty)
    body = grid(*(part(seeds) for part in parts))
    if not body:
        body = missing("the world model's account of held-out episodes", TRAIN_AGAIN)
    ranked = having(seeds, "ranking")
    if ranked:
        depths = sorted(
            {depth for seed in ranked for each in seed["ranking"].values() for depth in each}, key=int
        )
        lines = [
            [
                name.replace("_", ", "),
                *(number(average(s["ranking"].get(name, {}).get(d) for s in ranked)) for d in depths),
            ]
            for name in ranked[0]["ranking"]
        ]
        caption = "How well each measure of uncertainty ranks the true error (Spearman, mean of seeds)"
        body += html_table(
            caption, ["uncertainty, over pairs", *(f"depth {depth}" for depth in depths)], lines
        )
    fields = (("κ", "kappa"), ("accepted held-out", "accepted_held_out"), ("reward R²", "reward_r2"))
    body += per_seed(run, "The world model by seed", seeds, fields)
    lead = "On episodes it has never seen: how far it can be followed, and whether it knows where not to be."
    return Section("world", "The world model", lead, body)


def augmentation(run: Run) -> Section:
    """Where the data was improved, and by how much."""
    seeds = run.summaries.get("augment", {}).get("seeds", [])
    body = grid(*(part(seeds) for part in (imagination.when, imagination.gaps, imagination.before_after)))
    if not body:
        body = missing("imagined segments", TRAIN_AGAIN)
    fields = tuple(
        (name.replace("_", " "), name)
        for name in ("candidates", "selected", "kept_segments", "kept_steps", "accepted_first", "mean_length")
    )
    body += per_seed(run, "Counts by seed", seeds, fields)
    lead = "Where planning in the model promised more than the log holds, an imagined segment joins the data."
    return Section("augmentation", "Augmentation", lead, body)


def per_seed(run: Run, caption: str, seeds: Sequence[Seed], fields: Sequence[tuple[str, str]]) -> str:
    """One line a seed with the fields that any of them has."""
    fields = [(label, name) for label, name in fields if having(seeds, name)]
    if not fields:
        return ""
    names = run.manifest.get("seeds")
    names = names if isinstance(names, list) and len(names) == len(seeds) else range(len(seeds))
    lines = [
        [str(name), *(number(average([seed.get(field)])) for _, field in fields)]
        for name, seed in zip(names, seeds, strict=True)
    ]
    return html_table(caption, ["seed", *(label for label, _ in fields)], lines)


def audit(run: Run) -> Section:
    """Imagined plans replayed in the simulator."""
    seeds = run.summaries.get("audit", {}).get("seeds", [])
    chosen, random = ((truth.scatter(seeds, s), truth.by_depth(seeds, s)) for s in ("chosen", "random"))
    body = grid(*chosen, truth.observation_error(seeds), *random, truth.reliable(seeds))
    if truth.kinds(seeds):
        caption = "Imagined plans replayed in the simulator (returns scaled)"
        body += html_table(caption, *truth.table(seeds), words=2)
    lead = "Plans made in imagination, replayed in the real simulator from the same states: did they pay?"
    return Section(
        "truth", "Truth check", lead, body or missing("the replay of imagined plans", "ipd audit RUN")
    )


def evaluations(run: Run) -> Section:
    """Every policy and seed: the last snapshot, and the best beside it."""
    header = (
        "policy",
        "seed",
        "updates",
        "episodes",
        "mean",
        "std",
        "min",
        "max",
        "normalised",
        "best",
        "at",
    )
    keys = ("step", "episodes", "mean", "std", "min", "max", "normalized", "best_mean", "best_step")
    lines = [
        [str(entry["policy"]), str(entry["seed"]), *(number(float(entry[key])) for key in keys)]
        for entry in tables.by_seed(run.evaluations)
    ]
    body = html_table("Returns by policy and seed, in the task's own units", header, lines)
    lead = (
        "The last snapshot of every seed, and beside it the best one. The best is picked by the very returns "
        "it shows, so it flatters; the headline uses the last."
    )
    return Section(
        "evaluations", "Every seed", lead, body if lines else missing("evaluations", "ipd evaluate RUN")
    )


def flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    """A nested JSON object as (dotted key, text) pairs; lists of scalars on one line."""
    if isinstance(value, dict):
        parts = ((f"{path}.{key}" if path else str(key), part) for key, part in value.items())
        return [pair for key, part in parts for pair in flat(part, key)]
    if isinstance(value, list):
        return [(path, ", ".join(map(str, value)) or "none")]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [(path, number(value) if is_number else str(value))]


def about(run: Run) -> Section:
    """Data, versions and settings: what to quote, and how to make it again."""
    data = {k: v for k, v in run.summaries.get("data", {}).items() if k not in ("returns", "lengths")}
    body = facts("Data", data) if data else missing("a description of the data", TRAIN)
    body += facts("Manifest", run.manifest) if run.manifest else missing("the manifest", TRAIN)
    if run.config:
        text = f'<pre tabindex="0">{escape(run.config)}</pre>'
        body += f"<details open><summary>config.yaml</summary>{text}</details>"
    else:
        body += missing("config.yaml", TRAIN)
    return Section("run", "The run", "What went in: data, versions, settings.", body)


def facts(title: str, values: dict[str, Any]) -> str:
    """A list of names and values."""
    pairs = flat(values)
    items = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(text)}</dd></div>" for key, text in pairs)
    return f'<h3>{escape(title)}</h3><dl class="facts">{items}</dl>'
