"""Environments stepped in turn, and the log of what they did.

A log is an array of records of shape (time, environments): row ``t`` is what the ``t``-th step of
every environment gave. Episode ``i`` of environment ``e`` starts from a reset seed of its own, so the
state of a simulator follows from the log: reset, and replay the actions since.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipd.evaluation.tasks import Task
from ipd.runs.errors import RunFailed

Log = NDArray[Any]


def record_type(task: Task) -> np.dtype[np.void]:
    """One step of one environment, in the task's units."""
    obs, act = (task.observation_size,), (task.action_size,)
    return np.dtype(
        [
            ("observation", "<f4", obs),
            ("action", "<f4", act),
            ("reward", "<f4"),
            ("next_observation", "<f4", obs),
            ("terminated", "?"),
            ("truncated", "?"),
        ]
    )


class Environments:
    """Some environments of one task; ``stream`` keeps their reset seeds apart from those of others."""

    def __init__(self, task: Task, count: int, seed: int, stream: int) -> None:
        self._task, self._key = task, (seed, stream)
        self._environments = [task.make() for _ in range(count)]
        self._episodes = [0] * count
        self.observations = np.zeros((count, task.observation_size), np.float32)
        for slot in range(count):
            self._reset(slot)

    def __enter__(self) -> Environments:
        return self

    def __exit__(self, *error: object) -> None:
        for environment in self._environments:
            environment.close()

    def _reset(self, slot: int) -> None:
        words = np.random.SeedSequence([*self._key, slot, self._episodes[slot]]).generate_state(1)
        self.observations[slot] = self._environments[slot].reset(seed=int(words[0]))[0]

    def step(self, actions: NDArray[np.float32], row: Log) -> None:
        """Acts (environments, act), writes ``row``, and starts a new episode where one ended.

        Raises ``RunFailed`` where the task gives something that is not finite.
        """
        row["observation"], row["action"] = self.observations, actions
        for slot, environment in enumerate(self._environments):
            observation, reward, terminated, truncated, _ = environment.step(actions[slot])
            row[slot]["next_observation"], row[slot]["reward"] = observation, reward
            row[slot]["terminated"], row[slot]["truncated"] = terminated, truncated
            self.observations[slot] = observation
            if terminated or truncated:
                self._episodes[slot] += 1
                self._reset(slot)
        if not (np.isfinite(row["next_observation"]).all() and np.isfinite(row["reward"]).all()):
            raise RunFailed(f"{self._task.id}: an observation or a reward is not finite")

    def go_on_from(self, log: Log) -> list[int]:
        """Brings every simulator to where ``log`` ends.

        Returns the environments in which replaying did not give what is logged: there a new episode
        begins, and the last logged step becomes a truncation, in ``log`` itself.
        """
        lost = []
        for slot, environment in enumerate(self._environments):
            ends = np.flatnonzero(log["terminated"][:, slot] | log["truncated"][:, slot])
            self._episodes[slot] = len(ends)
            self._reset(slot)
            for step in log[ends[-1] + 1 if len(ends) else 0 :, slot]:
                same = np.array_equal(self.observations[slot], step["observation"])
                if same:
                    self.observations[slot] = environment.step(step["action"].copy())[0]
                if not same or not np.array_equal(self.observations[slot], step["next_observation"]):
                    log[-1, slot]["truncated"] = True
                    self._episodes[slot] += 1
                    self._reset(slot)
                    lost.append(slot)
                    break
        return lost


def flatten(log: Log, rows: int | None = None) -> Log:
    """(time, environments) -> (rows,): whole episodes one after another, in the order in which they began.

    ``rows`` keeps that many. What ends an episode without the task having ended it, the end of the
    log or of the rows, is marked as a truncation.
    """
    log = log.copy()
    log["truncated"][-1] |= ~log["terminated"][-1]
    spans = []
    for slot in range(log.shape[1]):
        stops = np.flatnonzero(log["terminated"][:, slot] | log["truncated"][:, slot]) + 1
        spans += [(start, slot, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]
    flat = np.concatenate([log[start:stop, slot] for start, slot, stop in sorted(spans)])[:rows]
    flat["truncated"][-1] |= ~flat["terminated"][-1]
    return flat
