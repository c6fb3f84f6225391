"""The training loop: equal to a plain loop, resumable to the bit, stops on NaN, compiled once."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.runs import loop
from ipd.runs.checkpoint import CheckpointStore
from ipd.runs.errors import RunFailed
from ipd.runs.metrics import MetricsLog
from ipd.runs.progress import Progress

_spec = importlib.util.spec_from_file_location("ipd_toy", Path(__file__).with_name("toy.py"))
assert _spec is not None and _spec.loader is not None
toy = importlib.util.module_from_spec(_spec)
sys.modules["ipd_toy"] = toy
_spec.loader.exec_module(toy)

SEEDS = (0, 1)
KEYS = jax.vmap(jax.random.key)(jnp.arange(2) + 7)
SCHEDULE = loop.Schedule(steps=23, chunk=4, validate_every=10, snapshots=(7, 14), checkpoint_seconds=0.0)


def data() -> tuple[dict[str, jax.Array], dict[str, int | None]]:
    """Inputs shared by the seeds, targets of each seed its own."""
    x = np.random.default_rng(3).normal(size=(17, 3)).astype(np.float32)
    y = np.stack([x @ np.array([1.0, -2.0, 0.5]), x @ np.array([0.0, 1.0, 3.0])]).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.asarray(y)}, {"x": None, "y": 0}


def run(
    folder: Path,
    config: Any = None,
    schedule: loop.Schedule = SCHEDULE,
    learner: loop.Learner | None = None,
    store: CheckpointStore | None = None,
    arrays: Any = None,
    failed: Collection[int] = (),
) -> tuple[Any, int]:
    whole, axes = data()
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), toy.init(0), toy.init(1))
    folder.mkdir(exist_ok=True)
    return loop.train(
        "value",
        learner or toy.LEARNER,
        config or toy.Config(),
        state,
        whole if arrays is None else arrays,
        axes,
        KEYS,
        schedule,
        store or CheckpointStore(folder / "stage", "f"),
        MetricsLog(folder / "metrics.jsonl", SEEDS),
        Progress(quiet=True),
        failed=failed,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_loop_equals_a_plain_loop(tmp_path: Path) -> None:
    state, step = run(tmp_path)
    arrays, _ = data()
    assert step == 23
    for row in (0, 1):
        one = toy.init(row)
        mine = {"x": arrays["x"], "y": arrays["y"][row]}
        losses = []
        for k in range(1, 24):
            draw_key, update_key = jax.random.split(jax.random.fold_in(KEYS[row], k))
            one, metrics = toy.update(toy.Config(), one, toy.draw(None, mine, draw_key), update_key)
            losses.append(float(metrics["value_loss"]))
            if k in (10, 20, 23):
                one, _ = toy.validate(toy.Config(), one, mine)
        np.testing.assert_allclose(state.weight[row], one.weight, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state.best[row], one.best, rtol=1e-4)
        records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        mine_only = [r for r in records if r["seed"] == row]
        assert [r["step"] for r in mine_only] == [4, 7, 8, 10, 12, 14, 16, 20, 23]
        np.testing.assert_allclose(mine_only[3]["value_loss"], np.mean(losses[8:10]), rtol=1e-4)
        assert [r["step"] for r in mine_only if "held_out_error" in r] == [10, 20, 23]


class Killed(Exception):
    pass


def run_killed(folder: Path, after: int, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    """A run that dies when it has saved `after` updates or more."""
    save = CheckpointStore.save

    def save_and_die(store: CheckpointStore, step: int, tree: Any, keep: tuple[int, ...] = ()) -> None:
        save(store, step, tree, keep)
        if step >= after:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointStore, "save", save_and_die)
        with pytest.raises(Killed):
            run(folder, **how)


@pytest.mark.parametrize("kill_after", [7, 20, 23])
def test_resume_is_bitwise_the_same(tmp_path: Path, kill_after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "whole")
    run_killed(tmp_path / "killed", kill_after, monkeypatch)
    log = tmp_path / "killed" / "metrics.jsonl"  # records after the checkpoint, and half of one more
    log.write_text(log.read_text() + '{"stage": "value", "step": 99, "seed": 0}\n{"stage": "va')
    run(tmp_path / "killed")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    kept = sorted((tmp_path / "whole" / "stage").glob("*.safetensors"))
    assert [p.stem for p in kept] == ["step-14", "step-23", "step-7"]


def test_chunks_and_checkpoints_change_nothing_that_is_learned(tmp_path: Path) -> None:
    fine, _ = run(tmp_path / "a", schedule=SCHEDULE._replace(chunk=1, checkpoint_seconds=1e9))
    coarse, _ = run(tmp_path / "b", schedule=SCHEDULE._replace(chunk=50, snapshots=()))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), fine, coarse)))


def test_compiled_once(tmp_path: Path) -> None:
    toy.traces["update"] = 0
    run(tmp_path)
    assert toy.traces["update"] == 1


def test_ends_early_when_every_seed_is_finished(tmp_path: Path) -> None:
    schedule = loop.Schedule(steps=900, chunk=10, validate_every=10, checkpoint_seconds=1e9)
    _, step = run(tmp_path, config=toy.Config(enough=0.5), schedule=schedule)
    assert step < 900 and step % 10 == 0
    assert CheckpointStore(tmp_path / "stage", "f").steps() == [step]
    again, same = run(tmp_path, config=toy.Config(enough=0.5), schedule=schedule)
    assert same == step and int(again.step[0]) == step


def test_nan_stops_its_seed_and_the_other_ends_as_ever(tmp_path: Path) -> None:
    schedule = SCHEDULE._replace(snapshots=(), validate_every=None)
    plain, _ = run(tmp_path / "plain", schedule=schedule, learner=toy.PLAIN)
    poisoned = {"config": toy.Config(poison_at=8), "schedule": schedule, "learner": toy.PLAIN}
    with pytest.raises(loop.SeedsFailed) as caught:
        run(tmp_path, **poisoned)
    assert caught.value.what == {1: "tensor weight is not finite at or before update 8"}
    store = CheckpointStore(tmp_path / "stage", "f")
    assert store.steps() == [4]
    good = store.load(4, like=plain)
    with pytest.raises(loop.SeedsFailed):  # what is to be left alone must be said
        run(tmp_path, **poisoned)
    state, step = run(tmp_path, **poisoned, failed={1})
    assert step == 23 and store.steps() == [23]
    np.testing.assert_array_equal(state.weight[0], plain.weight[0])
    np.testing.assert_array_equal(state.weight[1], good.weight[1])
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = [(r["step"], r["seed"]) for r in records]
    assert told == [(4, 0), (4, 1), *((step, 0) for step in (8, 12, 16, 20, 23))]
    whole = [json.loads(line) for line in (tmp_path / "plain" / "metrics.jsonl").read_text().splitlines()]
    assert [r for r in records if r["seed"] == 0] == [r for r in whole if r["seed"] == 0]


def test_nan_in_the_last_seed_that_is_left_stops_the_run(tmp_path: Path) -> None:
    schedule = SCHEDULE._replace(snapshots=(), validate_every=None)
    poisoned = {"config": toy.Config(poison_at=8), "schedule": schedule, "learner": toy.PLAIN}
    with pytest.raises(RunFailed, match=r"stage value, seed number 1: tensor weight .* update 8; the last"):
        run(tmp_path, **poisoned, failed={0})
    assert CheckpointStore(tmp_path / "stage", "f").steps() == [4]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
