"""The sections of a run's page in a reader's order."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ipd.report import figures, imagination, off_policy, segments, tables, truth
from ipd.report.imagination import Seed, average, having
from ipd.report.parts import Section, grid, html_table, missing
from ipd.report.read import Run
from ipd.report.tables import Row, number

TRAIN = "ipd train --out RUN"
TRAIN_AGAIN = "the same ipd train command again"

STAGES = {
    "value": ("Values and the quasi-optimal policy", "blue"),
    "world": ("World model", "green"),
    "cloning": ("Behaviour cloning", "gold"),
    "refit": ("Values refitted on the enriched data", "blue"),
    "policy": ("IPD policy", "orange"),
}
"""Stage -> title and colour of its curves; a baseline's own stage has the baseline's name."""


def all_sections(run: Run, rows: Sequence[Row]) -> list[Section]:
    """Everything beneath the first screen; a baseline's page has only what a baseline learns."""
    steps = segments.section(run.summaries.get("view", {}))
    imagined = [world(run), augmentation(run), *([steps] if steps else [])]
    imagined += [] if run.taskless else [audit(run)]
    if run.algo != "ipd":
        imagined = [world(run)] if "world" in run.summaries else []
    judged = off_policy.section(run)
    tried = [] if run.taskless else [evaluations(run)]
    return [training(run, rows), *imagined, *([judged] if judged else []), *tried, about(run)]


def training(run: Run, rows: Sequence[Row]) -> Section:
    """Learning curves of every stage."""
    body, along, stages = "", figures.training(run, rows), stages_of(run)
    for stage in stages:
        title, colour = STAGES.get(stage, (tables.LABELS.get(stage, stage), "purple"))
        acts = stage == stages[-1]
        drawn = [along] * acts + figures.curves(run, stage, colour)
        body += f"<h3>{title}</h3>" + (grid(*drawn) or missing(f"the stage “{stage}”", TRAIN_AGAIN))
        if acts and not along and not run.taskless:
            name = tables.LABELS.get(run.algo, run.algo)
            body += missing(f"{name}'s return along training", "ipd evaluate RUN")
    lead = "Every stage over its updates. Thin lines are seeds, the bold line is their mean."
    return Section("training", "Learning", lead, body)


def stages_of(run: Run) -> list[str]:
    """Stages whose curves are shown; the last one's policy acts. Of a baseline, those that have any."""
    if run.algo == "ipd":
        return [stage for stage in STAGES if stage != "refit" or stage in run.metrics]
    return sorted(
        run.metrics, key=lambda stage: list(STAGES).index(stage) if stage in STAGES else len(STAGES)
    )


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
    body += facts("Manifest", manifest_of(run)) if run.manifest else missing("the manifest", TRAIN)
    for stage in ("evaluate", "audit"):
        told = run.summaries.get(stage, {}).get("versions")
        body += facts(f"Simulator, stage {stage}", told) if told else ""
    if run.config:
        text = f'<pre tabindex="0">{escape(run.config)}</pre>'
        body += f"<details open><summary>config.yaml</summary>{text}</details>"
    else:
        body += missing("config.yaml", TRAIN)
    return Section("run", "The run", "What went in: data, versions, settings.", body)


def manifest_of(run: Run) -> dict[str, Any]:
    """The manifest, less the versions that the evaluation tells of itself: they may be later ones."""
    told, versions = run.summaries.get("evaluate", {}).get("versions", {}), run.manifest.get("versions", {})
    return run.manifest | {"versions": {k: v for k, v in versions.items() if k not in told}}


def facts(title: str, values: dict[str, Any]) -> str:
    """A list of names and values."""
    pairs = flat(values)
    items = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(text)}</dd></div>" for key, text in pairs)
    return f'<h3>{escape(title)}</h3><dl class="facts">{items}</dl>'
