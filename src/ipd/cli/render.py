"""`ipd render`: a video of a run's policy in its task, on a machine without a screen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse, say
from ipd.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Render:
    """Film one episode of a run's finished policy."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    to: Path | None = None
    """A .mp4 or .gif; without it `episode.gif` in the run's directory."""
    seed: int | None = None
    """One of the run's seeds; the first without it."""
    start: int = 0
    """Seed of the episode's start."""
    every: int = 2
    """Steps from one picture to the next."""
    env: str | None = None
    """Task, where the run names none."""


def main(argv: list[str]) -> int:
    """Parses, films, says where the film is."""
    options = parse(Render, argv, "render")
    path = options.to or options.run / "episode.gif"
    if path.suffix not in (".gif", ".mp4"):
        raise InputError(f"--to {path}: must end in .gif or .mp4")
    if options.every < 1:
        raise InputError(f"--every {options.every}: must be at least 1")
    from ipd.runs.rundir import read_job

    name = options.env or read_job(options.run).task
    if name is None:
        raise InputError(f"{options.run}: the run has no task to be filmed in; name one with --env ID")
    from ipd.evaluation import video  # nothing that loads MuJoCo before its way to draw is chosen

    backend = video.choose_backend()
    keep_compiled()
    from ipd.evaluation.tasks import task as find_task
    from ipd.runs import files
    from ipd.runs.opened import load

    task, controller = find_task(name), load(options.run, options.seed)
    fps = video.frames_per_second(task) / options.every
    count = 0
    with files.replacing(path) as partial:
        # the format is chosen by the name, so the name being written ends as the finished one does
        unfinished = partial.with_name(partial.name + path.suffix)
        try:
            with video.writer(unfinished, fps) as film:
                for picture in video.frames(task, controller, options.start, options.every):
                    film.append_data(picture)
                    count += 1
            unfinished.replace(partial)
        finally:
            unfinished.unlink(missing_ok=True)
    say(f"{path}: {count} pictures of {task.id}, drawn with {backend}")
    return 0
