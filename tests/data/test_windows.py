"""Windows against a plain loop; none crosses an episode."""

from __future__ import annotations

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest

from ipd.data.windows import candidate_steps, window_rows

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
