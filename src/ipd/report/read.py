"""A run directory as plain Python; what a run has not made yet reads as empty."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from ipd.config import format_problem, read_yaml, seal_problem

Floats = NDArray[np.float64]
Number = float | int
Series = dict[int, tuple[Floats, Floats]]
"""One metric: seed to (updates done, value at that time)."""

STAGES = ("data", "value", "world", "augment", "view", "cloning", "refit", "policy", "evaluate", "audit",
          "judge")  # fmt: skip
SIMULATOR = ("gymnasium", "gymnasium-robotics", "mujoco")
"""Packages with which returns change."""


class ReportError(ValueError):
    """A run directory that cannot be read; the message names file, place and reason."""


class Evaluation(NamedTuple):
    """One line of ``evaluations.csv``: one episode in the real task, logged units."""

    policy: str
    seed: int
    step: int
    episode: int
    ret: float
    length: int
    normalized: float
    """D4RL scale, 0 random to 100 expert; NaN for a task without reference values."""


class Run(NamedTuple):
    """Everything the page and the tables need of a run."""

    config: str
    """``config.yaml`` as written; empty when there is none."""
    manifest: dict[str, Any]
    metrics: dict[str, dict[str, Series]]
    """stage, then metric name."""
    summaries: dict[str, dict[str, Any]]
    evaluations: list[Evaluation]
    algo: str = "ipd"
    """The algorithm, whose policy has the same name."""
    failed: dict[str, dict[str, str]] = {}  # noqa: RUF012
    """Stage, then seed -> what was not finite, where a seed was stopped."""

    @property
    def taskless(self) -> bool:
        """Whether there is nothing to try or audit the policy in, so that those commands are refused."""
        return "task" in self.manifest and self.manifest["task"] is None and not self.evaluations


@contextmanager
def understood(run: Path) -> Iterator[None]:
    """What cannot be made of the values in a run's files comes out as a ReportError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(
            f"{run}: manifest.json, a summary.json or evaluations.csv in it does not hold what it should "
            f"({error!r:.200}); restore it, or run the same `ipd train` again"
        ) from error


def floats(values: Iterable[Any]) -> Floats:
    """A list of JSON numbers as float64; null becomes NaN."""
    return np.array([math.nan if value is None else float(value) for value in values], np.float64)


def stranger(run: Path) -> str:
    """What is wrong with the first thing below a run that leads out of it or is no plain file, or "".

    Reading a pipe would wait for ever, and writing through a link would change what is not the run's.
    """
    root = Path(os.path.realpath(run))
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder, name)
            inside = Path(os.path.realpath(path)).is_relative_to(root)
            if path.is_symlink() and not (inside and path.exists()):
                return f"{path}: is a link that leads {'to nothing' if inside else 'out of the run'}"
            if path.exists() and not (path.is_file() or path.is_dir()):
                return f"{path}: is no plain file"
    return ""


def begin(run: Path) -> tuple[str, dict[str, Any]]:
    """config.yaml as written and the manifest. Raises ReportError where RUN is not to be read at all."""
    if not any((run / name).is_file() for name in ("manifest.json", "config.yaml", "metrics.jsonl")):
        raise ReportError(f"{run}: not a run directory (no manifest.json); `ipd train --out RUN` makes one")
    if stranger(run):
        raise ReportError(f"{stranger(run)}; copy what belongs to the run into it, and delete the rest")
    manifest = read_manifest(run)
    config = run / "config.yaml"
    text = _text(config) if config.is_file() else ""
    _algo(text)
    return text, manifest


def load(run: Path) -> Run:
    """Reads RUN. Raises ReportError if it is no run directory or a file in it is damaged."""
    text, manifest = begin(run)
    summaries = {stage: _summary(run / "stages" / stage) for stage in STAGES}
    return Run(
        config=text,
        manifest=manifest,
        metrics=read_metrics(run / "metrics.jsonl"),
        summaries={stage: summary for stage, summary in summaries.items() if summary},
        evaluations=evaluations(run),
        algo=_algo(text),
        failed={
            path.parent.name: {
                str(seed): str(text) for seed, text in read_json(path).get("seeds", {}).items()
            }
            for path in sorted((run / "stages").glob("*/failed.json"))
        },
    )


def _summary(stage: Path) -> dict[str, Any]:
    """summary.json of a stage; {} where it is missing. Raises ReportError where its digest is another one."""
    _verify(stage / "summary.json", stage)
    return read_json(stage / "summary.json")


def _verify(path: Path, stage: Path) -> None:
    told = read_json(stage / "done.json").get("sha256")
    wanted = told.get(path.name) if isinstance(told, dict) else None
    if wanted is not None and not (
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == wanted
    ):
        raise ReportError(
            f"{path}: damaged, its sha256 is not the one in done.json; delete {stage} and run the same "
            "`ipd train` again"
        )


def read_manifest(run: Path) -> dict[str, Any]:
    """manifest.json; {} where it is missing. Raises ReportError where the run is of a later format."""
    manifest = read_json(run / "manifest.json")
    if format_problem(manifest):
        raise ReportError(f"{run / 'manifest.json'}: {format_problem(manifest)}")
    return manifest


def simulator(run: Path, manifest: dict[str, Any]) -> dict[str, str]:
    """Package -> version of what the policies were tried in.

    The evaluation tells, which may be of a later day than the manifest; a run older than that has the
    manifest's; {} where neither tells.
    """
    told = _summary(run / "stages" / "evaluate").get("versions", manifest.get("versions", {}))
    if not isinstance(told, dict):
        raise ReportError(f"{run}: versions in manifest.json or of the evaluation are no object")
    return {name: str(told[name]) for name in SIMULATOR if name in told}


def _algo(config: str) -> str:
    """The algorithm that a ``config.yaml`` names; a run older than this setting is one of IPD."""
    try:
        settings, problem = read_yaml(config), seal_problem(config)
    except yaml.YAMLError as error:
        raise ReportError(f"config.yaml: not YAML ({' '.join(str(error).split())})") from None
    if problem:
        raise ReportError(f"config.yaml: {problem}")
    return str(settings.get("algo", "ipd")) if isinstance(settings, dict) else "ipd"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ReportError(f"{path}: no text ({error})") from None


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object; {} where the file is missing."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not JSON ({error}); run the same `ipd train` again") from None
    if not isinstance(value, dict):
        raise ReportError(f"{path}: holds a {type(value).__name__}, not an object")
    return value


def read_metrics(path: Path) -> dict[str, dict[str, Series]]:
    """``metrics.jsonl`` by stage, metric and seed, in the order of the file."""
    found: dict[str, dict[str, dict[int, tuple[list[Any], list[Any]]]]] = {}
    lines = _text(path).splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if isinstance(record, dict) and "warning" in record:  # the summaries have them too
                continue
            stage, step, seed = str(record.pop("stage")), float(record.pop("step")), int(record.pop("seed"))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if number == len(lines):  # a run at work: the line is being written
                break
            raise ReportError(f"{path}: line {number} is no metrics record ({error!r:.200})") from None
        for name, value in record.items():
            if value is None or isinstance(value, (int, float)):
                steps, values = found.setdefault(stage, {}).setdefault(name, {}).setdefault(seed, ([], []))
                steps.append(step)
                values.append(value)
    return {
        stage: {
            name: {seed: (floats(steps), floats(values)) for seed, (steps, values) in sorted(series.items())}
            for name, series in metrics.items()
        }
        for stage, metrics in found.items()
    }


def evaluations(run: Path) -> list[Evaluation]:
    """Those of a run, as it left them. Raises ReportError where the file is another one."""
    _verify(run / "evaluations.csv", run / "stages" / "evaluate")
    return read_evaluations(run / "evaluations.csv")


def read_evaluations(path: Path) -> list[Evaluation]:
    """``evaluations.csv``, one entry an episode; [] where the file is missing."""
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        try:
            found = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ReportError(f"{path}: no table of text ({error})") from None
        for number, row in enumerate(found, start=2):
            try:
                rows.append(
                    Evaluation(
                        policy=row["policy"],
                        seed=int(row["seed"]),
                        step=int(row["step"]),
                        episode=int(row["episode"]),
                        ret=float(row["return"]),
                        length=int(row["length"]),
                        normalized=float(row["normalized"] or "nan"),
                    )
                )
            except (KeyError, ValueError, TypeError) as error:
                raise ReportError(f"{path}: line {number} is no evaluation ({error!r:.200})") from None
    return rows
