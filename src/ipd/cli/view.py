"""`ipd view`: a page of imagined segments, step by step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse, say
from ipd.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class View:
    """Lay imagined segments of a run beside its log: step by step, with every plan that was weighed."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    to: Path | None = None
    """The page; without it `view.html` in the run's directory."""
    seed: int | None = None
    """One of the run's seeds; the first without it."""
    episode: int | None = None
    """Only segments from this episode of the log, counted from 0."""
    count: int = 12
    """Segments at most: spread evenly from the largest gain to the smallest."""


def _require_page(path: Path) -> None:
    """`InputError` where something that is no page would be written over."""
    if path.suffix not in (".html", ".htm"):
        raise InputError(f"--to {path}: must end in .html")
    if path.exists():
        begins = b""
        if path.is_file():  # nothing else is opened: a pipe would wait
            with path.open("rb") as file:
                begins = file.read(15)
        if begins.lower() != b"<!doctype html>":
            raise InputError(f"--to {path}: is there already, and no page; choose another name")


def main(argv: list[str]) -> int:
    """Parses, plans again, says where the page is."""
    options = parse(View, argv, "view")
    if options.count < 1:
        raise InputError(f"--count {options.count}: must be at least 1")
    if options.to is not None:
        _require_page(options.to)
    keep_compiled()
    from ipd.report import page, segments
    from ipd.runs import examples, learning, modelling, opened

    run = opened.open_run(options.run, needs=("value", "world", "augment"))
    row = run.row(options.seed)
    told = examples.provenance(run, run.seeds[row])
    picks = examples.spread(told, options.episode, options.count)
    world, split = modelling.world(run)
    shown = examples.examples(run, learning.value(run), world, split, row, told, picks)
    to = options.to or options.run / "view.html"
    to.parent.mkdir(parents=True, exist_ok=True)
    where = page.put(to, segments.page(options.run.name, shown))
    say(f"{where}: {len(picks)} of {len(told['row'])} segments of seed {run.seeds[row]}")
    return 0
