"""A run directory: made whole or not at all, worked on by one process, never with another config."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from ipd.config import ADDED, Algo, Config, read_yaml, seal_problem, sealed, sections
from ipd.report.read import stranger
from ipd.runs import files, made_of
from ipd.runs.checkpoint import CheckpointStore
from ipd.runs.errors import InputError, RunFailed

PACKAGES = (
    "ipd",
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "numpy",
    "h5py",
    "gymnasium",
    "gymnasium-robotics",
    "mujoco",
)


RETRIED = "evaluate.final_episodes"
"""What `ipd evaluate` may change of a run's config."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run is to do; `config.yaml` is this and nothing else."""

    data: str
    """Source of the data, as `ipd.data.sources.load` takes it."""
    task: str | None
    """Gymnasium id; None trains without evaluating."""
    seeds: tuple[int, ...]
    config: Config
    columns: str | None = None
    """YAML file that says what the columns of a table are; in `config.yaml` only where there is one."""


def to_plain(job: Job) -> dict[str, Any]:
    """The job as nested dicts and lists, in reading order; only what its algorithm reads."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else value

    values: dict[str, Any] = plain(job)
    config: dict[str, Any] = values.pop("config")
    if job.columns is None:
        del values["columns"]
    read = {"preset", "algo", *sections(job.config.algo)}
    return values | {name: section for name, section in config.items() if name in read}


def from_plain(values: dict[str, Any], path: Path) -> Job:
    """The inverse of `to_plain`; `InputError` names the field that is missing, unknown or of another type.

    Fields in `ADDED` may be missing: the file is older than they are.
    """

    def build(example: Any, values: Any, where: str, unread: set[str] | frozenset[str] = frozenset()) -> Any:
        if dataclasses.is_dataclass(example) and not isinstance(example, type):
            names = [field.name for field in dataclasses.fields(example) if field.name not in unread]
            if isinstance(values, dict):
                added: dict[str, Any] = {
                    n: {} for n in names if any(k.startswith(f"{where}{n}.") for k in ADDED)
                }
                values = added | {n: ADDED[where + n] for n in names if where + n in ADDED} | values
            odd = sorted(set(values) ^ set(names)) if isinstance(values, dict) else [where]
            if odd:
                cure = "upgrade ipd if a later one made the run, else restore the line"
                raise InputError(f"{path}: field {where}{odd[0]} is missing or unknown; {cure}")
            parts = {name: build(getattr(example, name), values[name], f"{where}{name}.") for name in names}
            return type(example)(**parts)
        if isinstance(example, tuple) and isinstance(values, list):
            return tuple(values)
        if isinstance(example, float) and isinstance(values, int):
            return float(values)
        if type(values) is not type(example):
            raise InputError(
                f"{path}: field {where.rstrip('.')} is {values!r}, expected a {type(example).__name__}"
            )
        return values

    try:
        rest = dict(values)
        data, task, seeds = str(rest.pop("data")), rest.pop("task"), tuple(int(s) for s in rest.pop("seeds"))
        columns = rest.pop("columns", None)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: data, task or seeds cannot be read ({error!r})") from error
    if not isinstance(columns, str | None):
        raise InputError(f"{path}: field columns is {columns!r}, expected a str")
    algo: Any = rest.get("algo")
    if algo not in get_args(Algo):
        raise InputError(f"{path}: field algo is {algo!r}, expected one of {', '.join(get_args(Algo))}")
    unread = {field.name for field in dataclasses.fields(Config)} - {"preset", "algo", *sections(algo)}
    return Job(data, task, seeds, build(Config(), rest, "", unread), columns)


def read_job(folder: Path) -> Job:
    """The job of the run in `folder`. Raises `InputError` where this version cannot read it."""
    path = folder / "config.yaml"
    require_plain(folder)
    if not path.is_file():
        raise InputError(
            f"{folder}: not a run directory (no config.yaml); `ipd train --out {folder}` makes one"
        )
    files.require_format(folder)
    try:
        text = path.read_text()
        values, problem = read_yaml(text), seal_problem(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())}); restore it") from error
    job = from_plain(values, path)  # before the seal: a field that cannot be is named
    if problem:
        raise InputError(f"{path}: {problem}")
    return job


def write_job(folder: Path, job: Job) -> None:
    """Writes config.yaml."""
    text = sealed(yaml.safe_dump(to_plain(job), sort_keys=False))
    files.write_bytes(folder / "config.yaml", text.encode())


def differences(old: Job, new: Job) -> list[str]:
    """Dotted fields in which two jobs differ, as `name: old -> new`; names of source and map do not count."""

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in values.items():
            found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return found

    mine, other = flat(to_plain(old)), flat(to_plain(new))
    return [
        f"{key}: {mine[key]} -> {other.get(key)}"
        for key in mine
        if key not in {"data", "columns"} and mine[key] != other.get(key)
    ]


def clashes(held: Job, asked: Job) -> list[str]:
    """Differences between two jobs that cannot be in one folder."""
    return [each for each in differences(held, asked) if not each.startswith(f"{RETRIED}:")]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds RUN/lock; `InputError` where another process does. The kernel frees it when the process dies.

    An error of the disk within comes out as a `RunFailed` that says what is whole.
    """
    try:
        with (folder / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                cure = "wait for it to end, or choose another --out"
                raise InputError(f"{folder}: another process is working on this run; {cure}") from error
            files.remove_partial(folder)
            with files.held(folder, file.fileno()):
                yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise RunFailed(
            f"{error.filename or folder}: {why}; the run in {folder} is whole as far as it was saved "
            f"({last_good(folder)}); with room on a disk that can be written to, the same command goes on"
        ) from error


def claim(folder: Path, job: Job, manifest: dict[str, Any]) -> list[str]:
    """Makes `folder` the run of `job`, or checks that it already is; call it with the lock held.

    `InputError` where it holds another config or other data. Returns the package versions that
    changed since the run began, one line each.
    """
    if not (folder / "config.yaml").exists():
        files.write_json(folder / "manifest.json", manifest)
        write_job(folder, job)
        return []
    before = read_job(folder)
    changed = clashes(before, job)
    if changed:
        text = "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
        raise InputError(f"{folder}: holds a run of another config ({text}); choose another --out")
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"{path}: is missing; restore it, or choose another --out")
    with files.understood(path):
        old = files.read_object(path)
        digest, was = old["data"]["digest"], dict(old["versions"])
    if digest != manifest["data"]["digest"]:
        raise InputError(
            f"{folder}: began with data of digest {digest}, {manifest['data']['source']} has "
            f"{manifest['data']['digest']}; choose another --out"
        )
    if before.config.evaluate != job.config.evaluate:  # `ipd evaluate` tried other numbers
        write_job(folder, job)
    return changed_versions(was, manifest["versions"])


def changed_versions(was: dict[str, Any], now: dict[str, str]) -> list[str]:
    """The packages whose versions changed since a run began, one line each."""
    return [f"{name} was {was.get(name)}, is {now[name]}" for name in now if was.get(name) != now[name]]


def last_good(folder: Path) -> str:
    """What of a run is whole on disk, for a person: finished stages, and how far the others are saved."""
    stages = sorted((folder / "stages").glob("*/"), key=lambda path: path.stat().st_mtime)
    done = [path.name for path in stages if (path / "done.json").exists()]
    saved = [f"{path.name} at update {steps[-1]}" for path in stages
             if path.name not in done and (steps := CheckpointStore(path, "").steps())]  # fmt: skip
    parts = [f"finished: {', '.join(done)}"] * bool(done) + [f"saved: {', '.join(saved)}"] * bool(saved)
    return "; ".join(parts) or "no stage has begun"


def require_usable(folder: Path) -> None:
    """`InputError` where `folder` is a file, holds things but no run, or a run of a later format."""
    require_plain(folder)
    if folder.is_dir():
        strangers = [path.name for path in folder.iterdir() if path.name not in {"lock", "manifest.json"}]
        strangers = [name for name in strangers if not name.endswith(files.PARTIAL)]
        if strangers and not (folder / "config.yaml").exists():
            raise InputError(f"{folder}: not empty and not a run ({strangers[0]}); choose another --out")
        files.require_format(folder)
    elif folder.exists():
        raise InputError(f"{folder}: is a file; choose another --out")


def require_plain(folder: Path) -> None:
    """`InputError` where something below `folder` leads out of it: a command would write there."""
    odd = stranger(folder)
    if odd:
        raise InputError(f"{odd}; copy what belongs to the run into {folder}, and delete the rest")


def versions() -> dict[str, str]:
    """Python and the packages that results depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@cache
def software() -> str:
    """Digest of all source files of the package, with the versions of what they use; of the first call."""
    total = hashlib.sha256(repr(sorted(versions().items())).encode())
    for path, content in made_of.sources().items():
        total.update(path.encode() + b"\0" + content)
    return total.hexdigest()[:16]
