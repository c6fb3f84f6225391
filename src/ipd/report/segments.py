"""Imagined segments step by step: beside the log, with what was considered at each step.

Which step is shown is the choice of a radio button; the style does the rest, so the page needs no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from ipd.report.parts import Section, document, grid, html_table
from ipd.report.plot import Axis, Panel
from ipd.report.read import Floats, floats
from ipd.report.tables import number

Segment = dict[str, Any]
"""One entry of ``segments`` in the summary of the stage ``view``, logged units."""

LEAD = (
    "From the states of each episode where the model expects most of the policy beside the log, the planner "
    "looked ahead in the model at every step and took the first action of the best plan. Returns are "
    "discounted, with V behind the last step. Choose a step (arrow keys go on to the next) to see what it "
    "weighed."
)
ENDS = {
    "whole": "The segment is whole; its length is {length}.",
    "terminated": "The segment ends after step {length} of {of}, where the model sees the episode end.",
    "unreliable": "The segment ends after step {length} of {of}: from there no plan begins in the reliable "
    "part of the model (U below κ).",
}


def section(view: dict[str, Any]) -> Section | None:
    """The section of a run's page; None for a run that imagined nothing worth showing."""
    if not view.get("segments"):
        return None
    return Section("segments", "Segments, step by step", LEAD, body(view["segments"], float(view["kappa"])))


def page(run: str, view: dict[str, Any]) -> str:
    """A page of segments alone; `run` names the run."""
    several, seed = view["segments"], view["seed"]
    header = (
        f"<h1>{len(several)} imagined segment{'s' * (len(several) > 1)}</h1>"
        f'<p class="kicker">{escape(run)}, seed {seed}; returns are discounted, in the task\'s own units</p>'
    )
    found = section(view)
    return document(f"Imagined segments of {run}", header, [] if found is None else [found])


def body(segments: Sequence[Segment], kappa: float) -> str:
    """All segments, the first one open."""
    steps = max(map(_shown, segments))
    rules = "".join(
        f'.segment:has([value="{t}"]:checked) .at-{t} {{ display: revert; }}\n' for t in range(steps)
    )
    parts = "".join(_one(number, segment, kappa) for number, segment in enumerate(segments))
    return f"<style>\n{rules}</style>{parts}"


def _shown(segment: Segment) -> int:
    """Steps that can be chosen: the one at which imagination stopped for doubt is among them."""
    return len(segment["plans"])


def _one(place: int, segment: Segment, kappa: float) -> str:
    imagined, real = number(segment["imagined_return"]), number(segment["real_return"])
    why = str(segment["why"])
    title = (
        f"{why[:1].upper()}{why[1:]}: episode {segment['episode']}, step {segment['step']}: "
        f"{imagined} expected of the policy, {real} in the log"
    )
    buttons = "".join(
        f"<label{' class=stop' * (t == segment['length'])}>"
        f'<input type="radio" name="segment-{place}" value="{t}"{" checked" * (t == 0)}>{t + 1}</label>'
        for t in range(_shown(segment))
    )
    end = ENDS[segment["end"]].format(length=segment["length"], of=segment["imagine_steps"])
    tables = "".join(f'<div class="at at-{t}">{_plans(segment, t)}</div>' for t in range(_shown(segment)))
    panels = [_collected(segment), _value(segment), _uncertainty(segment, kappa)]
    panels += [_dimension(segment, at) for at in range(len(segment["dimensions"]))]
    return (
        f'<details class="segment"{" open" * (place == 0)}><summary>{escape(title)}</summary>'
        f"<p>{escape(end)}</p>"
        '<div class="steps" role="radiogroup" aria-label="Step of the segment"><span>Step</span>'
        f"{buttons}</div>"
        f"{tables}{grid(*panels)}</details>"
    )


def _discounted(segment: Segment, rewards: Floats) -> Floats:
    """Reward collected after 0, 1, 2, ... steps, discounted from the segment's start."""
    weights = segment["discount"] ** np.arange(len(rewards))
    return np.concatenate([[0.0], np.cumsum(weights * rewards)])


def _from_here(segment: Segment, t: int) -> float:
    """What the log promises from its step t on: its discounted rewards, and V behind the last."""
    rewards, value = floats(segment["log"]["rewards"])[t:], floats(segment["log"]["value"])
    behind = 0.0 if segment["log"]["ended"] else value[-1]
    return float(_discounted(segment, rewards)[-1] + segment["discount"] ** len(rewards) * behind)


def _plans(segment: Segment, t: int) -> str:
    """What was weighed at step t, as a table."""
    plan, names = segment["plans"][t], segment["action_dimensions"]
    logged = segment["log"]["actions"]
    lines = []
    if t < len(logged):
        # Behind the first step the log is in a state of its own.
        label = "the log" if t == 0 else "the log, from its own state"
        lines.append([label, number(_from_here(segment, t)), "–", *map(number, floats(logged[t]))])
    taken = plan["best"] if plan["usable"] else None
    promised = _promised(floats(plan["score"]))
    for at, (score, length, action) in enumerate(zip(promised, plan["length"], plan["actions"], strict=True)):
        label = f"plan {at + 1}" + (", the policy's own" if at == 0 else "")
        label += ", taken" if at == taken else ""
        lines.append(
            [label, score, str(length) + (", ends" if plan["ended"][at] else ""),
             *map(number, floats(action))]
        )  # fmt: skip
    more = plan["considered"] - len(plan["score"])
    count = f"{plan['usable']} of {plan['considered']} plans begin inside the reliable part"
    caption = f"Step {t + 1}: {count}" + (f", {more} more are not shown" if more else "")
    bold = {} if taken is None else {len(lines) - len(plan["score"]) + taken: 1}
    return html_table(caption, ["", "promised return", "reliable steps", *names], lines, bold=bold)


def _promised(scores: Floats) -> list[str]:
    """Scores of plans, with the decimals that it takes to tell the best from the next, at most four."""
    texts, ranked = [number(score) for score in scores], np.argsort(-np.nan_to_num(scores, nan=-np.inf))
    for decimals in range(5):
        if len(scores) < 2 or texts[ranked[0]] != texts[ranked[1]]:
            break
        texts = [
            f"{score:,.{decimals}f}".replace("-", "−") if np.isfinite(score) else "–" for score in scores
        ]
    return texts


def _draw(segment: Segment, y: Axis, log: Floats, model: Floats, plans: list[list[Floats]]) -> Panel:
    """Log and imagination, and for each step what its plans would bring, the one that was taken on top."""
    ahead = max(t + int(max(plan["length"])) for t, plan in enumerate(segment["plans"]))
    panel = Panel(Axis(0, float(max(ahead, segment["imagine_steps"])), "steps from the start", whole=True), y)
    panel.line(np.arange(len(log), dtype=np.float64), log, "blue", "logged")
    panel.line(np.arange(len(model), dtype=np.float64), model, "orange", "imagined")
    panel.dots(np.arange(len(model), dtype=np.float64), model, "orange")
    for t, ways in enumerate(plans):
        best = segment["plans"][t]["best"] if segment["plans"][t]["usable"] else None
        with panel.group(f"at at-{t}"):
            panel.line(np.full(2, float(t)), np.array([y.low, y.high]), "muted", thin=True)
            order = [at for at in range(len(ways)) if at != best] + ([] if best is None else [best])
            for at in order:
                label = "plan taken" if at == best else "other plans"
                xs = t + np.arange(len(ways[at]), dtype=np.float64)
                panel.line(xs, ways[at], "purple" if at == best else "muted", label, dash=at != best)
    return panel


def _reach(plan: dict[str, Any], at: int) -> int:
    """Steps of a plan until it leaves the reliable part."""
    return int(plan["length"][at])


def _collected(segment: Segment) -> str:
    log, model = (_discounted(segment, floats(segment[side]["rewards"])) for side in ("log", "model"))
    plans = []
    for t, plan in enumerate(segment["plans"]):
        base, weight = model[t], segment["discount"] ** t
        plans.append(
            [base + weight * _discounted(segment, floats(rewards))[: _reach(plan, at) + 1]
             for at, rewards in enumerate(plan["rewards"])]
        )  # fmt: skip
    every = [log, model, *(way for ways in plans for way in ways)]
    panel = _draw(segment, Axis.fit(every, "reward collected, discounted", include=(0.0,)), log, model, plans)
    return panel.figure("Reward on the way", "Look for the imagined line to rise faster than the logged one.")


def _value(segment: Segment) -> str:
    log, model = (floats(segment[side]["value"]).copy() for side in ("log", "model"))
    for values, ended in ((log, segment["log"]["ended"]), (model, segment["end"] == "terminated")):
        values[-1] *= not ended  # behind an end there is nothing to come
    plans = []
    for t, plan in enumerate(segment["plans"]):
        ways = []
        for at, end in enumerate(plan["end_value"]):
            reach = _reach(plan, at)
            way = np.full(reach + 1, np.nan)
            way[0], way[-1] = model[t], 0.0 if plan["ended"][at] else end
            held = np.isfinite(way)
            ways.append(np.interp(np.arange(reach + 1), np.flatnonzero(held), way[held]))
        plans.append(ways)
    every = [log, model, *(way for ways in plans for way in ways)]
    panel = _draw(segment, Axis.fit(every, "V of the state"), log, model, plans)
    say = (
        "Look for V to hold up along the imagined line; a plan goes straight to V where it is cut, "
        "to 0 where the episode ends."
    )
    return panel.figure("What the states are worth", say)


def _uncertainty(segment: Segment, kappa: float) -> str:
    log, model = (floats(segment[side]["uncertainty"]) / kappa for side in ("log", "model"))
    plans = [
        # the pair that was refused is shown; behind an end there was none
        [floats(way)[: _reach(plan, at) + (not plan["ended"][at])] / kappa
         for at, way in enumerate(plan["uncertainty"])]
        for plan in segment["plans"]
    ]  # fmt: skip
    top = max(1.5, 1.1 * float(np.nanmax(np.concatenate([log, model]))))
    panel = _draw(segment, Axis(0.0, min(top, 4.0), "uncertainty U / κ"), log, model, plans)
    panel.rule("κ", y=1.0)
    say = "Look for lines beneath κ: a plan is cut where it crosses, and V stands for the rest."
    return panel.figure("How sure the model is", say)


def _dimension(segment: Segment, at: int) -> str:
    name = str(segment["dimensions"][at])
    log, model = (floats(row[at] for row in segment[side]["observations"]) for side in ("log", "model"))
    plans = [
        [floats(row[at] for row in way[: _reach(plan, number) + 1])
         for number, way in enumerate(plan["observations"])]
        for plan in segment["plans"]
    ]  # fmt: skip
    every = [log, model, *(way for ways in plans for way in ways)]
    panel = _draw(segment, Axis.fit(every, name), log, model, plans)
    say = "Imagination and log part most in dimensions like this: look for values that could be real."
    return panel.figure(name, say)
