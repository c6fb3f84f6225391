"""Which inputs are spoiled in which ways, and what reads them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ipd.export.runner import digest_of

from .specimens import FORMATS, arrays
from .wrong_archives import NPZ, NPZ_BOMB, PARQUET, PARQUET_BOMB
from .wrong_arrays import BOMB, HDF5, odd
from .wrong_files import CSV, FILE, HOSTILE, TREE, VALUES, YAML, Change

Read = Callable[[Path, random.Random], Any]
BY_SUFFIX: dict[str, Mapping[str, Change]] = {
    ".hdf5": HDF5,
    ".npz": NPZ,
    ".parquet": PARQUET,
    ".csv": CSV,
    ".json": TREE,
    ".jsonl": TREE,
    ".yaml": YAML,
}
BOMBS: dict[str, Mapping[str, Change]] = {".hdf5": BOMB, ".npz": NPZ_BOMB, ".parquet": PARQUET_BOMB}


class Target(NamedTuple):
    """An input and its reader."""

    specimen: str
    """A file or a folder of the specimens; "" for none."""
    read: Read
    weight: int = 10
    """How many of the cases."""
    only: tuple[str, ...] = ()
    """Globs of the files that are spoiled; all without it."""
    signed: bool = False
    """Whether digests are sometimes made to fit."""
    seconds: float = 0.0
    """What an accepted case may take beyond ten seconds: stages that are trained again."""


def _load(path: Path, draw: random.Random) -> None:
    from ipd.data.sources import load

    load(str(path))


def _named(path: Path, draw: random.Random) -> None:
    """Names instead of files."""
    from ipd.data.sources import load

    load(
        draw.choice(["bundled:", "minari:", "", str(path) + "/", "minari:../"])
        + draw.choice([*HOSTILE, "/dev/zero", ".hdf5"]),
        columns=draw.choice([None, "/dev/zero", "absent.yaml"]),
    )


def _arrays(path: Path, draw: random.Random) -> None:
    from ipd.data.episodes import Episodes

    given: dict[str, Any] = arrays()
    given["terminated"], given["truncated"] = given.pop("terminals"), given.pop("timeouts")
    key = draw.choice(list(given))
    huge = [np.broadcast_to(np.float32(1), (2**40, 3)), np.broadcast_to(np.float32(1), (60, 2**40))]
    how = draw.choice(["odd", "odd", "odd", "value", "huge", "names", "ragged"])
    if how == "odd":
        given[key] = odd(draw, given[key])
    elif how == "value":
        given[key] = draw.choice([*VALUES, object(), {1, 2}, print])
    elif how == "huge":
        given[key] = draw.choice(huge)
    elif how == "ragged":
        given[key] = [[1.0] * (i % 3) for i in range(60)]
    else:
        given[draw.choice(["observation_names", "action_names", "task"])] = draw.choice(
            [3, "abcde", [1, 2], [None] * 5, [["a"]] * 5]
        )
    Episodes.from_arrays(**given)


def _command(*words: str) -> Read:
    def run(path: Path, draw: random.Random) -> None:
        from ipd.cli import main

        main([*(word.replace("PATH", str(path)) for word in words), "--debug"])

    return run


def _train(path: Path, draw: random.Random) -> None:
    from faults.conftest import OPTIONS
    from ipd.cli import main

    data, out = str(path / "small.hdf5"), str(path / "run")
    main(["train", "--data", data, "--out", out, *OPTIONS, "--debug"])


def _acting(path: Path, draw: random.Random) -> None:
    import ipd

    policy = ipd.load(path)
    policy.reset()
    policy.act(np.zeros(11))


def _world(path: Path, draw: random.Random) -> None:
    import ipd

    ipd.load_world(path)(np.zeros((2, 11), np.float32), np.zeros((2, 3), np.float32))


def _values(path: Path, draw: random.Random) -> None:
    import ipd

    ipd.load_values(path, refitted=draw.random() < 0.5).v(np.zeros((2, 11), np.float32))


def _runner(path: Path, draw: random.Random) -> None:
    from ipd.export.runner import Runner

    policy = Runner(path)
    for _ in range(2):
        policy.act(policy.contract["observation"]["mean"], 0.0)


TARGETS: dict[str, Target] = {
    "hdf5": Target("data.hdf5", _load, 60),
    "npz": Target("data.npz", _load, 40),
    "parquet": Target("data.parquet", _load, 40),
    "csv": Target("data.csv", _load, 40),
    "csv map": Target("data.csv", _load, 20, False, ("*.yaml",)),
    "lerobot 2": Target("lerobot2", _load, 20),
    "lerobot 3": Target("lerobot3", _load, 30),
    "minari": Target("minari", _load, 60),
    "names": Target("", _named, 10),
    "arrays": Target("", _arrays, 20),
    "report": Target("run", _command("report", "PATH"), 80, ("*.json", "*.jsonl", "*.yaml", "*.csv")),
    "report (many)": Target(
        "sweep", _command("report", "PATH"), 30, ("**/*.json", "**/*.jsonl", "**/*.yaml", "**/*.csv")
    ),
    "log": Target("run", _command("log", "PATH", "--out", "PATH/log"), 15, ("*.jsonl", "*.csv", "*.yaml")),
    "sweep": Target(
        "sweep",
        _command(
            "sweep",
            "table1",
            "--out",
            "PATH",
            "--preset",
            "tiny",
            "--dry-run",
            "--tasks",
            "hopper-medium-replay",
            "--algos",
            "ipd",
        ),
        15,
        ("*.json", "**/seeds-0-1.json", "**/config.yaml", "**/done.json", "**/timing.jsonl"),
    ),
    "sweep (data)": Target(
        "root",
        _command(
            "sweep",
            "table1",
            "--out",
            "PATH/out",
            "--data-root",
            "PATH",
            "--preset",
            "tiny",
            "--dry-run",
            "--tasks",
            "hopper-medium-replay",
            "--algos",
            "ipd",
        ),
        5,
    ),
    "load": Target(
        "run", _acting, 40, ("*.json", "*.yaml", "stages/value/*", "stages/refit/*", "stages/policy/*"), True
    ),
    "load_world": Target("run", _world, 15, ("*.json", "*.yaml", "stages/world/*"), True),
    "load_values": Target("run", _values, 15, ("*.json", "*.yaml", "stages/value/*", "stages/refit/*"), True),
    "train": Target("whole", _train, 8, ("run/**/*",), seconds=120.0),
    "evaluate": Target("run", _command("evaluate", "PATH", "--episodes", "1"), 8),
    "audit": Target("run", _command("audit", "PATH"), 5),
    "judge": Target("run", _command("judge", "PATH"), 5),
    "view": Target("run", _command("view", "PATH", "--count", "2"), 8),
    "export": Target("run", _command("export", "PATH", "--format", "safetensors", "--to", "PATH/made"), 8),
    **{
        f"runner ({kind})": Target(f"export-{kind}", _runner, weight, (), True)
        for kind, weight in zip(FORMATS, (30, 40, 10), strict=True)
    },
}
SLOW = (
    "load",
    "load_world",
    "load_values",
    "train",
    "evaluate",
    "audit",
    "judge",
    "view",
    "export",
    "runner (stablehlo)",
)
"""What is too slow for the short form."""


def files_of(target: Target, folder: Path) -> list[Path]:
    """Those that may be spoiled."""
    if folder.is_file():
        return [folder] if not target.only else sorted(folder.parent.glob("*.yaml"))
    globs = target.only or ("**/*",)
    globs = tuple(f"{'' if '/' in glob else '**/'}{glob}" for glob in globs)
    found = {path for glob in globs for path in folder.glob(glob) if path.is_file()}
    return sorted(path for path in found if path.name not in ("lock", "report.html", "runner.py"))


def sign(folder: Path) -> None:
    """Makes the digests in a run or an export those of its files: an enemy's, not an accident's."""

    def of(path: Path) -> str:
        if not path.is_file():
            raise OSError("no plain file")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    for path in filter(Path.is_file, folder.glob("**/*.json")):
        try:
            told = json.loads(path.read_text())
            if path.name == "done.json":
                places = [path.with_name("summary.json"), *folder.glob("augmented.hdf5")]
                told["sha256"] = {place.name: of(place) for place in places}
            elif path.with_suffix(".safetensors").is_file():
                told["sha256"] = of(path.with_suffix(".safetensors"))
            elif path.name == "contract.json":
                told["policy"]["sha256"] = of(path.with_name(told["policy"]["file"]))
                told["sha256"] = digest_of(told)
            else:
                continue
            path.write_text(json.dumps(told))
        except (ValueError, LookupError, TypeError, OSError, RecursionError):  # spoiled beyond that
            continue


def spoil(target: Target, folder: Path, outside: Path, draw: random.Random, mutation: str = "") -> str:
    """Spoils one file, in the way of that name if given; returns what was done."""
    files = files_of(target, folder)
    if not files:
        return "names and values"
    suffixes = sorted({path.suffix for path in files})
    suffix = draw.choice(suffixes)  # else the many summaries would hide the few configs
    path = draw.choice([each for each in files if each.suffix == suffix])
    own = BY_SUFFIX.get(suffix, {})
    if mutation:
        change = ({**FILE, **own, **BOMBS.get(suffix, {})})[mutation]
    else:
        mutation, change = draw.choice([*FILE.items()] if not own or draw.random() < 0.4 else [*own.items()])
    try:
        change(draw, path, outside)
        if folder.is_dir() and target.signed and draw.random() < 0.4:
            sign(folder)
            mutation += ", signed"
    except (OSError, ValueError, TypeError, LookupError):  # what cannot even be written; often half of it was
        mutation += " (as far as it goes)"
    return mutation
