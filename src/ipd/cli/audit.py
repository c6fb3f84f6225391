"""`ipd audit`: imagined plans carried out in the simulator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse, say


@dataclasses.dataclass(frozen=True)
class Audit:
    """Compare what a run imagined with what its task's simulator does; nothing is trained."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""


def main(argv: list[str]) -> int:
    """Parses, audits, prints one line a comparison."""
    options = parse(Audit, argv, "audit")
    keep_compiled()
    from ipd.runs import files, opened, rundir

    page = opened.audit(options.run)
    seeds = rundir.read_job(options.run).seeds
    told = files.read_json(options.run / "stages" / "audit" / "summary.json")["seeds"]
    for seed, entry in zip(seeds, told, strict=True):
        say(f"seed {seed}: recorded steps replay to {entry['replay_error'] or float('nan'):.2g}")
        for row in entry["rows"]:
            states = f"  {row['states']:7} {row['planner']:7} {row['count']:4} states"
            gain = "  better in {better:.0%}  gain {gain:.1f} (imagined {imagined_gain:.1f})"
            say(states + (gain.format(**row) if row["count"] else ""))
    say(f"page: {page}")
    return 0
