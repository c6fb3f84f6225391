"""A run's metrics and returns for TensorBoard or Weights & Biases, read from its files.

Nothing here is part of a run: it is read, finished or at work, by another process, so a writer that
fails cannot stop it, and what is written lies outside its directory.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ipd.config import read_yaml
from ipd.report import read
from ipd.runs import files
from ipd.runs.errors import InputError

FAR = 2**63
"""No step is as far, and event files hold none."""


class Point(NamedTuple):
    """What one seed said at one moment."""

    seed: int
    place: str
    """The stage; for returns `evaluate/POLICY`."""
    step: int
    """Updates of the stage, or of the policy."""
    values: Mapping[str, float]


@runtime_checkable
class Writer(Protocol):
    """Takes the points of a run, each once, in the order of its files."""

    def write(self, point: Point) -> None:
        """Keeps one point."""

    def flush(self) -> None:
        """Makes what was kept visible."""

    def close(self) -> None:
        """Called once, at the end."""


def points(run: Path) -> Iterator[Point]:
    """All of `metrics.jsonl`, then the mean return of each policy, seed and step of `evaluations.csv`.

    A last line that is still being written is left for later; a missing file has no points.
    """
    path = run / "metrics.jsonl"
    for number, line in enumerate(
        path.read_text(errors="replace").splitlines(keepends=True) if path.is_file() else [], 1
    ):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            if isinstance(record, dict) and "warning" in record:
                continue
            yield _point(record)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is no record of metrics; restore the file") from error
    yield from _returns(run)


def _point(record: dict[str, Any]) -> Point:
    stage, step, seed = (record.pop(name) for name in ("stage", "step", "seed"))
    if not (
        isinstance(seed, int) and isinstance(step, int) and abs(step) < FAR and re.fullmatch(r"\w+", stage)
    ):
        raise ValueError("stage, step and seed are a name and whole numbers")
    return Point(
        seed, stage, step, {str(name): float(value) for name, value in record.items() if value is not None}
    )


def _returns(run: Path) -> Iterator[Point]:
    episodes: dict[tuple[str, int, int], dict[str, list[float]]] = {}
    for row in read.evaluations(run):
        if abs(row.step) >= FAR:
            raise InputError(f"{run / 'evaluations.csv'}: step {row.step:.3g} is none; restore the file")
        found = episodes.setdefault((row.policy, row.seed, row.step), {})
        found.setdefault("return", []).append(row.ret)
        if not math.isnan(row.normalized):
            found.setdefault("normalized", []).append(row.normalized)
    for (policy, seed, step), found in episodes.items():
        means = {name: sum(values) / len(values) for name, values in found.items()}
        yield Point(seed, f"evaluate/{policy}", step, means)


def identity(run: Path) -> str:
    """The same for a run whenever it goes on: of its name, its config and what it began with."""
    parts = (run.name.encode(), *((run / name).read_bytes() for name in ("config.yaml", "manifest.json")))
    return files.digest(b"\0".join(parts))[:12]


def copy(
    run: Path, writer: Writer, follow: bool = False, wait: Callable[[float], None] = time.sleep
) -> tuple[int, int]:
    """Writes every point of `run` once; with `follow` also those to come, until the run has its page.

    A run that went back to a checkpoint says again what it said: that is not written twice. Returns the
    number of points and of seeds.
    """
    written: set[tuple[int, str, int]] = set()
    try:
        while True:
            over = not follow or _is_over(run)  # asked first: what is written meanwhile is still read
            for point in points(run):
                if point[:3] not in written:
                    writer.write(point)
                    written.add(point[:3])
            writer.flush()
            if over:
                return len(written), len({seed for seed, *_ in written})
            wait(2.0)
    finally:
        writer.close()


def _is_over(run: Path) -> bool:
    """The page is a run's last file; an older one is from before the run went on."""
    page, log = run / "report.html", run / "metrics.jsonl"
    return page.exists() and not (log.exists() and log.stat().st_mtime_ns > page.stat().st_mtime_ns)


class TensorBoard:
    """Event files in OUT/tensorboard/RUN/seed-N; those of an earlier call are replaced."""

    def __init__(self, run: Path, out: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise InputError("--to tensorboard needs tensorboardX: pip install 'ipd[log]'") from error
        self.folder, self._make, self._seeds = out / "tensorboard" / run.name, SummaryWriter, dict[int, Any]()
        for old in self.folder.glob("seed-*/events.out.tfevents.*"):
            old.unlink()

    def write(self, point: Point) -> None:
        """One scalar a metric, named STAGE/METRIC."""
        if point.seed not in self._seeds:
            # a TensorBoard that is open forgets what it had read from the replaced files
            self._seeds[point.seed] = self._make(str(self.folder / f"seed-{point.seed}"), purge_step=0)
        for name, value in point.values.items():
            self._seeds[point.seed].add_scalar(f"{point.place}/{name}", value, point.step)

    def flush(self) -> None:
        """Writes the files."""
        for seed in self._seeds.values():
            seed.flush()

    def close(self) -> None:
        """Closes the files."""
        for seed in self._seeds.values():
            seed.close()


class _Begun(NamedTuple):
    run: Any
    first: int
    """Number of the first record that the server does not have."""
    numbers: Iterator[int]
    places: set[str]


class WandB:
    """A W&B run a seed, in one group, with an id that stays; below OUT/wandb, offline.

    Environment variables of W&B hold, so `WANDB_MODE=online` sends what is written.
    """

    def __init__(self, run: Path, out: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError("--to wandb needs W&B's client: pip install 'ipd[wandb]'") from error
        self.folder, self._run, self._wandb = out / "wandb", run, wandb
        self._id, self._config = identity(run), read_yaml((run / "config.yaml").read_text())
        self._seeds: dict[int, _Begun] = {}

    def write(self, point: Point) -> None:
        """One record, over the updates of its stage; what the server has of this run is passed over."""
        if point.seed not in self._seeds:
            self._seeds[point.seed] = self._begin(point.seed)
        begun, over = self._seeds[point.seed], f"{point.place}/step"
        number = next(begun.numbers)
        if point.place not in begun.places:
            begun.places.add(point.place)
            begun.run.define_metric(f"{point.place}/*", step_metric=over)
        if number >= begun.first:
            values = {f"{point.place}/{name}": value for name, value in point.values.items()}
            begun.run.log(values | {over: point.step}, step=number)

    def _begin(self, seed: int) -> _Begun:
        name = self._run.name
        run = self._wandb.init(
            id=f"{self._id}-{seed}", name=f"{name}/seed-{seed}", group=name, resume="allow",
            project=os.environ.get("WANDB_PROJECT", "ipd"), mode=os.environ.get("WANDB_MODE", "offline"),
            dir=str(self.folder.parent), config=self._config | {"seed": seed}, reinit="create_new",
            settings={"silent": True, "console": "off"},
        )  # fmt: skip
        return _Begun(run, run.step, itertools.count(), set())

    def flush(self) -> None:
        """W&B sends or writes when it likes."""

    def close(self) -> None:
        """Ends the runs; they can be taken up again."""
        for seed in self._seeds.values():
            seed.run.finish()


WRITERS: dict[str, Callable[[Path, Path], TensorBoard | WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}
