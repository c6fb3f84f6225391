"""What a streamed set shows each stage is what the whole set would show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.config import Config
from ipd.data.columns import Storage
from ipd.data.episodes import Episodes, fit_normaliser, to_steps
from ipd.data.sources import load
from ipd.policy import learn as policy_learner
from ipd.policy.enriched import Data, Imagined, Logged, stack_seeds
from ipd.presets import override, preset
from ipd.runs import modelling, streaming
from ipd.runs.context import Run
from ipd.runs.errors import RunFailed
from ipd.runs.learning import value
from ipd.runs.progress import Progress
from ipd.runs.rundir import Job
from ipd.types import Spec, Steps

LENGTHS = (40, 3, 57, 20, 90, 1, 31, 58)
"""300 steps."""
SEEDS = (3, 8)
CONTEXT = 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Steps whose first observation entry is their row; the second and fifth episode end in a terminal."""
    rows = np.arange(300)
    ends = np.cumsum(LENGTHS) - 1
    path = tmp_path / "set.hdf5"
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as out:
        out["observations"] = np.stack([rows, random.normal(size=300)], axis=1)
        out["next_observations"] = np.add(out["observations"], [1, 0])
        out["actions"], out["rewards"] = random.uniform(-1, 1, (300, 3)), random.normal(size=300)
        out["terminals"], out["timeouts"] = (
            np.isin(rows, ends[[1, 4]]),
            np.isin(rows, np.delete(ends, [1, 4])),
        )
    return path


@pytest.fixture
def started(file: Path, tmp_path: Path) -> Callable[..., Run]:
    """A run of the set, on disk, with windows of 96 steps in blocks of 16."""

    def make(**more: Any) -> Run:
        settings: dict[str, Any] = {
            "stream.above_steps": 299, "stream.window_steps": 96, "stream.block_steps": 16,
            "policy.context_len": CONTEXT, "world.num_members": 5,
        }  # fmt: skip
        config: Config = override(preset("tiny"), settings | more)
        episodes = load(str(file), storage=Storage(tmp_path, config.stream.above_steps))
        return Run(
            tmp_path, Job(str(file), None, SEEDS, config), None, lambda: episodes, episodes.digest,
            fit_normaliser(episodes), Spec(2, 3, 90), Progress(quiet=True),
        )  # fmt: skip

    return make


@pytest.mark.parametrize("drop", [(), ("next_observations",), ("next_observations", "timeouts")])
def test_set_on_disk_is_the_set_in_memory(
    file: Path, tmp_path: Path, drop: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipd.data.columns.PIECE", 37)  # pieces that no episode ends with
    with h5py.File(file, "r+") as out:
        for key in drop:
            del out[key]
    plain, mapped = load(str(file)), load(str(file), storage=Storage(tmp_path, 299))
    assert plain.disk is None and mapped.disk == tmp_path
    assert load(str(file), storage=Storage(tmp_path, 300)).disk is None
    assert plain.digest == mapped.digest and plain.remarks == mapped.remarks
    for field in dataclasses.fields(Episodes):
        if field.name != "disk":
            np.testing.assert_array_equal(getattr(plain, field.name), getattr(mapped, field.name))
    normaliser = fit_normaliser(plain)
    np.testing.assert_allclose(normaliser.observation_std, plain.observations.std(0), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, to_steps(plain, normaliser), to_steps(mapped, normaliser))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.hdf5"]  # the columns have no name


def test_value_sees_logged_steps_as_they_are(started: Callable[..., Run]) -> None:
    run = started()
    feed = streaming.steps(run, None, batch_size=32)
    assert feed.updates == 3  # 96 rows, each about once
    for number in range(4):
        window = feed.window(number)
        rows = at(run, window.observations)
        assert len(rows) == 96 and len(set(rows)) > 80
        jax.tree.map(np.testing.assert_array_equal, window, Steps(*(leaf[rows] for leaf in run.steps)))


def test_chosen_rows_alone_are_seen(started: Callable[..., Run]) -> None:
    run, chosen = started(), np.arange(7, 290, 2)
    window = streaming.steps(run, chosen, batch_size=32).window(1)
    assert set(at(run, window.observations)) <= set(chosen)


def at(run: Run, observations: Any) -> np.ndarray:
    """Rows of these observations in the set."""
    mean, std = run.normaliser.observation_mean[0], run.normaliser.observation_std[0]
    return np.rint(np.asarray(observations)[..., 0] * std + mean).astype(int)


def test_world_model_sees_no_held_out_step_and_the_same_sample_of_a_block_each_time(
    started: Callable[..., Run],
) -> None:
    run = started()
    split = modelling.split_episodes(run)
    held_out = at(run, split.held_out.observations)
    assert len(held_out) + len(split.training) == 300 and not set(held_out) & set(split.training)
    assert np.diff(split.held_out_starts).sum() == len(held_out)
    feed, samples = streaming.world(run, split.training, split.held_out), {}
    for number in range(8):
        window = feed.window(number)
        rows = at(run, window.train.observations)
        assert not set(rows) & set(held_out) and window.bootstrap.shape == (2, 5, 96)
        assert window.bootstrap.min() >= 0 and window.bootstrap.max() < 96
        for block in range(6):
            inside = window.bootstrap[:, :, 16 * block : 16 * block + 16]
            assert set(inside.reshape(-1) // 16) == {block}  # drawn from the block itself
            told = rows[inside]
            np.testing.assert_array_equal(told, samples.setdefault(rows[16 * block], told))
    sizes = [len(np.unique(one)) for sample in samples.values() for one in sample.reshape(-1, 16)]
    assert 8 < np.mean(sizes) < 12  # 16 draws with replacement meet 16 (1 - 1/e)
    first = next(iter(samples.values())).reshape(-1, 16)
    assert len({tuple(one) for one in first}) == 10  # every member of every seed has its own


def test_scale_of_the_change_is_that_of_the_training_steps(started: Callable[..., Run]) -> None:
    run = started()
    split, steps = modelling.split_episodes(run), run.steps
    change = (steps.next_observations - steps.observations)[split.training]
    np.testing.assert_allclose(split.scale.mean, change.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(split.scale.std, np.maximum(change.std(0), 1e-6), rtol=1e-2, atol=1e-6)


def enriched(run: Run) -> list[Data]:
    """Both seeds; prompts and weights tell the seed and the row, segments their own number."""
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    rows, episode_start = np.arange(300), np.repeat(starts[:-1], LENGTHS)
    timesteps = (rows - episode_start).astype(np.int32)
    parts = []
    for seed, source in enumerate([np.arange(11, 290, 3), np.array([0, 41, 44, 102, 299])]):
        count = len(source)
        lengths = 1 + np.arange(count, dtype=np.int32) % 6
        own = 1_000.0 * (seed + 1) + np.arange(count, dtype=np.float32)
        valid = np.arange(6) < lengths[:, None]
        prompts = own[:, None] + 0.1 * np.arange(6, dtype=np.float32)
        imagined: Any = (
            source.astype(np.int32), lengths, np.repeat(prompts[..., None], 2, 2).astype(np.float32),
            np.repeat(prompts[..., None], 3, 2).astype(np.float32), prompts.astype(np.float32),
            valid.astype(np.float32), np.int32(count),
        )  # fmt: skip
        logged: Any = (
            run.steps.observations, run.steps.actions, timesteps, episode_start.astype(np.int32),
            (rows + 0.25 * seed).astype(np.float32), (rows % 7 > 0).astype(np.float32), np.int32(300),
        )  # fmt: skip
        parts.append(Data(Logged(*logged), Imagined(*imagined)))
    return parts


def one_seed(data: Data, seed: int) -> Data:
    logged = data.logged._replace(prompts=data.logged.prompts[seed], weights=data.logged.weights[seed])
    found: Data = jax.tree.map(
        jnp.asarray, Data(logged, jax.tree.map(lambda leaf: leaf[seed], data.imagined))
    )
    return found


def test_policy_sees_the_windows_of_the_whole_set(started: Callable[..., Run]) -> None:
    run = started()
    parts, config = enriched(run), run.config.policy
    whole, feed = stack_seeds(parts), streaming.enriched_steps(run, parts)
    shapes = {jax.tree.map(np.shape, feed.window(number)) for number in range(4)}
    assert len({str(shape) for shape in shapes}) == 1
    met: list[set[int]] = [set(), set()]
    windows = jax.jit(partial(policy_learner.imagined_windows, config))
    for number, seed in [(0, 0), (0, 1), (1, 0), (3, 0)]:
        now, everything = one_seed(feed.window(number), seed), one_seed(whole, seed)
        assert int(now.logged.total) == 96
        ends = jnp.arange(96)
        said = policy_learner.logged_windows(config, now, ends)
        rows = at(run, now.logged.observations[:96])
        true = policy_learner.logged_windows(config, everything, jnp.asarray(rows))
        inside = np.arange(CONTEXT - 1, -1, -1)[None] <= (np.arange(96) % 16)[:, None]  # within the block
        np.testing.assert_array_equal(said.present, np.asarray(true.present) & inside)
        for name in ("observations", "actions", "prompts", "timesteps", "target"):
            a, b = np.asarray(getattr(said, name)), np.asarray(getattr(true, name))
            np.testing.assert_array_equal(a[np.asarray(said.present)], b[np.asarray(said.present)], name)
        total = int(now.imagined.total)
        numbers = np.rint(np.asarray(now.imagined.prompts)[:total, 0]).astype(int) - 1_000 * (seed + 1)
        met[seed] |= set(numbers)
        for end in range(6):
            chosen = np.flatnonzero(np.asarray(now.imagined.lengths)[:total] > end)
            if not len(chosen):
                continue
            chosen = np.resize(chosen, 96)  # some twice: one shape, one compilation
            last = jnp.full(96, end)
            a = windows(now, jnp.asarray(chosen), last)
            b = windows(everything, jnp.asarray(numbers[chosen]), last)
            np.testing.assert_array_equal(a.present, b.present)
            for name in ("observations", "actions", "prompts", "timesteps", "target"):
                one, other = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
                np.testing.assert_array_equal(one[np.asarray(a.present)], other[np.asarray(a.present)], name)
    assert met[1] == set(range(5)) and len(met[0]) > 20


def test_refit_sees_logged_steps_and_each_seed_s_own_imagined_ones(started: Callable[..., Run]) -> None:
    run = started()
    own = [Steps(*(leaf[:count] + seed for leaf in run.steps)) for seed, count in enumerate((200, 30), 1)]
    window = streaming.refitted(run, own).window(2)
    assert window.total.tolist() == [96, 30] and window.imagined.rewards.shape == (2, 96)
    np.testing.assert_array_equal(window.imagined.rewards[1, :30], own[1].rewards)
    assert set(np.asarray(window.imagined.rewards[0])) <= set(np.asarray(own[0].rewards))
    assert len(set(at(run, window.logged.observations))) > 80


def test_values_that_look_ahead_are_refused(started: Callable[..., Run]) -> None:
    with pytest.raises(RunFailed, match=r"multi-step looks ahead .* --stream.above-steps"):
        value(started(**{"value.multi_step": 3}))
