"""Each flaw is found where it was put, and a sound dataset has none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipd.data.checks import Finding, check, describe
from ipd.data.episodes import Episodes
from ipd.data.probes import linear_quadratic
from ipd.data.sources import load


@pytest.fixture(scope="module")
def sound() -> Episodes:
    """9 episodes of 11 steps, of which the second terminates early and the third is shorter."""
    episodes = linear_quadratic(9, 11, seed=0)
    keep = np.setdiff1d(np.arange(99), [18, 19, 20, 21, 32])
    rows = {
        key: getattr(episodes, key)[keep]
        for key in ("observations", "actions", "rewards", "next_observations")
    }
    terminated, truncated = episodes.terminated[keep].copy(), episodes.truncated[keep].copy()
    terminated[17], truncated[17], truncated[27] = True, False, True
    lengths = np.array([11, 7, 10, *[11] * 6])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return dataclasses.replace(episodes, **rows, terminated=terminated, truncated=truncated, starts=starts)


def only(episodes: Episodes, kind: str) -> Finding:
    found = check(episodes)
    assert [finding.kind for finding in found] == [kind], found
    assert all(finding.message and finding.cure and "\n" not in "".join(finding) for finding in found)
    return found[0]


def changed(episodes: Episodes, key: str, where: Any, value: Any) -> Episodes:
    array = getattr(episodes, key).copy()
    array[where] = value
    return dataclasses.replace(episodes, **{key: array})


def test_sound_data_have_no_flaw(sound: Episodes) -> None:
    assert check(sound) == []


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "next_observations"])
def test_not_finite_is_fatal(sound: Episodes, key: str) -> None:
    finding = only(changed(sound, key, 13, np.nan), "not finite")
    assert finding.severity == "fatal" and finding.where == f"{key}, row 13"


def test_constant_and_duplicated_columns(sound: Episodes) -> None:
    flat = changed(
        changed(sound, "observations", (slice(None), 1), 4), "next_observations", (slice(None), 1), 4
    )
    assert only(flat, "constant").where == "observations, dimension 1"
    assert only(changed(sound, "actions", (slice(None), 0), 0.5), "constant").severity == "warning"
    twin = changed(sound, "observations", (slice(None), 2), sound.observations[:, 0])
    twin = changed(twin, "next_observations", (slice(None), 2), sound.next_observations[:, 0])
    finding = only(twin, "duplicate")
    assert finding.where == "observations, dimension 2" and "dimension 0" in finding.message


def test_constant_rewards(sound: Episodes) -> None:
    assert only(changed(sound, "rewards", slice(None), 2), "constant").where == "rewards"


def test_actions_at_and_over_the_bounds(sound: Episodes) -> None:
    over = only(changed(sound, "actions", (31, 1), -1.5), "bounds")
    assert over.where == "actions, row 31" and "1 rows" in over.message and "1.5" in over.message
    clipped = changed(sound, "actions", (slice(0, 60), 1), 1)
    pinned = only(clipped, "bounds")
    share = (np.abs(clipped.actions[:, 1]) == 1).mean()
    assert pinned.where == "actions, dimension 1" and f"{share:.0%}" in pinned.message


def test_actions_that_hardly_fill_their_bounds(sound: Episodes) -> None:
    size = np.array([0.01, 1], np.float32)
    small = dataclasses.replace(sound, actions=sound.actions * size / np.abs(sound.actions).max())
    found = only(small, "bounds")
    assert found.severity == "warning" and found.where == "actions, dimension 0"
    assert "scale them" in found.cure and "smaller unit" in found.cure
    assert not check(dataclasses.replace(small, task="Own-v0"))  # whose bounds are mapped
    high = changed(sound, "actions", (slice(None), 0), 0.9 + 0.1 * small.actions[:, 1] * np.float32(0.5))
    assert only(high, "bounds").severity == "warning"
    wide = changed(
        small,
        "actions",
        (slice(None), 0),
        sound.actions[:, 0] * np.float32(0.1001 / np.abs(sound.actions[:, 0]).max()),
    )
    assert np.ptp(wide.actions[:, 0]) > 0.15 and all(f.kind != "constant" for f in check(wide))
    (constant,) = check(changed(small, "actions", (slice(None), 0), 0.5))
    assert constant.kind == "constant"


def test_terminal_and_timeout_at_once(sound: Episodes) -> None:
    assert only(changed(sound, "truncated", 17, True), "merged ends").where == "terminals, row 17"


def test_time_limits_stored_as_terminals(sound: Episodes) -> None:
    ends = sound.starts[1:] - 1
    merged = changed(changed(sound, "terminated", ends, True), "truncated", ends, False)
    finding = only(merged, "merged ends")
    assert "7 terminated episodes have exactly 11 steps" in finding.message
    assert finding.where == "terminals, row 10"


def test_data_without_terminations_are_noted(sound: Episodes) -> None:
    endless = changed(changed(sound, "terminated", 17, False), "truncated", 17, True)
    assert only(endless, "no terminations").severity == "note"


def test_next_observation_taken_from_the_following_episode(sound: Episodes) -> None:
    finding = only(changed(sound, "next_observations", 10, sound.observations[11]), "next observation")
    assert finding.where == "next_observations, row 10" and finding.severity == "warning"


def test_episodes_cut_by_rounding(sound: Episodes) -> None:
    halves = dataclasses.replace(sound, starts=np.sort(np.append(sound.starts, 33)))
    halves = changed(
        changed(halves, "truncated", 32, True), "next_observations", 32, sound.observations[33] * (1 + 1e-6)
    )
    finding = only(halves, "next observation")
    assert finding.where == "next_observations, row 32" and "rounding" in finding.message


def test_unmarked_reset_inside_an_episode(sound: Episodes) -> None:
    jump = changed(
        changed(sound, "observations", slice(43, 50), 40.0), "next_observations", slice(42, 49), 40.0
    )
    jump = changed(jump, "observations", (slice(43, 50), 0), np.linspace(40, 41, 7))
    assert only(jump, "jump").where == "observations, row 42"


def test_one_huge_value_does_not_hide_itself(sound: Episodes) -> None:
    spike = changed(changed(sound, "observations", (43, 1), 1e30), "next_observations", (42, 1), 1e30)
    finding = only(spike, "jump")  # in float32 the square of it overflows
    assert finding.where == "observations, row 42" and "sensor" in finding.cure


def test_copied_episodes(sound: Episodes) -> None:
    finding = only(sound.select([0, 1, 2, 3, 0, 4]), "duplicate")
    assert "episode 4 of episode 0" in finding.message and finding.where == "observations, row 39"


def test_remarks_of_the_reader_and_the_gravest_first(sound: Episodes) -> None:
    flawed = changed(dataclasses.replace(sound, remarks=("7 ends are unmarked",)), "truncated", 17, True)
    assert [(finding.severity, finding.kind) for finding in check(flawed)] == [
        ("warning", "merged ends"),
        ("note", "reading"),
    ]


@pytest.mark.parametrize("name", ["hopper-medium-replay", "hopper-medium", "pen-noisy"])
def test_unmarked_resets_of_real_data_are_found_and_true_steps_are_not(shared_data: Path, name: str) -> None:
    episodes = load(str(shared_data / f"{name}.hdf5"))
    assert not [finding for finding in check(episodes) if finding.severity != "note"]
    # Join each pair of episodes as a file would that lacks the mark between them.
    inner = episodes.starts[1:-1:2]
    joined = changed(episodes, "next_observations", inner - 1, episodes.observations[inner])
    joined = dataclasses.replace(joined, starts=np.setdiff1d(episodes.starts, inner))
    joined = changed(joined, "terminated", inner - 1, False)
    found = [finding for finding in check(joined) if finding.kind == "jump"]
    assert len(found) == 1 and int(found[0].message.split()[0]) > 0.6 * len(inner)


def test_description_has_the_schema_and_its_numbers(sound: Episodes) -> None:
    facts = describe(sound)
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["episodes"], facts["steps"], facts["observation_size"], facts["action_size"]) == (
        9,
        94,
        3,
        2,
    )
    assert (facts["terminated"], facts["truncated"]) == (1, 8)
    assert facts["lengths"] == [11, 7, 10, *[11] * 6] and len(facts["returns"]) == 9
    assert facts["return"]["mean"] == pytest.approx(np.mean(facts["returns"]))
    assert facts["return"]["best_decile"] == facts["return"]["max"] == max(facts["returns"])
    assert facts["return"]["quantiles"]["50"] == pytest.approx(np.median(facts["returns"]))
    assert list(facts["return"]["quantiles"]) == ["5", "25", "50", "75", "95"]
    assert len(facts["coverage"]["observations"]) == 3 and len(facts["coverage"]["actions"]) == 2
    pinned = describe(changed(sound, "actions", (slice(0, 47), 1), -1))
    assert pinned["coverage"]["actions"][1]["at_low"] >= 0.5
    assert facts["coverage"]["observations"][2]["max"] == sound.observations[:, 2].max()


def test_bundled_set_has_the_returns_its_readme_names() -> None:
    facts = describe(load("bundled:hopper-medium-replay"))
    assert round(facts["return"]["mean"]) == 276 and round(facts["return"]["best_decile"]) == 994


def test_differences_that_float32_does_not_keep() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 2))
    clock, position = 1.7e9 + np.arange(300.0), 0.1 + 1e-3 * rows[:, 1]
    given = {"actions": rows, "rewards": rows[:, 0], "terminated": np.zeros(300, bool)}
    given["truncated"] = np.arange(300) == 299
    made = Episodes.from_arrays(
        np.stack([position, clock, np.full(300, 1.7e9 + 1)], 1), **given, observation_names=("x", "t", "c")
    )
    assert made.rounded == ("observations, dimension 1 ('t')",)
    finding = next(finding for finding in check(made) if finding.kind == "precision")
    assert finding.severity == "warning" and finding.where == "observations, dimension 1 ('t')"
    less = Episodes.from_arrays(np.stack([position, clock - 1.7e9], 1).astype(np.float32), **given)
    assert less.rounded == ()
    assert Episodes.from_arrays(rows, **given | {"rewards": 1e9 + rows[:, 0]}).rounded == ("rewards",)


def test_observations_too_small_to_be_scaled_up(sound: Episodes) -> None:
    size = np.array([1, 1e-6, 1], np.float32)
    tiny = dataclasses.replace(
        sound, observations=sound.observations * size, next_observations=sound.next_observations * size
    )
    finding = next(finding for finding in check(tiny) if finding.kind == "scale")
    assert finding.severity == "note" and "dimension 1" in finding.where
