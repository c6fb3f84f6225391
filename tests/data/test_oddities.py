"""Clock, rewards and repeated episodes: each flaw is found where it was put, and nowhere else."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from ipd.data.checks import Finding, check
from ipd.data.episodes import Episodes
from ipd.data.probes import linear_quadratic
from ipd.data.sources import load

BUNDLED = ["hopper-medium-replay", "halfcheetah-medium-replay", "walker2d-medium-replay"]


@pytest.fixture(scope="module")
def sound() -> Episodes:
    """40 episodes of 21 steps with an even clock."""
    episodes = linear_quadratic(40, 21, seed=0)
    return dataclasses.replace(episodes, times=10 + 0.05 * episodes.timesteps)


@pytest.fixture(scope="module", params=BUNDLED)
def bundled(request: pytest.FixtureRequest) -> Episodes:
    return load(f"bundled:{request.param}")


def found(episodes: Episodes) -> list[Finding]:
    """Findings but for the note that nothing terminates."""
    told = [finding for finding in check(episodes) if finding.kind != "no terminations"]
    assert all(finding.message and finding.cure and "\n" not in "".join(finding) for finding in told)
    return told


def only(episodes: Episodes, kind: str) -> Finding:
    told = found(episodes)
    assert [(finding.kind, finding.severity) for finding in told] == [(kind, "warning")], told
    return told[0]


def shifted(episodes: Episodes, by: int) -> Episodes:
    """Rewards a row late (1) or early (-1) within their episodes, 0 at the free end."""
    rewards = np.roll(episodes.rewards, by)
    rewards[episodes.starts[:-1] if by > 0 else episodes.starts[1:] - 1] = 0
    return dataclasses.replace(episodes, rewards=rewards)


def joined(episodes: Episodes, more: dict[str, Any]) -> Episodes:
    """The episodes and behind them others, given as their arrays."""
    fields = ("observations", "actions", "rewards", "next_observations", "terminated", "truncated")
    arrays = {key: np.concatenate([getattr(episodes, key), more[key]]) for key in fields}
    starts = np.append(episodes.starts, len(arrays["rewards"]))
    return dataclasses.replace(episodes, **arrays, starts=starts, times=None)


def part(episodes: Episodes, rows: slice) -> dict[str, Any]:
    fields = ("observations", "actions", "rewards", "next_observations", "terminated", "truncated")
    return {key: getattr(episodes, key)[rows].copy() for key in fields}


def test_sound_data_have_no_flaw(sound: Episodes) -> None:
    assert found(sound) == []


def test_bundled_data_raise_no_alarm(bundled: Episodes) -> None:
    assert [finding for finding in check(bundled) if finding.severity != "note"] == []


@pytest.mark.parametrize(("by", "neighbour"), [(1, "before"), (-1, "after")])
def test_shifted_rewards(sound: Episodes, by: int, neighbour: str) -> None:
    finding = only(shifted(sound, by), "shifted")
    assert finding.where == "rewards" and f"the step {neighbour}" in finding.message
    assert ("move rewards up" in finding.cure) == (by == 1)


@pytest.mark.parametrize("by", [1, -1])
def test_shifted_rewards_of_real_data(bundled: Episodes, by: int) -> None:
    some = bundled.select(range(0, bundled.num_episodes, 8))
    assert not [finding for finding in check(some) if finding.kind == "shifted"]
    assert [finding for finding in check(shifted(some, by)) if finding.kind == "shifted"]


def test_rewards_without_rule_are_not_called_shifted(sound: Episodes) -> None:
    random = np.random.default_rng(1)
    noise = random.normal(size=sound.num_steps).astype(np.float32)
    assert found(dataclasses.replace(sound, rewards=noise)) == []
    rare = (random.random(sound.num_steps) < 0.02).astype(np.float32)
    assert found(dataclasses.replace(sound, rewards=rare)) == []


def test_gaps_in_the_clock(sound: Episodes) -> None:
    assert sound.times is not None
    times = sound.times.copy()
    times[33:42] += 0.1  # between rows 32 and 33, inside the second episode
    finding = only(dataclasses.replace(sound, times=times), "time")
    assert finding.where == "time, row 32" and "3 times" in finding.message and "0.05" in finding.message
    late = sound.times + np.random.default_rng(0).uniform(0, 0.01, sound.num_steps)
    assert found(dataclasses.replace(sound, times=late)) == []  # jitter is no gap


def test_repeated_times_and_an_uneven_clock(sound: Episodes) -> None:
    assert sound.times is not None
    times = sound.times.copy()
    times[51] = times[50]
    finding = next(f for f in found(dataclasses.replace(sound, times=times)) if "no time" in f.message)
    assert finding.where == "time, row 51"
    uneven = np.random.default_rng(0).exponential(size=sound.num_steps).cumsum()
    assert "resample" in only(dataclasses.replace(sound, times=uneven), "time").cure


def test_an_episode_stored_twice_with_other_rounding(sound: Episodes) -> None:
    copy = part(sound, slice(42, 63))
    for key in ("observations", "next_observations", "actions"):
        copy[key] = copy[key].astype(np.float16).astype(np.float32)
    finding = only(joined(sound, copy), "near duplicate")
    assert "episode 40 of episode 2" in finding.message and finding.where == "observations, row 840"


def test_a_beginning_stored_as_an_episode_of_its_own(sound: Episodes) -> None:
    cut = part(sound, slice(42, 54))
    cut["truncated"][-1] = True
    assert "episode 40 of episode 2" in only(joined(sound, cut), "near duplicate").message


def test_actions_on_bounds_that_nobody_named(sound: Episodes) -> None:
    clipped = np.clip(4 * sound.actions, -1.5, 1.5)
    told = found(dataclasses.replace(sound, actions=clipped))
    assert {finding.kind for finding in told} == {"bounds"}
    share = (np.abs(clipped) == 1.5).mean(0).max()
    assert any(f"smallest or largest value in up to {share:.0%}" in finding.message for finding in told)


def test_findings_name_the_dimensions(sound: Episodes) -> None:
    still = sound.observations.copy()
    still[:, 1] = 3
    named = dataclasses.replace(
        sound, observations=still, next_observations=still, observation_names=("x", "y", "z")
    )
    assert any(f.where == "observations, dimension 1 ('y')" for f in check(named))
