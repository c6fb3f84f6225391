"""`python tests/formats/record.py`: makes run-N and export-N of the formats that the software writes now.

Run it after `FORMAT` of ipd.config or of ipd.export.runner has risen, and commit what is new. A folder
that is there already is never made again: it is what the software of its time wrote.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
SMALL = "--preset tiny --value.hidden 8 8 --world.hidden 8 8 --cloning.hidden 8 8 --policy.width 4"
SMALL += " --evaluate.snapshots 1 --evaluate.episodes 1 --evaluate.final-episodes 1"
TRAIN = ["train", "--data", "data.hdf5", "--env", "Hopper-v4", *SMALL.split()]
for stage in ("value", "world", "cloning", "refit", "policy"):
    TRAIN += [f"--{stage}.steps", "20"]
STEPS = 6


def observations() -> np.ndarray:
    """Rows that a policy, a world model and values are asked about."""
    import h5py

    with h5py.File(HERE / "data.hdf5") as file:
        return np.asarray(file["observations"][:STEPS])


def answers(run: Path) -> dict[str, Any]:
    """What the finished run in `run` says of `observations`, as lists."""
    import ipd

    rows, policy = observations(), ipd.load(run)
    policy.reset()
    actions = np.stack([policy.act(row) for row in rows])
    world, values = ipd.load_world(run), ipd.load_values(run)
    imagined = world(rows, actions)
    told = {f"world {name}": each for name, each in imagined._asdict().items()}
    told |= {"actions": actions, "kappa": world.kappa, "v": values.v(rows), "q": values.q(rows, actions)}
    told["v refitted"] = ipd.load_values(run, refitted=True).v(rows)
    return {name: np.asarray(each, np.float64).tolist() for name, each in told.items()}


def exported(folder: Path) -> list[list[float]]:
    """Actions of the exported policy in `folder` at `observations`."""
    from ipd.export.runner import Runner

    policy = Runner(folder)
    return [policy.act(row).tolist() for row in observations()]


def record() -> None:
    """Trains, exports, keeps what tells something, with what it says."""
    from ipd.cli import main
    from ipd.config import FORMAT
    from ipd.export import runner

    os.chdir(HERE)  # the run is to know its data by a relative name
    run, export = HERE / f"run-{FORMAT}", HERE / f"export-{runner.FORMAT}"
    if not run.exists():
        assert main([*TRAIN, "--out", run.name]) == 0
        for name in ("report.html", "timing.jsonl", "lock"):
            (run / name).unlink(missing_ok=True)
        (HERE / f"run-{FORMAT}.json").write_text(json.dumps(answers(run), indent=1) + "\n")
    if not export.exists():
        assert main(["export", run.name, "--format", "safetensors", "--to", export.name]) == 0
        (export / "runner.py").unlink()
        (export / "actions.json").write_text(json.dumps(exported(export)) + "\n")


if __name__ == "__main__":
    record()
