"""`ipd sweep`: every run of a table or a figure of the paper, on one machine or on many."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ipd.cli.options import parse, say
from ipd.runs.errors import InputError

if TYPE_CHECKING:
    from ipd.runs.plans import Plan
    from ipd.runs.sweep import Outcome


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Make every run of a suite and compare them. Interrupted, the same command goes on where it stopped."""

    suite: Annotated[str, tyro.conf.Positional]
    """table1 (ten tasks, all algorithms), fig2 (volume of imagined data), fig3 (prompts) or ablations."""
    out: Path
    """Folder of the runs: OUT/SET/VARIANT/seeds-0-2."""
    preset: str = "cpu"
    """Sizes and budgets of all runs."""
    seeds: int = 3
    """Seeds of each task and algorithm."""
    group: int = 3
    """Seeds trained side by side in one run."""
    algos: str = ""
    """Only these, separated by commas: algorithms, or variants of a figure; all if not given."""
    tasks: str = ""
    """Only these, separated by commas, such as hopper-medium-replay; all if not given."""
    data_root: Path | None = None
    """Folder with D4RL files under their official names, or collected ones such as hopper-medium.hdf5."""
    engine: Literal["local", "ray"] = "local"
    """`local` runs them in turn; `ray` on a Ray cluster."""
    address: str = "auto"
    """Ray: HOST:PORT, `auto` for the cluster of this machine, `local` to start one for the sweep."""
    cpus: float = 1.0
    """Ray: processors that a run is given."""
    gpus: float = 0.0
    """Ray: GPUs that a run is given; half a GPU lets two runs share it."""
    retries: int = 3
    """Ray: how often a run whose worker or node was lost is started again."""
    checkpoint_seconds: float = 30.0
    """Time between checkpoints."""
    dry_run: bool = False
    """Print the plan and an estimate of time; nothing is run or written."""


def main(argv: list[str]) -> int:
    """Parses, plans, runs, compares; returns 1 if a run failed."""
    options = parse(Sweep, argv, "sweep")
    from ipd.runs import plans, sweep
    from ipd.runs.suites import SUITES

    _require_fit(options)
    if options.suite not in SUITES:
        raise InputError(f"no suite '{options.suite}'; there are: {', '.join(SUITES)}")
    out = options.out.resolve()
    suite = SUITES[options.suite].narrowed(_names(options.tasks), _names(options.algos))
    planned = plans.plan(suite, options.preset, options.seeds, options.group, options.data_root)
    planned = plans.with_found(planned, out)
    if options.dry_run:
        _print_plan(planned, out)
        return 0
    _print_remarks(planned)
    plans.write_plan(out, options.suite, options.preset, planned)
    if options.engine == "ray":
        from ipd.runs.ray_engine import run as run_on_ray

        outcomes = run_on_ray(
            planned, out, say, options.address, options.cpus, options.gpus, options.retries,
            options.checkpoint_seconds,
        )  # fmt: skip
    else:
        outcomes = sweep.run_local(planned, out, say, options.checkpoint_seconds)
    _print_outcomes(planned, outcomes)
    _compare(out)
    return int(any(outcome.state == "failed" for outcome in outcomes.values()))


def _require_fit(options: Sweep) -> None:
    """`InputError` where a number or the folder cannot be meant, before anything is written."""
    for name in ("cpus", "gpus", "retries"):
        value = getattr(options, name)
        if not 0 <= value < math.inf:
            raise InputError(f"--{name} {value:g}: must be at least 0, and finite")
    there = next(path for path in (options.out, *options.out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"--out {options.out}: {there} is a file; choose another --out")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _print_remarks(planned: Plan) -> None:
    for name, why in planned.skipped.items():
        say(f"skipped {name}: {why}")
    for remark in planned.remarks:
        say(f"note: {remark}")


def _print_plan(planned: Plan, out: Path) -> None:
    """One line a run: what is new, done or taken over, how long it may take, and its command."""
    from ipd.runs import sweep
    from ipd.runs.pace import Estimate, estimate, timed

    _print_remarks(planned)
    runs, total, rough = timed(out), 0.0, set[str]()
    rows = [("set", "data", "run", "stages", "minutes", "command")]
    for entry in planned.entries:
        status = sweep.status(out, entry)
        done = sweep.finished(out, entry)
        told = Estimate() if done else estimate(entry, status, runs, out / entry.key)
        total += told.seconds
        rough |= told.rough
        kinds: dict[str, list[str]] = {}
        for stage, state in status.items():
            kinds.setdefault(state.replace(f"{entry.dataset}/", ""), []).append(stage)
        stages = "; ".join(f"{state}: {', '.join(names)}" for state, names in kinds.items())
        run = entry.key.removeprefix(f"{entry.dataset}/")
        command = shlex.join(["ipd", *entry.command(out)])
        rows.append((entry.dataset, entry.origin, run, stages, f"{told.seconds / 60:.1f}", command))
    _print_columns(rows)
    say(f"{len(planned.entries)} runs, about {total / 3600:.1f} hours one after another")
    if rough:
        say(
            f"rough: nothing here has been timed with these settings for {', '.join(sorted(rough))}; "
            "taken as preset cpu with three seeds on two cores"
        )


def _print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_outcomes(planned: Plan, outcomes: dict[str, Outcome]) -> None:
    rows = [("run", "state", "minutes", "")]
    rows += [
        (entry.key, told.state, f"{told.seconds / 60:.1f}", told.line)
        for entry, told in ((entry, outcomes[entry.key]) for entry in planned.entries)
    ]
    rows += [(name, "skipped", "", why) for name, why in planned.skipped.items()]
    _print_columns(rows)


def _compare(out: Path) -> None:
    """The comparison of everything below `out`; a sweep without a single evaluation has none."""
    from ipd.cli import report
    from ipd.report.read import ReportError

    try:
        report.main([str(out)])
    except ReportError as error:
        say(f"no comparison: {error}")
