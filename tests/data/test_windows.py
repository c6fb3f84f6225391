"""Windows against a plain loop; none crosses an episode."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.data.windows import candidate_steps, gather_window, window_rows
from ipd.types import Steps

STARTS = np.array([0, 4, 5, 12, 23])
ROWS = int(STARTS[-1])
EPISODE = np.repeat(np.arange(4), np.diff(STARTS))
FIRST = STARTS[EPISODE]


@pytest.mark.parametrize("context", [1, 6])
def test_rows_equal_a_plain_loop_and_stay_in_the_episode(context: int) -> None:
    rows, present = window_rows(jnp.arange(ROWS), jnp.asarray(FIRST), context)
    assert rows.shape == present.shape == (ROWS, context)
    for end in range(ROWS):
        wanted = [row for row in range(end - context + 1, end + 1) if row >= FIRST[end]]
        assert rows[end, context - len(wanted) :].tolist() == wanted
        assert present[end].tolist() == [False] * (context - len(wanted)) + [True] * len(wanted)
        assert {EPISODE[row] for row in rows[end].tolist()} == {EPISODE[end]}


def test_gathered_window_equals_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    steps = Steps(
        observations=jnp.asarray(random.normal(size=(ROWS, 5)), jnp.float32),
        actions=jnp.asarray(random.normal(size=(ROWS, 3)), jnp.float32),
        rewards=jnp.zeros(ROWS),
        next_observations=jnp.zeros((ROWS, 5)),
        terminated=jnp.zeros(ROWS),
    )
    prompts = jnp.asarray(random.normal(size=ROWS), jnp.float32)
    index = np.array([0, 3, 4, 7, 11, 22, 22])
    gather = jax.jit(gather_window, static_argnums=4)
    window = gather(steps, prompts, jnp.asarray(index), jnp.asarray(FIRST[index]), 6)
    assert window.observations.shape == (7, 6, 5) and window.actions.shape == (7, 6, 3)
    for number, end in enumerate(index):
        for place in range(6):
            row = end - 5 + place
            inside = row >= FIRST[end]
            assert bool(window.present[number, place]) == inside == bool(window.target[number, place])
            for got, source in (
                (window.observations, steps.observations),
                (window.actions, steps.actions),
                (window.prompts, prompts),
            ):
                wanted = source[row] if inside else jnp.zeros_like(source[0])
                np.testing.assert_array_equal(got[number, place], wanted)
            assert int(window.timesteps[number, place]) == (row - FIRST[end] if inside else 0)


@pytest.mark.parametrize(("history", "imagine"), [(0, 1), (2, 3), (3, 1), (10, 1), (6, 6)])
def test_candidates_equal_a_plain_loop(history: int, imagine: int) -> None:
    wanted = []
    for start, stop in pairwise(STARTS):
        for row in range(start, stop):
            before = [r for r in range(row - history, row) if start <= r]
            after = [r for r in range(row, row + imagine) if r < stop]
            if len(before) == history and len(after) == imagine:
                wanted.append(row)
    found = candidate_steps(STARTS, history, imagine)
    assert found.dtype == np.int64 and found.tolist() == wanted
    assert (history, imagine) != (6, 6) or not wanted  # the longest episode has 11 steps


def test_an_episode_just_long_enough_has_one_candidate() -> None:
    assert candidate_steps(np.array([0, 5, 10]), 2, 3).tolist() == [2, 7]
