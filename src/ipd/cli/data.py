"""``ipd data check`` and ``ipd data describe``: what a dataset holds, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ipd.cli.options import parse

if TYPE_CHECKING:
    from rich.console import Console

    from ipd.data.checks import Finding
    from ipd.data.episodes import Episodes

STYLES = {"fatal": "bold red", "warning": "yellow", "note": "cyan"}


@dataclasses.dataclass(frozen=True)
class Data:
    """Check a dataset for mistakes, or describe what it holds."""

    action: Annotated[Literal["check", "describe"], tyro.conf.Positional]
    source: Annotated[str, tyro.conf.Positional]
    """A D4RL .hdf5, an .npz, or bundled:hopper-medium-replay."""
    env: str | None = None
    """Task to check sizes and action bounds against; the file's own word where it has one."""


def main(argv: list[str]) -> int:
    """Parses, prints; returns 0, or 2 where the data cannot be used."""
    options = parse(Data, argv, "data")
    command = check if options.action == "check" else describe
    return command(options.source, options.env)


def check(source: str, task: str | None = None) -> int:
    """Look for mistakes in a dataset, against a task's sizes and action bounds if one is known.

    Prints one finding a line. Returns 0, or 2 where the data cannot be used.
    """
    console = _console()
    episodes, code = _load(source, task)
    if episodes is None:
        return code
    from ipd.data.checks import check as find

    console.print(_headline(episodes), highlight=False)
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


def describe(source: str, task: str | None = None) -> int:
    """Episodes, lengths, returns, ends and coverage of a dataset. Returns 0, or 2 where it cannot be read."""
    console = _console()
    episodes, code = _load(source, task)
    if episodes is None:
        return code
    from ipd.data.checks import describe as facts_of
    from ipd.data.checks import summary

    facts = facts_of(episodes)
    console.print(_headline(episodes), highlight=False)
    for remark in episodes.remarks:
        console.print(f"note: {remark}", style=STYLES["note"], markup=False, highlight=False)
    rows = [("return", facts["return"]), ("length", summary(episodes.lengths))]
    _print_table(console, "", rows, [episodes.returns, episodes.lengths])
    console.print(
        f"\nbest tenth of the episodes: mean return {facts['return']['best_decile']:.4g}\n"
        f"{facts['terminated']} episodes terminated, {facts['truncated']} truncated\n"
        f"digest {facts['digest']}",
        highlight=False,
    )
    for key, columns in (("observations", episodes.observations.T), ("actions", episodes.actions.T)):
        rows = [(str(number), spread) for number, spread in enumerate(facts["coverage"][key])]
        _print_table(console, key, rows, list(columns))
    return 0


def _console() -> Console:
    from rich.console import Console

    # Not a terminal: no wrapping, so that a line stays a line for grep.
    return Console() if sys.stdout.isatty() else Console(width=200, soft_wrap=True)


def _load(source: str, task: str | None) -> tuple[Episodes | None, int]:
    from ipd.data.episodes import DataError
    from ipd.data.sources import load

    try:
        return load(source, task), 0
    except DataError as error:
        return None, _refuse(str(error))


def _refuse(message: str) -> int:
    print(f"ipd data: {message}", file=sys.stderr)
    return 2


def _against_task(console: Console, episodes: Episodes, asked: bool) -> str | None:
    """Why the task refuses the data, or None. A task that cannot be had matters only if it was asked for."""
    if episodes.task is None:
        return None
    from ipd.data.episodes import DataError, require_bounds, require_sizes
    from ipd.evaluation.tasks import TaskError, task

    try:
        found = task(episodes.task)
        require_sizes(episodes, found.observation_size, found.action_size, found.id)
        require_bounds(episodes, found.action_low, found.action_high)
    except DataError as error:
        return str(error)
    except TaskError as error:
        if asked:
            return str(error)
        console.print(f"note: not checked against the task: {error}", style=STYLES["note"], markup=False)
    else:
        console.print(f"sizes and action bounds are those of {found.id}", highlight=False)
    return None


def _headline(episodes: Episodes) -> str:
    return (
        f"{episodes.source}: {episodes.num_episodes:,} episodes, {episodes.num_steps:,} steps, "
        f"{episodes.observation_size} observation and {episodes.action_size} action dimensions, "
        f"task {episodes.task or 'unknown'}"
    )


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
