"""What does not change a result: which seeds are beside it, how often is saved, the order of a sweep.

That the same command ends with the same bytes, stopped or not, is in test_kills.py; that Ray's workers make
what one process makes, in tests/runs/test_ray.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.numpy

from ipd.cli import main
from ipd.runs import plans, stages, sweep
from ipd.runs.context import Run
from ipd.runs.loop import Schedule
from ipd.runs.suites import Suite, Variant

from .conftest import OPTIONS, Figure, unsign
from .test_kills import contents

APART = 1e-4
"""Of the largest number of an array: how far the rounding of another program may carry 300 updates."""


def weights(run: Path, stage: str) -> dict[str, np.ndarray]:
    """All arrays of a stage's last checkpoint, by their names; seeds first."""
    last = max((run / "stages" / stage).glob("step-*.safetensors"), key=lambda path: int(path.stem[5:]))
    return safetensors.numpy.load_file(last)


@pytest.fixture(scope="module")
def alone(finished: Path, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seed 1 of the finished run without seed 0, saved at the end alone, neither looked at nor tried.

    Planning takes the best of several plans, and where two are as good rounding decides: what was imagined is
    kept in `own.hdf5`, and refit and policy learn from what the finished run imagined.
    """
    out = tmp_path_factory.mktemp("alone") / "run"
    given = ["train", "--data", str(small), "--out", str(out), *OPTIONS]
    given += ["--first-seed", "1", "--seeds", "1", "--checkpoint-seconds", "1e9"]
    assert main([*given, "--until", "augment"]) == 0
    shutil.copy(out / "augmented.hdf5", out.with_name("own.hdf5"))
    with h5py.File(out / "augmented.hdf5", "r+") as mine, h5py.File(finished / "augmented.hdf5") as theirs:
        del mine["seed-1"]
        theirs.copy("seed-1", mine)
    unsign(out, "augment")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stages, "_has_task", lambda run: False)
        patched.setattr(stages.examples, "view", lambda *all: None)
        patched.setattr(stages.trials.Early, "begin", lambda *all: None)
        assert main(given) == 0
    return out


@pytest.mark.parametrize("stage", ["value", "world", "cloning", "refit", "policy"])
def test_a_seed_learns_alone_what_it_learns_beside_another(
    stage: str, finished: Path, alone: Path, figure: Figure
) -> None:
    both, one = weights(finished, stage), weights(alone, stage)
    assert both.keys() == one.keys() and len(one) > 5
    apart, others = [], []
    for name, array in one.items():
        other, mine = both[name].astype(float)
        if name.endswith("qkv/bias"):  # softmax does not see the keys' bias: rounding is all its gradient
            mine, other, array = (np.delete(row, np.s_[16:32], -1) for row in (mine, other, array))
        size = max(np.abs(mine).max(), 1e-3)
        apart.append(np.abs(array[0] - mine).max() / size)
        others.append(np.abs(other - mine).max() / size)
    figure("a seed alone or beside another: difference of weights, most", max(apart))
    assert max(apart) < APART and max(others) > 0.5


def test_a_seed_imagines_alone_what_it_imagines_beside_another(
    finished: Path, alone: Path, figure: Figure
) -> None:
    with h5py.File(finished / "augmented.hdf5") as whole, h5py.File(alone.with_name("own.hdf5")) as single:
        assert list(single) == ["seed-1"]
        both, one = whole["seed-1"], single["seed-1"]
        for name in ("row", "length"):
            np.testing.assert_array_equal(both[f"provenance/{name}"][()], one[f"provenance/{name}"][()])
        apart = np.abs(both["actions"][()] - one["actions"][()]).max(1)
        other = np.abs(both["actions"][()] - np.roll(one["actions"][()], 1, axis=0)).max(1)
    assert len(apart) > 100 and np.median(other) > 0.1
    figure("a seed alone or beside another: imagined actions", len(apart))
    figure("a seed alone or beside another: imagined actions that differ", (apart > 1e-4).sum())
    assert (apart > 1e-4).mean() <= 0.01  # two plans that were as good


@pytest.mark.parametrize("chunk", [1, 37])
def test_chunks_and_saves_change_no_weight(
    chunk: int, finished: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Run.schedule

    def schedule(run: Run, steps: int, **more: Any) -> Schedule:
        return plain(run, steps, **more)._replace(chunk=chunk, checkpoint_seconds=1e9)

    monkeypatch.setattr(Run, "schedule", schedule)
    out = tmp_path / "run"
    assert main(["train", "--data", str(small), "--out", str(out), *OPTIONS, "--until", "value"]) == 0
    mine, other = weights(out, "value"), weights(finished, "value")
    for name, array in other.items():
        np.testing.assert_array_equal(mine[name], array, err_msg=name)


def test_the_order_of_a_sweep_changes_no_file(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hopper-medium-replay.hdf5").write_bytes(small.read_bytes())

    def here(entry: plans.Entry, out: Path, say: sweep.Say, checkpoint_seconds: float) -> str:
        reuse = tuple(out / maker for maker in sweep.begun(out, entry))
        stages.execute(out / entry.key, entry.job, reuse=reuse)
        return ""

    monkeypatch.setattr(sweep, "_in_process", here)
    first = Variant("bc", "bc", overrides={"cloning.steps": 20})
    second = Variant("longer", "bc", overrides={"cloning.steps": 20, "evaluate.final_episodes": 3})
    made = []
    for number, variants in enumerate([(first, second), (second, first)]):
        planned = plans.plan(Suite(("hopper-medium-replay",), variants), "tiny", 1, 3, tmp_path)
        out = tmp_path / str(number)
        assert {outcome.state for outcome in sweep.run_local(planned, out, print).values()} == {"done"}
        made.append({name: text for name, text in contents(out).items() if name.count("/") > 2})
    forward, backward = made
    assert forward.keys() == backward.keys() and len(forward) > 20
    assert [name for name in forward if forward[name] != backward[name]] == []
