"""Every `--algo` through data, training, evaluation, page and loading, at the size of a toy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import h5py
import jax
import numpy as np
import pytest

import ipd
from ipd.baselines.material import Material
from ipd.config import Algo, Config, sections, trimmed
from ipd.data.sources import load
from ipd.evaluation.scores import read_rows
from ipd.presets import override, with_task
from ipd.runs import learning
from ipd.runs.algorithms import ALGORITHMS
from ipd.runs.context import unstack
from ipd.runs.modelling import world
from ipd.runs.opened import evaluate, open_run
from ipd.runs.progress import Progress
from ipd.runs.rundir import Job, read_job
from ipd.runs.stages import execute
from ipd.value.learn import value_fn


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-odd logged episodes."""
    whole = load("bundled:hopper-medium-replay")
    episodes = whole.select(range(0, whole.num_episodes, 25))
    path = tmp_path_factory.mktemp("data") / "small.hdf5"
    with h5py.File(path, "w") as file:
        for key in ("observations", "actions", "rewards", "next_observations"):
            file[key] = getattr(episodes, key)
        file["terminals"], file["timeouts"] = episodes.terminated, episodes.truncated
    return path


def tiny(algo: Algo) -> Config:
    """The preset `tiny` with few updates: what is learned does not matter here."""
    config = override(with_task("tiny", "Hopper-v4", algo=algo), {"evaluate.final_episodes": 1})
    names = {"value", "world"} | ({ALGORITHMS[algo].stage} if algo in ALGORITHMS else set())
    return trimmed(override(config, {f"{name}.steps": 12 for name in names}))


def test_every_algorithm_has_a_row_and_settings() -> None:
    assert {"ipd", *ALGORITHMS} == set(get_args(Algo))
    for name, (module, stage, needs, *_) in ALGORITHMS.items():
        assert module.__doc__ and dataclasses.is_dataclass(getattr(Config(), stage)), name
        assert set(needs) <= {"value", "world"}
        assert set(sections(name)) == {*needs, stage, "evaluate", "stream"}
        for part in ("DATA_AXES", "prepare", "init", "draw", "update", "begin", "act"):
            assert hasattr(module, part), f"{name} lacks {part}"


def check_material(algo: str, run: Path, seen: list[Material]) -> None:
    """What each seed's ``prepare`` was given, against the finished stages of that seed."""
    made = open_run(run)
    assert made.normaliser.reward_scale != 1.0
    assert all(material.reward_scale == made.normaliser.reward_scale for material in seen)
    needs = ALGORITHMS[algo].needs
    assert len(seen) == (len(made.job.seeds) if needs else 1)
    for row, material in enumerate(seen):
        assert (material.values is not None, material.ensemble is not None) == (
            "value" in needs,
            "world" in needs,
        )
        if material.values is not None:
            state = unstack(learning.value(made).state, row)
            wanted = value_fn(state)(made.steps.observations)
            np.testing.assert_allclose(material.values, wanted, rtol=1e-4, atol=1e-5)
        if material.ensemble is not None:
            wanted = unstack(world(made)[0].state.best, row)
            jax.tree.map(np.testing.assert_array_equal, material.ensemble, wanted)
            assert material.rule is not None
            assert made.steps.terminated.any() and not made.steps.terminated.all()
            ended = np.asarray(jax.vmap(material.rule)(made.steps.next_observations), bool)
            np.testing.assert_array_equal(ended, made.steps.terminated > 0)


def test_iql_is_the_published_one_whatever_the_preset() -> None:
    for preset in ("paper", "default", "cpu"):
        mine, published = with_task(preset, None).value, with_task(preset, None, algo="iql").value
        assert (published.huber_quantile, published.dropout) == (1.0, 0.0)
        assert dataclasses.replace(published, huber_quantile=0.96, dropout=0.01) == mine


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_baseline_from_data_to_action(
    algo: Algo, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(str(small), "Hopper-v4", (0, 3), tiny(algo))
    module, seen = ALGORITHMS[algo].module, []
    prepare = module.prepare
    monkeypatch.setattr(module, "prepare", lambda config, made: seen.append(made) or prepare(config, made))
    page = execute(tmp_path / "run", job, Progress(quiet=True))
    check_material(algo, tmp_path / "run", seen)
    assert read_job(tmp_path / "run") == job
    rows = read_rows(tmp_path / "run" / "evaluations.csv")
    assert [(row.policy, row.seed, row.step) for row in rows] == [
        (algo, seed, step) for seed in (0, 3) for step in (6, 12)
    ]
    assert all(np.isfinite(row.return_) and row.length >= 1 for row in rows)
    assert algo in page.read_text()
    policy = ipd.load(tmp_path / "run", seed=3)
    observation = load(str(small)).observations[0]
    first = policy.act(observation)
    assert first.shape == (3,) and np.isfinite(first).all() and np.abs(first).max() <= 1.0
    assert np.isfinite(policy.act(observation, 1.0)).all()
    before = (tmp_path / "run" / "evaluations.csv").read_bytes()
    evaluate(tmp_path / "run")
    assert (tmp_path / "run" / "evaluations.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("env", "source", "expected"),
    [
        ("HalfCheetah-v4", "halfcheetah_medium_replay-v2.hdf5", {"qt.context_len": 5, "qt.clip_norm": 15.0}),
        (
            "HalfCheetah-v4",
            "halfcheetah_medium_expert-v2.hdf5",
            {"qt.context_len": 20, "edt.batch_size": 128},
        ),
        ("Hopper-v4", "hopper_medium-v2.hdf5", {"reinformer.batch_size": 256, "qt.context_len": 20}),
        ("Hopper-v4", "hopper_medium_replay-v2.hdf5", {"reinformer.batch_size": 128, "edt.batch_size": 256}),
        ("Walker2d-v4", "walker2d_medium_replay-v2.hdf5", {"qt.clip_norm": 5.0, "edt.expert_weight": 15.0}),
        ("AdroitHandHammer-v1", "hammer-human-v1.hdf5", {"qt.clip_norm": 5.0, "qt.steps": 61_000}),
        ("AdroitHandHammer-v1", "hammer-cloned-v1.hdf5", {"qt.clip_norm": 2.0, "qt.steps": 100_000}),
        ("AdroitHandPen-v1", "pen-cloned-v1.hdf5", {"qt.clip_norm": 9.0, "qt.q_weight": 0.1}),
        (None, "kitchen_microwave_kettle_light_slider-v0.hdf5", {"qt.steps": 51_000, "qt.q_weight": 0.01}),
        (
            None,
            "mini_kitchen_microwave_kettle_light_slider-v0.hdf5",
            {"qt.steps": 100_000, "qt.q_weight": 0.001},
        ),
    ],
)
def test_published_settings_of_a_task(env: str | None, source: str, expected: dict[str, float]) -> None:
    config = with_task("paper", env, source)
    for field, value in expected.items():
        section, name = field.split(".")
        assert getattr(getattr(config, section), name) == value, field
