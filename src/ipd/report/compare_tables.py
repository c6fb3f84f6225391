"""The comparison as tables: for a terminal, as Markdown, LaTeX and CSV.

The table of methods is laid out as the paper's Table 1: a block of lines a data set, a column a method.
Last and best evaluations are two tables. The paper's own number stands beneath ours, with a dagger
where it is doubtful; beneath a regenerated data set it is there for orientation only.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ipd.report import compare, compare_versions, published, tables
from ipd.report.compare import Cell, Comparison, Score
from ipd.report.published import Printed
from ipd.report.read import Number
from ipd.report.statistics import Interval

DASH = "–"
DAGGER = "†"
MOMENTS = {
    "last": "Last evaluation",
    "best": "Best evaluation, chosen by the episodes it shows: it flatters",
}
REGENERATED = (
    "Regenerated data are not D4RL's files. Scores on them are not comparable with printed ones, which "
    "stand beside them for orientation only."
)
LEGEND = (
    "Normalised scores (0 random, 100 expert): mean over seeds, 95 % interval with seeds drawn anew and "
    "episodes within them. A dash: not run, not printed, or too few seeds: one, or for the measures over "
    f"data sets fewer than {compare.ENOUGH_SEEDS}. Intervals over few seeds are too narrow: where every one "
    "of three is above every one of three others on a data set, [1.00, 1.00] has one chance in twenty."
)


class Table(NamedTuple):
    """Text in cells."""

    caption: str
    header: tuple[str, ...]
    lines: list[tuple[str, ...]]
    words: int = 1
    """So many columns are words, the others numbers."""
    heads: tuple[int, ...] = ()
    """Lines with which a block begins."""
    best: Mapping[int, int] = MappingProxyType({})
    """Line -> column of its largest score."""


def digits(value: Number, places: int = 1) -> str:
    """A score: one decimal, a true minus, a dash where there is none."""
    return f"{value:.{places}f}".replace("-", "−") if math.isfinite(value) else DASH


def bounds(low: Number, high: Number, places: int = 1) -> str:
    """An interval."""
    return f"[{digits(low, places)}, {digits(high, places)}]" if math.isfinite(low) else DASH


def estimate(found: Interval | None, places: int = 1) -> str:
    """A point with its interval."""
    if found is None:
        return DASH
    text = bounds(found.low, found.high, places)
    return digits(found.point, places) + (f" {text}" if text != DASH else "")


def printed_text(found: Printed | None) -> str:
    """The paper's number with its spread, and a dagger where it is doubtful."""
    if found is None:
        return DASH
    spread = f" ± {digits(found.spread)}" if found.spread is not None else ""
    return digits(found.score) + spread + (DAGGER if found.doubt else "")


def score_at(cell: Cell | None, moment: str) -> Score | None:
    """The cell's score at the last or at the best evaluation."""
    return None if cell is None else compare.score(cell.last if moment == "last" else cell.best)


def methods(comparison: Comparison, moment: str) -> Table:
    """Data sets by methods at one moment; beneath the last evaluations the measures over all sets."""
    lines: list[tuple[str, ...]] = []
    heads, best = [], {}
    for dataset in comparison.datasets:
        heads.append(len(lines))
        cells = [score_at(comparison.main(dataset, algo), moment) for algo in comparison.algos]
        theirs = [published.lookup(dataset.name, algo) for algo in comparison.algos]
        best.update(_largest(len(lines), [c.mean if c else math.nan for c in cells]))
        lines += [
            (compare.title(dataset, comparison.datasets), *(digits(c.mean) if c else DASH for c in cells)),
            ("95 % interval", *(bounds(c.low, c.high) if c else DASH for c in cells)),
            ("seeds / episodes", *(f"{c.seeds} / {c.episodes}" if c else DASH for c in cells)),
        ]
        if moment == "best":
            mains = [comparison.main(dataset, algo) for algo in comparison.algos]
            lines.append(("evaluations", *(str(cell.snapshots) if cell else DASH for cell in mains)))
        if any(theirs):
            where = "printed" if dataset.official else "printed, on D4RL's data"
            lines.append((where, *map(printed_text, theirs)))
    if moment == "last":
        heads.append(len(lines))
        found = compare.standings(comparison)
        best.update(_largest(len(lines), [s.iqm.point if s.iqm else math.nan for s in found]))
        lines.append(("IQM over data sets", *(digits(s.iqm.point) if s.iqm else DASH for s in found)))
        lines.append(("95 % interval", *(bounds(*s.iqm[1:]) if s.iqm else DASH for s in found)))
        if compare.OURS in comparison.algos:
            shares = [s.improvement for s in found]
            lines.append(
                ("probability that IPD is better", *(digits(p.point, 2) if p else DASH for p in shares))
            )
            lines.append(("95 % interval", *(bounds(*p[1:], 2) if p else DASH for p in shares)))
    header = ("", *map(compare.name_of, comparison.algos))
    return Table(MOMENTS[moment], header, lines, heads=tuple(heads), best=best)


def _largest(line: int, scores: Sequence[float]) -> dict[int, int]:
    """The line with the column of its largest number, names being column 0; {} for fewer than two."""
    there = {column: score for column, score in enumerate(scores, 1) if math.isfinite(score)}
    return {line: max(there, key=lambda column: there[column])} if len(there) > 1 else {}


def places(comparison: Comparison) -> Table | None:
    """Where IPD stands on each data set by the mean of its last evaluation; None where it has no rival."""
    lines: list[tuple[str, ...]] = []
    for dataset in comparison.datasets:
        found = {algo: score_at(comparison.main(dataset, algo), "last") for algo in comparison.algos}
        means = {algo: score.mean for algo, score in found.items() if score and math.isfinite(score.mean)}
        ours = means.pop(compare.OURS, None)
        if ours is not None and means:
            rival = max(means, key=lambda algo: means[algo])
            place = 1 + sum(mean > ours for mean in means.values())
            lines.append((compare.title(dataset, comparison.datasets), digits(ours),
                          f"{place} of {len(means) + 1}",
                          f"{compare.name_of(rival)} {digits(means[rival])}"))  # fmt: skip
    header = ("", "IPD", "place", "best other")
    return Table("Data set by data set, last evaluation", header, lines) if lines else None


def variants(comparison: Comparison) -> Table | None:
    """Runs with other settings, beneath the main runs of their method; None where there are none."""
    lines: list[tuple[str, ...]] = []
    for dataset in comparison.datasets:
        for algo in comparison.found:
            cells = comparison.of(dataset, algo)
            for cell in cells if any(cell.label for cell in cells) else []:
                last, best = compare.score(cell.last), compare.score(cell.best)
                lines.append(
                    (compare.name_of(algo, cell.label), compare.title(dataset, comparison.datasets),
                     _shortened(cell.differs), digits(last.mean), bounds(last.low, last.high),
                     digits(best.mean), str(cell.snapshots), f"{last.seeds} / {last.episodes}")
                )  # fmt: skip
    header = ("method", "data", "what differs", "last", "95 % interval", "best", "evaluations",
              "seeds / episodes")  # fmt: skip
    return Table("Variants", header, lines, words=3) if lines else None


def _shortened(fields: Sequence[str], most: int = 4) -> str:
    more = f", and {len(fields) - most} more" if len(fields) > most else ""
    return "; ".join(fields[:most]) + more or DASH


def doubts(comparison: Comparison) -> list[str]:
    """Why the printed numbers with a dagger are doubtful, one sentence a reason."""
    reasons: dict[str, list[str]] = {}
    for dataset in comparison.datasets:
        for algo in comparison.algos:
            found = published.lookup(dataset.name, algo)
            if found and found.doubt:
                reasons.setdefault(found.doubt, []).append(f"{compare.name_of(algo)} on {dataset.name}")
    return [f"{', '.join(dict.fromkeys(where))}: {reason}" for reason, where in reasons.items()]


def notes(comparison: Comparison) -> list[str]:
    """What has to be known to read the tables."""
    found = [LEGEND]
    if not all(dataset.official for dataset in comparison.datasets):
        found.append(REGENERATED)
    return found + mixed(comparison) + compare_versions.differing(comparison) + unranked(comparison)


def mixed(comparison: Comparison) -> list[str]:
    """That main runs were made with different presets, as a sentence; [] where all have one."""
    found = sorted(compare.presets(comparison).items(), key=lambda each: -len(each[1]))
    if len(found) < 2:
        return []
    (usual, runs), *others = found
    more = "; ".join(f"{preset}: {compare.listed(where)}" for preset, where in others)
    return [f"Presets are mixed, so budgets differ: {more}; {usual}: the other {len(runs)}."]


def unranked(comparison: Comparison) -> list[str]:
    """What stands among the variants only, as a sentence; [] where every method has main runs."""
    only = compare.variants_only(comparison)
    return [f"Variants only, in no measure over data sets: {', '.join(only)}."] if only else []


def terminal(comparison: Comparison) -> str:
    """A short table: every method and variant on every data set, then the measures over all sets."""
    lines = []
    for dataset in comparison.datasets:
        for algo in comparison.found:
            for cell in comparison.of(dataset, algo):
                last, best = compare.score(cell.last), compare.score(cell.best)
                theirs = published.lookup(dataset.name, algo) if not cell.label else None
                lines.append(
                    (compare.title(dataset, comparison.datasets), compare.name_of(algo, cell.label),
                     digits(last.mean), bounds(last.low, last.high), digits(best.mean),
                     f"{last.seeds} / {last.episodes}", printed_text(theirs))
                )  # fmt: skip
    header = ("data set", "method", "last", "95 % interval", "best", "seeds / episodes", "printed")
    parts = [tables.aligned(header, lines, words=2)]
    if len(comparison.algos) > 1:
        found = [
            (compare.name_of(s.algo), str(s.sets), estimate(s.iqm), estimate(s.improvement, 2))
            for s in compare.standings(comparison)
        ]
        parts.append(tables.aligned(("method", "sets", "IQM", "probability that IPD is better"), found))
    said = [f"{DAGGER} {text}" for text in doubts(comparison)]
    said += [f"left out: {left.name}: {left.reason}" for left in comparison.left_out]
    said += mixed(comparison) + compare_versions.differing(comparison) + unranked(comparison)
    parts += ["\n".join(said)] if said else []
    if not all(dataset.official for dataset in comparison.datasets):
        parts.append(REGENERATED)
    return "\n\n".join(parts)


def markdown(comparison: Comparison) -> str:
    """table.md: methods at last and at best, variants, doubts, runs left out."""
    parts = ["# Scores", *notes(comparison)]
    for table in _every(comparison):
        parts += [f"## {table.caption}", tables.markdown(table.header, table.lines, table.words)]
    lists = {
        f"{DAGGER} Doubtful printed numbers": doubts(comparison),
        "Runs left out": [f"`{left.name}`: {left.reason}" for left in comparison.left_out],
    }
    for head, points in lists.items():
        parts += [f"## {head}", "\n".join(f"- {point}" for point in points)] if points else []
    return "\n\n".join(parts) + "\n"


def _every(comparison: Comparison) -> list[Table]:
    found = [methods(comparison, moment) for moment in MOMENTS if comparison.algos]
    more = variants(comparison)
    return [*found, more] if more else found


LATEX: dict[str, str | int | None] = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "±": r"$\pm$",
    DASH: "--",
    DAGGER: r"$^{\dagger}$",
}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return text.translate(str.maketrans(LATEX))


def latex(comparison: Comparison) -> str:
    """table.tex: one table environment each for last, best and variants; needs the package booktabs."""
    notes_ = [*notes(comparison), *(f"{DAGGER} {text}." for text in doubts(comparison))]
    blocks = [r"% \usepackage{booktabs} and, for wide tables, \usepackage{graphicx}"]
    for table in _every(comparison):
        lines: list[str] = []
        columns = "l" * table.words + "r" * (len(table.header) - table.words)
        for index, line in enumerate(table.lines):
            if index in table.heads[1:]:
                lines.append(r"\addlinespace")
            lines.append(" & ".join(map(escaped, line)) + r" \\")
        blocks.append(
            "\n".join(
                [r"\begin{table}", r"\centering", r"\resizebox{\linewidth}{!}{%",
                 rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
                 " & ".join(map(escaped, table.header)) + r" \\", r"\midrule", *lines,
                 r"\bottomrule", r"\end{tabular}}",
                 rf"\caption{{{escaped(table.caption)}. {escaped(' '.join(notes_))}}}", r"\end{table}"]
            )
        )  # fmt: skip
    return "\n\n".join(blocks) + "\n"


def csv_methods(comparison: Comparison) -> str:
    """table.csv: the tables of methods with full digits, a line each for mean, low, high and so on."""
    lines: list[Sequence[object]] = [("evaluation", "data", "d4rl", "digest", "quantity", *comparison.algos)]
    for moment in MOMENTS:
        for dataset in comparison.datasets:
            cells = [score_at(comparison.main(dataset, algo), moment) for algo in comparison.algos]
            theirs = [published.lookup(dataset.name, algo) for algo in comparison.algos]
            head = (moment, dataset.name, str(dataset.official).lower(), dataset.digest)
            lines += [
                (*head, field, *(_plain(getattr(cell, field)) if cell else "" for cell in cells))
                for field in Score._fields
            ]
            lines.append((*head, "printed", *(p.score if p else "" for p in theirs)))
            lines.append(
                (*head, "printed_doubtful", *(str(bool(p.doubt)).lower() if p else "" for p in theirs))
            )
    return _csv(lines)


def csv_seeds(comparison: Comparison) -> str:
    """comparison.csv: one line a run and seed, from which every number of the comparison follows."""
    lines: list[Sequence[object]] = [
        ("data", "d4rl", "digest", "algo", "variant", "preset", "run", "seed", "last_step", "last_episodes",
         "last", "best_step", "best_episodes", "best", "evaluations")
    ]  # fmt: skip
    for cell in comparison.cells:
        for entry in (entry for name in cell.folders for entry in comparison.entries if entry.name == name):
            step, best = entry.steps
            lines += [
                (cell.dataset.name, str(cell.dataset.official).lower(), cell.dataset.digest, cell.algo,
                 cell.label, entry.preset, entry.name, seed, step, len(values), _plain(float(values.mean())),
                 best[seed], len(entry.best[seed]), _plain(float(entry.best[seed].mean())), entry.snapshots)
                for seed, values in entry.last.items()
            ]  # fmt: skip
    return _csv(lines)


def _plain(value: Number) -> object:
    return "" if not math.isfinite(value) else value if isinstance(value, int) else f"{value:.6g}"


def _csv(lines: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
