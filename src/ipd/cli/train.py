"""`ipd train`: every stage of the method on one dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, cast, get_args, get_type_hints

import tyro

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse, value_of
from ipd.config import Algo, Config, sections
from ipd.presets import with_task
from ipd.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Train:
    """Learn a policy from logged data. Interrupted, the same command goes on where it stopped."""

    data: str
    """A D4RL .hdf5, an .npz, .parquet or .csv, a folder of Minari or LeRobot, minari:ID or bundled:NAME."""
    out: Path
    """The run's directory; made if missing."""
    env: str | None = None
    """Task to try the policy in, such as Hopper-v4; without one, what the data file says."""
    columns: str | None = None
    """YAML file that says what the columns of a table are; without one DATA.columns.yaml, or a guess."""
    seeds: int = 1
    """How many seeds; they train side by side."""
    first_seed: int = 0
    """Where the seeds are counted from."""
    reuse: tuple[Path, ...] = ()
    """Other runs: take their finished stages where they are what this one would make."""
    checkpoint_seconds: float = 30.0
    """Time between checkpoints."""
    until: str | None = None
    """A stage after which nothing more is needed, such as world; without it all stages run."""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def _with_default(config: Config) -> type[Train]:
    """`Train` with the preset's values as defaults, so that help and overrides start from them.

    Only what the algorithm reads can be set.
    """
    read = {"preset", "algo", *sections(config.algo)}
    fields = [
        (name, kind, getattr(config, name)) for name, kind in get_type_hints(Config).items() if name in read
    ]
    settings = dataclasses.make_dataclass("Settings", fields, frozen=True)
    field = ("config", Annotated[settings, tyro.conf.arg(name="")], settings())
    about = {"__doc__": Train.__doc__}
    return dataclasses.make_dataclass("Train", [field], bases=(Train,), frozen=True, namespace=about)


def main(argv: list[str]) -> int:
    """Parses, trains, prints the table."""
    algo = value_of(argv, "algo") or "ipd"
    if algo not in get_args(Algo):
        raise InputError(f"--algo {algo}: unknown; there are: {', '.join(get_args(Algo))}")
    data, env = value_of(argv, "data") or "", value_of(argv, "env")
    if data and not env:
        from ipd.data.sources import recorded

        env = recorded(data).task
    try:
        config = with_task(
            value_of(argv, "preset") or "default",
            env,
            data,
            cast(Algo, algo),
        )
    except KeyError as error:
        raise InputError(f"--preset: {error.args[0]}") from error
    options = parse(_with_default(config), argv, "train")
    keep_compiled()
    from ipd.cli.report import print_table
    from ipd.runs.rundir import Job
    from ipd.runs.stages import execute

    seeds = range(options.first_seed, options.first_seed + options.seeds)
    given = {field.name: getattr(options.config, field.name) for field in dataclasses.fields(options.config)}
    settings = dataclasses.replace(config, **given)
    job = Job(options.data, options.env, tuple(seeds), settings, options.columns)
    page = execute(
        options.out, job, checkpoint_seconds=options.checkpoint_seconds, reuse=options.reuse,
        until=options.until,
    )  # fmt: skip
    print_table(options.out, page)
    return 0
