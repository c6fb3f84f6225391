"""Valid inputs of every kind, made once in a folder: what mutations are made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ipd.data.convert import to_minari, to_parquet
from ipd.data.episodes import Episodes
from ipd.export.write import export

STEPS, OBSERVATION, ACTION = 60, 5, 3
FORMATS = ("onnx", "safetensors", "stablehlo")


def arrays() -> dict[str, Any]:
    """D4RL's keys: 60 steps in 3 episodes, 5 observation and 3 action dimensions."""
    random = np.random.default_rng(0)
    states = random.normal(size=(STEPS + 1, OBSERVATION)).astype(np.float32)
    return {
        "observations": states[:-1],
        "actions": random.uniform(-1, 1, (STEPS, ACTION)).astype(np.float32),
        "rewards": random.normal(size=STEPS).astype(np.float32),
        "next_observations": states[1:],
        "terminals": np.arange(STEPS) == 19,
        "timeouts": np.isin(np.arange(STEPS), (39, 59)),
    }


def _episodes() -> Episodes:
    given = arrays()
    names = {"terminals": "terminated", "timeouts": "truncated"}
    return Episodes.from_arrays(**{names.get(key, key): value for key, value in given.items()})


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for key, value in arrays().items():
            file.create_dataset(key, data=value, compression="gzip", chunks=True)
        file.attrs["task"] = "Hopper-v4"
        file.attrs["observation_names"] = json.dumps([f"s{i}" for i in range(OBSERVATION)])


def _csv(path: Path) -> None:
    given = arrays()
    wide = {f"obs_{i}": given["observations"][:, i] for i in range(OBSERVATION)}
    wide |= {f"act_{i}": given["actions"][:, i] for i in range(ACTION)}
    wide |= {"reward": given["rewards"], "terminated": given["terminals"].astype(int)}
    wide |= {"episode": np.arange(STEPS) // 20, "time": np.arange(STEPS) % 20}
    lines = [",".join(wide), *(",".join(map(str, row)) for row in zip(*wide.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    columns = {
        key: [name for name in wide if name.startswith(key[:3])] for key in ("observations", "actions")
    }
    columns |= {"reward": "reward", "terminated": "terminated", "episode": "episode", "time": "time"}  # type: ignore[dict-item]
    path.with_name(path.name + ".columns.yaml").write_text(json.dumps(columns))


def _lerobot(folder: Path, version: str) -> None:
    import pyarrow
    import pyarrow.parquet

    given = arrays()
    table = {
        "observation.state": pyarrow.array(given["observations"].tolist()),
        "action": pyarrow.array(given["actions"].tolist()),
        "next.reward": given["rewards"],
        "next.done": given["terminals"],
        "episode_index": np.arange(STEPS) // 20,
        "timestamp": np.arange(STEPS) % 20 / 10,
    }
    whole = pyarrow.table(table)
    (folder / "meta").mkdir(parents=True)
    (folder / "data" / "chunk-000").mkdir(parents=True)
    features = {
        "observation.state": {"dtype": "float32", "shape": [OBSERVATION], "names": ["a", "b", "c", "d", "e"]},
        "action": {"dtype": "float32", "shape": [ACTION], "names": {"motors": ["x", "y", "z"]}},
    }
    told = {"codebase_version": version, "total_frames": STEPS, "features": features}
    (folder / "meta" / "info.json").write_text(json.dumps(told))
    parts = [("file-000", whole)]
    if version == "v2.1":
        parts = [(f"episode_00000{i}", whole.slice(20 * i, 20)) for i in range(3)]
    for name, part in parts:
        pyarrow.parquet.write_table(part, folder / "data" / "chunk-000" / f"{name}.parquet")


def make(folder: Path, run: Path, data: Path) -> None:
    """Every specimen below `folder`; `run` is a finished run of `data`, of which exports are made."""
    folder.mkdir(parents=True)
    _hdf5(folder / "data.hdf5")
    np.savez_compressed(folder / "data.npz", **arrays())
    to_parquet(_episodes(), folder / "data.parquet")
    _csv(folder / "data.csv")
    _lerobot(folder / "lerobot2", "v2.1")
    _lerobot(folder / "lerobot3", "v3.0")
    to_minari(_episodes(), folder / "minari")
    shutil.copytree(run, folder / "run")
    shutil.copytree(run, folder / "whole" / "run")
    shutil.copyfile(data, folder / "whole" / "small.hdf5")
    (folder / "sweep" / "hopper-medium-replay" / "ipd").mkdir(parents=True)
    shutil.copytree(run, folder / "sweep" / "hopper-medium-replay" / "ipd" / "seeds-0-1")
    plan = {"runs": [{"run": "hopper-medium-replay/ipd/seeds-0-1", "suite": "table1"}], "skipped": []}
    (folder / "sweep" / "plan.json").write_text(json.dumps(plan))
    (folder / "sweep" / "hopper-medium-replay" / "ipd" / "seeds-0-1.json").write_text('{"state": "done"}')
    (folder / "root").mkdir()
    shutil.copyfile(folder / "data.hdf5", folder / "root" / "hopper_medium_replay-v2.hdf5")
    for kind in FORMATS:
        export(folder / "run", kind, 0, folder / f"export-{kind}")
