"""`ipd judge`: what a finished run's policies are worth, without a simulator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse, say

ESTIMATES = {"fqe": "fitted Q", "model": "in the model", "logged": "logged"}


@dataclasses.dataclass(frozen=True)
class Judge:
    """Estimate a run's returns from its data and its world model, if any; nothing is tried or trained."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    members: int = 4
    """Networks of fitted Q for each policy and seed; their spread makes the intervals."""
    steps: int | None = None
    """Updates of fitted Q; without it as many as the run's values took, at most 20000."""
    horizon: int = 200
    """Steps that a policy is followed in the model."""
    model: Path | None = None
    """Another run, of the same data, whose world model and values give the second opinion: for baselines."""


def main(argv: list[str]) -> int:
    """Parses, judges, prints a line a policy and the verdict."""
    options = parse(Judge, argv, "judge")
    keep_compiled()
    from ipd.runs import files, off_policy

    page = off_policy.judge(options.run, options.members, options.steps, options.horizon, options.model)
    told = files.read_json(options.run / "stages" / "judge" / "summary.json")
    width = max(map(len, told["policies"]))
    for name, each in told["policies"].items():
        said = ((label, each[how]) for how, label in ESTIMATES.items() if how in each)
        both = (f"{label} {how['mean']:.4g} [{how['low']:.4g}, {how['high']:.4g}]" for label, how in said)
        say(f"{name:{width}}  {'  '.join(both)}")
    for line in told["verdict"]:
        say(line)
    say(f"page: {page}")
    return 0
