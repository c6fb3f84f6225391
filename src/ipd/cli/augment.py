"""`ipd augment`: logged and imagined steps in one dataset, for any other learner."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse, say
from ipd.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Augment:
    """Enlarge a dataset by imagined segments: values, world model and planning, no policy."""

    data: str
    """What `ipd train` takes."""
    out: Path
    """The run's directory; `ipd train --out` with the same settings goes on from there."""
    to: Path
    """The dataset that is written: D4RL keys, the logged episodes first."""
    env: str | None = None
    """Task, for its bounds and its rule of termination; without one, what the data file says."""
    columns: str | None = None
    """A YAML file that says what the columns of a table are."""
    preset: str = "default"
    """Where the settings come from, such as cpu."""
    seed: int = 0
    """The one seed of the run."""


def main(argv: list[str]) -> int:
    """Trains what imagination needs, imagines, writes the set."""
    options = parse(Augment, argv, "augment")
    if options.to.suffix not in (".hdf5", ".h5"):
        raise InputError(f"--to {options.to}: must end in .hdf5")
    if options.to.exists():
        raise InputError(f"--to {options.to}: is there already; choose another name")
    if options.to.resolve().is_relative_to(options.out.resolve()):
        raise InputError(f"--to {options.to}: lies in the run's folder; choose a name outside of it")
    keep_compiled()
    from ipd.data.sources import recorded
    from ipd.presets import with_task
    from ipd.runs import enlarged
    from ipd.runs.opened import open_run
    from ipd.runs.rundir import Job
    from ipd.runs.stages import execute

    try:
        config = with_task(options.preset, options.env or recorded(options.data).task, options.data)
    except KeyError as error:
        raise InputError(f"--preset: {error.args[0]}") from error
    job = Job(options.data, options.env, (options.seed,), config, options.columns)
    execute(options.out, job, until="augment")
    run = open_run(options.out, needs=("augment",))
    if options.to.exists():
        raise InputError(f"--to {options.to}: was made by something else meanwhile; choose another name")
    made = enlarged.write(run, options.seed, options.to)
    say(f"{options.to}: {made.logged:,} logged and {made.imagined:,} imagined steps")
    return 0
