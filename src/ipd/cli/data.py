"""``ipd data check``, ``describe`` and ``convert``: what a dataset holds, what is wrong with it, a copy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ipd.data.checks import Finding
    from ipd.data.episodes import Episodes

LARGE = 4_000_000
"""Sets of more steps are read by way of the disk."""
STYLES = {"fatal": "bold red", "warning": "yellow", "note": "cyan"}


def check(source: str, task: str | None = None, columns: str | None = None) -> int:
    """Look for mistakes in a dataset, against a task's sizes and action bounds if one is known.

    Prints one finding a line. Returns 0, or 2 where the data cannot be used.
    """
    console = _console()
    episodes, code = _load(source, task, columns)
    if episodes is None:
        return code
    from ipd.data.checks import check as find

    _print_headline(console, episodes)
    findings = find(episodes)
    refusal = _against_task(console, episodes, asked=task is not None)
    if not findings and refusal is None:
        console.print("nothing found wrong", style="green")
    for finding in findings:
        _print_finding(console, finding)
    fatal = next((f for f in findings if f.severity == "fatal"), None)
    if refusal is None and fatal is not None:
        refusal = f"{source}, {fatal.where}: {fatal.message}; {fatal.cure}"
    return 0 if refusal is None else _refuse(refusal)


def describe(source: str, task: str | None = None, columns: str | None = None) -> int:
    """Episodes, lengths, returns, ends and coverage of a dataset. Returns 0, or 2 where it cannot be read."""
    console = _console()
    episodes, code = _load(source, task, columns)
    if episodes is None:
        return code
    from ipd.data.checks import describe as facts_of
    from ipd.data.checks import summary

    facts = facts_of(episodes)
    _print_headline(console, episodes)
    _print_remarks(console, episodes)
    rows = [("return", facts["return"]), ("length", summary(episodes.lengths))]
    _print_table(console, "", rows, [episodes.returns, episodes.lengths])
    console.print(
        f"\nbest tenth of the episodes: mean return {facts['return']['best_decile']:.4g}\n"
        f"{facts['terminated']} episodes terminated, {facts['truncated']} truncated\n"
        f"digest {facts['digest']}",
        highlight=False,
    )
    for key, values, names in (
        ("observations", episodes.observations.T, episodes.observation_names),
        ("actions", episodes.actions.T, episodes.action_names),
    ):
        plain = names or [str(number) for number in range(len(values))]
        _print_table(console, key, list(zip(plain, facts["coverage"][key], strict=True)), list(values))
    return 0


def _console() -> Console:
    from rich.console import Console

    # Not a terminal: no wrapping, so that a line stays a line for grep.
    return Console() if sys.stdout.isatty() else Console(width=200, soft_wrap=True)


def convert(source: str, target: str, task: str | None = None, columns: str | None = None) -> int:
    """Write a dataset as another kind of file. Returns 0, or 2 where it cannot be, 1 where a disk fails."""
    from ipd.data.convert import convert as write
    from ipd.data.episodes import DataError

    episodes, code = _load(source, task, columns)
    if episodes is None:
        return code
    try:
        path = write(episodes, target)
    except DataError as error:
        return _refuse(str(error))
    except OSError as error:
        _refuse(f"{target}: {error.strerror or error}; it must be on a disk with room")
        return 1
    console = _console()
    _print_headline(console, episodes)
    _print_remarks(console, episodes)
    console.print(f"written to {path}, digest {episodes.digest}", markup=False, highlight=False)
    return 0


def _load(source: str, task: str | None, columns: str | None) -> tuple[Episodes | None, int]:
    import tempfile

    from ipd.data.columns import Storage
    from ipd.data.episodes import DataError
    from ipd.data.sources import load

    try:
        return load(source, task, Storage(Path(tempfile.gettempdir()), LARGE), columns), 0
    except DataError as error:
        return None, _refuse(str(error))


def _refuse(message: str) -> int:
    print(f"ipd data: {message}", file=sys.stderr)
    return 2


def _against_task(console: Console, episodes: Episodes, asked: bool) -> str | None:
    """Why the task refuses the data, or None. A task that cannot be had matters only if it was asked for."""
    if episodes.task is None:
        return None
    from ipd.data.episodes import DataError, require_bounds
    from ipd.data.fit import other_options, require_sizes
    from ipd.data.sources import recorded
    from ipd.evaluation.tasks import TaskError, task

    try:
        found = task(episodes.task)
        require_sizes(episodes, found.observation_size, found.action_size, found.id, found.observation_names)
        require_bounds(episodes, found.action_low, found.action_high)
    except DataError as error:
        return str(error)
    except TaskError as error:
        if asked:
            return str(error)
        console.print(f"note: not checked against the task: {error}", style=STYLES["note"], markup=False)
    else:
        console.print(f"sizes and action bounds are those of {found.id}", highlight=False)
        told = recorded(episodes.source)
        for finding in other_options(told.options, found.options, found.id) if told.task == found.id else ():
            _print_finding(console, finding)
    return None


def _print_headline(console: Console, episodes: Episodes) -> None:
    """What was read, and for a table from which columns."""
    line = (
        f"{episodes.source}: {episodes.num_episodes:,} episodes, {episodes.num_steps:,} steps, "
        f"{episodes.observation_size} observation and {episodes.action_size} action dimensions, "
        f"task {episodes.task or 'unknown'}"
    )
    console.print(line, markup=False, highlight=False)
    for name, value in (episodes.columns or {}).items():
        text = ", ".join(value) if isinstance(value, list) else value
        if text:
            console.print(f"  {name}: {text}", style="dim", markup=False, highlight=False)


def _print_remarks(console: Console, episodes: Episodes) -> None:
    """What the reader had to decide."""
    for doubt in episodes.doubts:
        _print_finding(console, doubt)
    for remark in episodes.remarks:
        console.print(f"note: {remark}", style=STYLES["note"], markup=False, highlight=False)


def _print_finding(console: Console, finding: Finding) -> None:
    from rich.text import Text

    text = f"{finding.severity}: {finding.where}: {finding.message}; {finding.cure}"
    line = Text(text)
    line.stylize(STYLES[finding.severity], 0, len(finding.severity))
    console.print(line)


def _print_table(
    console: Console, title: str, rows: list[tuple[str, dict[str, Any]]], values: list[Any]
) -> None:
    """One line for each summary and the array it sums up; a narrow terminal gets fewer columns."""
    from rich.table import Table

    wide = console.width >= 120
    quantiles = ("5", "25", "50", "75", "95") if wide else ("5", "50", "95")
    shares = [name for name in ("at_low", "at_high") if name in rows[0][1]]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(
        [
            title,
            *(["mean", "std"] if wide else []),
            "min",
            *(f"{q} %" for q in quantiles),
            "max",
            *shares,
            "spread",
        ]
    ):
        table.add_column(name.replace("_", " "), justify="right" if number else "left", no_wrap=True)
    for (name, spread), array in zip(rows, values, strict=True):
        numbers = [
            *((spread["mean"], spread["std"]) if wide else ()),
            spread["min"],
            *(spread["quantiles"][q] for q in quantiles),
            spread["max"],
        ]
        cells = [f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}" for x in numbers]
        cells += [f"{spread[share]:.1%}" for share in shares]
        table.add_row(name, *cells, _sparkline(array, console.encoding, bins=24 if wide else 12))
    console.print()
    console.print(table)


def _sparkline(values: Any, encoding: str, bins: int) -> str:
    """How the values spread from the smallest to the largest; empty bins stay blank."""
    import numpy as np

    blocks = "▁▂▃▄▅▆▇█" if encoding.startswith("utf") else ".:-=+*#@"
    counts, _ = np.histogram(values, bins)
    heights = np.ceil(counts / max(counts.max(), 1) * len(blocks)).astype(int)
    return "".join(" " if height == 0 else blocks[height - 1] for height in heights)
