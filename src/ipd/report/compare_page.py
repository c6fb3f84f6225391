"""``comparison.html`` and its tables: many runs beside each other, readable without a network or scripts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ipd.report import compare, compare_ablations, compare_figures, compare_tables, compare_versions, page
from ipd.report.compare import ENOUGH_SEEDS, Comparison, Standing
from ipd.report.compare_read import Dataset
from ipd.report.compare_tables import MOMENTS, bounds, digits, estimate
from ipd.report.parts import Section, document, grid, html_table, missing
from ipd.report.statistics import Interval

MOST_SAID = 3
MANY_SEEDS = 5
"""From so many on, intervals over runs go without a caution."""
BETTER = 0.75
"""Probability of improvement from which one speaks of an improvement."""


def write(comparison: Comparison, out: Path) -> Path:
    """Writes comparison.html, table.md, table.csv, table.tex and comparison.csv into ``out``.

    Equal runs give equal bytes. Returns the page's path.
    """
    out.mkdir(parents=True, exist_ok=True)
    page.put(out / "table.md", compare_tables.markdown(comparison))
    page.put(out / "table.csv", compare_tables.csv_methods(comparison))
    page.put(out / "table.tex", compare_tables.latex(comparison))
    page.put(out / "comparison.csv", compare_tables.csv_seeds(comparison))
    return page.put(out / "comparison.html", render(comparison))


def render(comparison: Comparison) -> str:
    """The page as HTML."""
    parts = [scores(comparison), profiles(comparison), variants(comparison), volume(comparison),
             prompts(comparison), runs(comparison)]  # fmt: skip
    return document(verdict(comparison), first_screen(comparison), parts)


def verdict(comparison: Comparison) -> str:
    """The headline: where IPD stands among the methods, by IQM.

    It leads only where it is told apart from every other method, those with missing data sets too.
    """
    found = compare.standings(comparison)
    ranked = sorted(((s.iqm.point, s.algo) for s in found if s.iqm is not None), reverse=True)
    order = [algo for _, algo in ranked]
    if not comparison.algos:
        return f"Variants only, on {_sets(comparison.datasets)}: nothing to rank"
    if compare.OURS not in order or len(order) < 2:
        return (
            f"{_count(len(comparison.algos), 'method')} on {_sets(comparison.datasets)}, "
            f"{_count(len(comparison.entries), 'run')}"
        )
    place = order.index(compare.OURS)
    rival = order[int(not place)]  # the best of the others
    name, ours, theirs = compare.name_of(rival), digits(ranked[place][0]), digits(ranked[int(not place)][0])
    (chance,) = (s.improvement for s in found if s.algo == rival and s.improvement)
    number = f"IPD is number {place + 1} of {len(order)} methods"
    if math.isnan(chance.low):
        return f"{number}, with too few seeds to tell them apart: {ours}, {name} {theirs}"
    if place and chance.high < 0.5:
        return f"{number}: {ours}, behind {name}'s {theirs}"
    if place:
        return f"{number}, not told apart from {name}: {ours} and {theirs}"
    equals = [compare.name_of(s.algo) for s in found if s.improvement and not s.improvement.low > 0.5]
    if equals:
        more = f" and {len(equals) - MOST_SAID} more" if len(equals) > MOST_SAID else ""
        told = f"not told apart from {', '.join(equals[:MOST_SAID])}{more}"
        return f"{number}, {told}: {ours}, then {name}'s {theirs}"
    return f"IPD leads {_count(len(order) - 1, 'other method')}: {ours}, before {name}'s {theirs}"


def _sets(datasets: Sequence[Dataset]) -> str:
    return _count(len(datasets), "data set")


def checks(comparison: Comparison) -> list[tuple[str, str]]:
    """(yes | no | open, sentence): what speaks for the headline and what against it."""
    found = [(s, _told(s.improvement)) for s in compare.standings(comparison) if s.improvement is not None]
    items = []
    for state, claim in (
        ("yes", f"a run of IPD is better with a probability of at least {BETTER}: than"),
        ("no", f"a run of IPD is better with a probability below {BETTER}: than"),
        ("open", "not told apart from IPD (interval around 0.5, or too few seeds for one):"),
    ):
        meant = [standing for standing, told in found if told == state]
        names = [f"{compare.name_of(s.algo)} ({s.improvement.point:.3g})" for s in meant if s.improvement]
        items += [(state, f"{claim} {', '.join(names)}; {_basis(comparison, meant)}")] if meant else []
    fewest = min((len(cell.last) for cell in comparison.cells if not cell.label), default=0)
    state = "yes" if fewest >= ENOUGH_SEEDS else "no"
    seeds = _count(fewest, "seed")
    items += [(state, f"at least {seeds} of every method on every data set it was run on")] if fewest else []
    if ENOUGH_SEEDS <= fewest < MANY_SEEDS:
        items.append(
            ("open", f"intervals over so few seeds are too narrow; {MANY_SEEDS} or more would tell more")
        )
    holes = [
        f"{compare.name_of(algo)} on {dataset.name}"
        for dataset in compare.judged(comparison)
        for algo in comparison.algos
        if comparison.main(dataset, algo) is None
    ]
    if holes:
        more = f" and {len(holes) - MOST_SAID} more" if len(holes) > MOST_SAID else ""
        items.append(("open", f"not run: {', '.join(holes[:MOST_SAID])}{more}"))
    items += [("no", text) for text in compare_tables.mixed(comparison)]
    items += [("no", text) for text in compare_versions.differing(comparison)]
    items += [("open", text) for text in compare_tables.unranked(comparison)]
    if comparison.left_out:
        counts = Counter(left.what for left in comparison.left_out)
        what = ", ".join(_count(counts[kind], kind) for kind in counts)
        items.append(("open", f"{what} left out, with reasons, at the end"))
    if not all(dataset.official for dataset in comparison.datasets):
        items.append(("open", "regenerated data: nothing here compares with a printed number"))
    return items


def _told(chance: Interval) -> str:
    """(yes | no | open) of the claim that IPD is better: open while its interval holds 0.5."""
    if not (chance.low > 0.5 or chance.high < 0.5):
        return "open"
    return "yes" if chance.point >= BETTER else "no"


def _basis(comparison: Comparison, standings: Sequence[Standing]) -> str:
    """The least that the probabilities of improvement over some methods rest on."""
    seeds = min(
        compare.fewest(*(compare.runs_of(comparison, name, sets) for name in (compare.OURS, standing.algo)))
        for standing in standings
        for sets in [compare.sets_of(comparison, compare.OURS, standing.algo)]
    )
    sets = min(standing.sets for standing in standings)
    return f"each from at least {_count(sets, 'data set')}, {_count(seeds, 'seed')} a side"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def first_screen(comparison: Comparison) -> str:
    """Headline, chart of IQMs, their table, and checks."""
    kinds = {"D4RL" if dataset.official else "regenerated data" for dataset in comparison.datasets}
    words = ("Imaginary Planning Distillation", f"{len(comparison.entries)} runs", *sorted(kinds))
    kicker = " · ".join(words)
    found = compare.standings(comparison)
    lines = [
        (compare.name_of(s.algo), estimate(s.iqm), estimate(s.improvement, 2), str(s.sets))
        for s in sorted(found, key=lambda s: -s.iqm.point if s.iqm else math.inf)
    ]
    header = ("method", "IQM", "P(IPD better)", "sets")
    table = html_table(f"Over {_sets(compare.judged(comparison))}, last evaluation", header, lines)
    marks = {"yes": ("✓", "Yes"), "no": ("✗", "No"), "open": ("○", "Open")}
    believe = "".join(
        f'<li class="{state}"><span role="img" aria-label="{marks[state][1]}:">{marks[state][0]}</span>'
        f"{escape(text[0].upper() + text[1:])}</li>"
        for state, text in checks(comparison)
    )
    believe = f'<div class="believe"><h2>Can I believe it?</h2><ul>{believe}</ul></div>'
    names = ", ".join(compare.title(dataset, comparison.datasets) for dataset in comparison.datasets)
    lead = f"Normalised scores on {names}. A score of 0 is a random policy's, 100 an expert's."
    places = compare_tables.places(comparison)
    left = compare_figures.standings(comparison) + (_html(places) if places else "")
    first = f'<div class="first"><div>{left}</div><div>{table}{believe}</div></div>'
    return (
        f'<header id="result"><p class="kicker">{escape(kicker)}</p><h1>{escape(verdict(comparison))}</h1>'
        f'<p class="lead">{escape(lead)}</p>{first}</header>'
    )


def scores(comparison: Comparison) -> Section:
    """The paper's table: methods on data sets, last and best apart, the printed beneath ours."""
    body = "".join(f'<p class="missing">{escape(note)}</p>' for note in compare_tables.notes(comparison)[1:])
    body += "".join(
        _html(compare_tables.methods(comparison, moment)) for moment in MOMENTS if comparison.algos
    )
    doubts = compare_tables.doubts(comparison)
    if doubts:
        points = "".join(f"<li>{escape(text)}</li>" for text in doubts)
        body += f'<h3>{compare_tables.DAGGER} Printed numbers to doubt</h3><ul class="doubts">{points}</ul>'
    return Section("scores", "Scores", compare_tables.LEGEND, body)


def _html(table: compare_tables.Table) -> str:
    return html_table(table.caption, table.header, table.lines, table.words, table.heads, table.best)


def profiles(comparison: Comparison) -> Section:
    """Performance profiles of IPD against every other method."""
    lead = (
        "For every score, the share of runs above it (data sets count the same). Shaded: 95 % intervals, "
        f"from {ENOUGH_SEEDS} seeds of each method on."
    )
    note = missing("runs of IPD and of another method on one data set", "ipd sweep table1")
    return Section("profiles", "Profiles", lead, grid(*compare_figures.profiles(comparison)) or note)


def variants(comparison: Comparison) -> Section:
    """Runs with other settings than the method's main ones."""
    table = compare_tables.variants(comparison)
    body = "".join(compare_figures.variants(comparison)) + (_html(table) if table else "")
    lead = "Runs with other settings beside the main runs of their method: ablations, other sizes."
    return Section("variants", "Variants", lead, body or missing("variants", "ipd sweep ablations"))


def volume(comparison: Comparison) -> Section:
    """Fig. 2 of the paper."""
    lead = "IPD by how much it imagined, with MPC and greedily (Fig. 2 of the paper); all else is the same."
    note = missing("runs of IPD that imagined different amounts", "ipd sweep fig2")
    return Section("volume", "Imagined volume", lead, grid(*compare_ablations.volume(comparison)) or note)


def prompts(comparison: Comparison) -> Section:
    """Fig. 3 of the paper."""
    body = ""
    for cell in comparison.cells:
        found = compare_ablations.prompts(cell)
        if found:
            body += compare_ablations.prompting(comparison, cell)
            lines = [
                (p.name, digits(p.score.mean), bounds(p.score.low, p.score.high), digits(p.between),
                 digits(p.within), f"{p.score.seeds} / {p.score.episodes}")
                for p in found
            ]  # fmt: skip
            header = (
                "prompt",
                "mean",
                "95 % interval",
                "std of seeds",
                "std of episodes",
                "seeds / episodes",
            )
            body += html_table("Normalised scores by prompt", header, lines)
    lead = "IPD prompted with V of each state, or with fixed returns (Fig. 3 of the paper)."
    return Section("prompts", "Prompts", lead, body or missing("runs with fixed returns", "ipd sweep fig3"))


def runs(comparison: Comparison) -> Section:
    """Every run that was found, and why some do not count."""
    lines = [
        (entry.name, compare.title(entry.dataset, comparison.datasets),
         compare.name_of(entry.algo, cell.label), entry.preset, ", ".join(map(str, entry.last)))
        for cell in comparison.cells
        for entry in comparison.entries
        if entry.name in cell.folders
    ]  # fmt: skip
    body = html_table("Runs", ("run", "data", "method", "preset", "seeds"), lines, words=5)
    left = [(left.name, left.reason) for left in comparison.left_out]
    body += html_table("Left out", ("run", "reason"), left, words=2) if left else ""
    lead = "What was compared. A run with a bad or missing seed is left out whole: the others would flatter."
    return Section("runs", "Runs", lead, body)
