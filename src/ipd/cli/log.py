"""`ipd log`: a run's metrics for TensorBoard or W&B; the run itself knows nothing of it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ipd.cli.options import parse, say
from ipd.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Log:
    """Write a run's metrics and returns for TensorBoard or W&B, from its files, also while it is at work."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    to: Literal["tensorboard", "wandb"] = "tensorboard"
    """`wandb` writes offline unless WANDB_MODE says otherwise."""
    out: Path | None = None
    """Folder to write below; without it the one that the run is in."""
    follow: bool = False
    """Wait for the run to begin, and go on until it has ended."""


def main(argv: list[str]) -> int:
    """Parses, writes, says where."""
    options = parse(Log, argv, "log")
    from ipd.report import read
    from ipd.runs import dashboards

    run = options.run.resolve()
    if options.follow and not (run / "config.yaml").exists():
        say(f"waiting for {options.run}")
        while not (run / "config.yaml").exists():
            time.sleep(2.0)
    if not (run / "config.yaml").exists():
        raise InputError(f"{options.run}: not a run directory (no config.yaml); --follow waits for one")
    read.begin(run)
    writer = dashboards.WRITERS[options.to](run, options.out or run.parent)
    count, seeds = dashboards.copy(run, writer, options.follow)
    say(f"{count} records of {seeds} seeds: {writer.folder}")
    return 0
