"""Policies tried in the real task, some of them while the next ones still train."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ipd.evaluation import rollouts
from ipd.evaluation.tasks import Task
from ipd.policy.act import Controller
from ipd.runs.algorithms import ALGORITHMS
from ipd.runs.context import Run

FIRST_EPISODE_SEED = 10_000


class Contender(NamedTuple):
    """A policy to be tried: its name in evaluations.csv, its age in updates, and who acts for it."""

    name: str
    step: int
    episodes: int
    controller: Callable[[], Controller]


class Early:
    """Tries policies in the task while the next ones still train; used as a context.

    An episode hears nothing of what else the machine does, so its return is the same early or late. What
    was not begun early, `results` tries when asked.
    """

    def __init__(self, run: Run):
        self._run, self._stop = run, threading.Event()
        self._pool = ThreadPoolExecutor(1, "ipd-early")
        self._begun: dict[tuple[str, int], Future[Tried]] = {}

    def __enter__(self) -> Early:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def begin(self, contenders: list[Contender]) -> None:
        """Tries them in another thread, in turn; nothing without a task, or once all is trained."""
        if self._run.task is None or _trained(self._run):
            return
        for contender in contenders:
            self._begun[contender[:2]] = self._pool.submit(self._try, contender, self._run.task)

    def results(self, contender: Contender, task: Task) -> Tried:
        """Those of one policy. Raises ``FloatingPointError`` where no seed is left that acts."""
        begun = self._begun.pop(contender[:2], None)
        return self._try(contender, task) if begun is None else begun.result()

    def _try(self, contender: Contender, task: Task) -> Tried:
        # seeds that failed in training act too: what is noted of them may yet be of an older make
        seeds = len(self._run.seeds)
        still = np.zeros(seeds, bool)
        while True:
            acting = _Watched(contender.controller(), self._stop, still)
            try:
                found = rollouts.rollout(task, acting, contender.episodes, FIRST_EPISODE_SEED, seeds)
                return Tried(found, acting.still)
            except rollouts.NotFiniteError as error:  # the task's answer: once more, without that seed
                before, still = acting.still, acting.still | (np.arange(seeds) == error.copy)
                if before[error.copy] or still.all():
                    raise


class Tried(NamedTuple):
    """Results of one policy; they mean nothing for the `failed` seeds (rows)."""

    results: rollouts.Results
    failed: NDArray[np.bool_]


class _Watched:
    """A controller that raises once nobody waits for it, and stands still for seeds that failed.

    A seed whose action is not finite has failed; where no other is left, the action is passed on.
    """

    def __init__(self, controller: rollouts.Controller, stop: threading.Event, failed: NDArray[np.bool_]):
        self._controller, self._stop, self.still = controller, stop, failed

    def reset(self, rows: int) -> None:
        self._controller.reset(rows)

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._stop.is_set():
            raise CancelledError
        actions = np.array(self._controller.act(observations, rewards))
        by_seed = actions.reshape(len(self.still), -1)
        still = self.still | ~np.isfinite(by_seed).all(axis=1)
        if not still.all():
            self.still, by_seed[still] = still, 0.0
        return actions


def _trained(run: Run) -> bool:
    stage = "policy" if run.config.algo == "ipd" else ALGORITHMS[run.config.algo].stage
    return (run.stage_folder(stage) / "done.json").exists()
