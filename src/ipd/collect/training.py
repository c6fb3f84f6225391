"""Soft actor-critic in the task, until its policy reaches what the recipe asks for.

The rule: every ``evaluate_every`` steps the deterministic policy plays ``evaluation_episodes``
episodes from fixed start seeds; a goal is reached at the first evaluation whose mean return is at
least the goal, and training stops when every goal was.

Every random number follows from the seed and the step, and the simulators from the log, so a run that
was killed goes on to bitwise the same end. In the folder: ``log.bin`` (records, append only),
``curve.json`` (evaluations), ``learner/`` (the state), ``policies/NAME/`` (a policy for each goal).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from ipd.collect import sac
from ipd.collect.recording import Environments, Log, record_type
from ipd.collect.sac import SACConfig, State
from ipd.collect.settings import Settings
from ipd.evaluation.rollouts import rollout
from ipd.evaluation.tasks import Task
from ipd.nn.mlp import PRNG
from ipd.runs import files
from ipd.runs.checkpoint import CheckpointStore
from ipd.runs.errors import RunFailed
from ipd.runs.progress import Progress
from ipd.types import Steps
from ipd.value.networks import SquashedGaussianPolicy

TRAIN, ACT, EVALUATE, DRAW, WARMUP, INIT = range(6)
"""Streams of random numbers."""


@functools.partial(jax.jit, donate_argnums=1, static_argnums=0)
def improve(config: SACConfig, state: State, batches: Steps, key: PRNG) -> tuple[State, Float[Array, ""]]:
    """One update for each entry of the first axis of ``batches``; also the mean loss of the critics."""

    def body(carry: tuple[State, Array], batch: Steps) -> tuple[tuple[State, Array], Array]:
        state, key = carry
        key, now = jax.random.split(key)
        state, metrics = sac.update(config, state, batch, now)
        return (state, key), metrics["critics_loss"]

    (state, _), losses = jax.lax.scan(body, (state, key), batches)
    return state, losses.mean()


@jax.jit
def sample(
    policy: SquashedGaussianPolicy, observations: Array, key: PRNG, step: Any
) -> Float[Array, "rows act"]:
    """Sampled actions in [-1, 1]; ``key`` and ``step`` are all that the noise depends on."""
    shape = (observations.shape[0], policy.action_size)
    noise = jax.random.normal(jax.random.fold_in(key, step), shape)
    return jax.vmap(policy.sample)(observations, noise)[0]


@jax.jit
def mode(policy: SquashedGaussianPolicy, observations: Array) -> Float[Array, "rows act"]:
    """Deterministic actions in [-1, 1]."""
    return jax.vmap(policy.mode)(observations)


def to_task(task: Task, actions: Any) -> NDArray[np.float32]:
    """From [-1, 1] to the task's bounds."""
    unit = 0.5 * (np.asarray(actions, np.float32) + np.float32(1.0))
    scaled = task.action_low + (task.action_high - task.action_low) * unit
    return np.clip(scaled, task.action_low, task.action_high)


def uniform(task: Task, rows: int, seed: tuple[int, ...]) -> NDArray[np.float32]:
    """(rows, act), uniform within the task's bounds."""
    return to_task(task, np.random.default_rng(seed).uniform(-1.0, 1.0, (rows, task.action_size)))


@dataclasses.dataclass(frozen=True)
class Mode:
    """``Controller`` of a policy's deterministic actions."""

    task: Task
    policy: SquashedGaussianPolicy

    def reset(self, rows: int) -> None:
        """Nothing to forget."""

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, obs) -> (rows, act), the task's units."""
        return to_task(self.task, mode(self.policy, observations))


@dataclasses.dataclass
class Outcome:
    """What training left behind."""

    log: Log
    """(time, environments)."""
    curve: list[tuple[int, float]]
    """Step, mean evaluation return."""
    policies: dict[str, tuple[int, float, SquashedGaussianPolicy]]
    """Name of the goal -> step and return at which it was reached, and the policy."""


class Training:
    """One run of the learner in a folder; ``run`` goes on from whatever the folder holds."""

    def __init__(self, task: Task, settings: Settings, folder: Path, progress: Progress) -> None:
        self.task, self.settings, self.folder, self.progress = task, settings, folder, progress
        self.size = settings.environments
        self.log_file = folder / "log.bin"
        self.store = CheckpointStore(folder / "learner", settings.fingerprint)
        self.key = jax.random.key(settings.seed)
        self.log: Log = np.zeros((settings.training_steps // self.size, self.size), record_type(task))
        self.saved = 0
        """Rows of the log that are in its file."""
        self.curve: list[tuple[int, float]] = []

    def run(self, checkpoint_seconds: float) -> Outcome:
        """Trains until every goal is reached or the budget is spent.

        Raises ``RunFailed`` where losses, actions or observations are not finite.
        """
        like = jax.eval_shape(self._fresh)
        self.store.clean()
        state = self._restore(like) if self.store.steps() else jax.jit(self._fresh)()
        step, settings, saved_at = self.saved, self.settings, time.monotonic()
        self.progress.begin("collect", step * self.size, len(self.log) * self.size, "steps")
        with Environments(self.task, self.size, settings.seed, TRAIN) as environments:
            for slot in environments.go_on_from(self.log[:step]) if step else []:
                self.saved = step - 1  # its last row has changed
                self.progress.say(
                    f"environment {slot}: replayed, it went another way; its episode is cut here"
                )
            while step < len(self.log) and len(self._reached()) < len(settings.goals):
                environments.step(
                    self._actions(step, state.policy, environments.observations), self.log[step]
                )
                step += 1
                if updates := self._updates(step):
                    key = jax.random.fold_in(jax.random.fold_in(self.key, DRAW), step)
                    state, loss = improve(settings.sac, state, self._draw(step, updates), key)
                done = step * self.size
                self.progress.advance(done)
                reached = False
                if done % settings.evaluate_every < self.size:
                    if updates and not np.isfinite(loss):
                        raise RunFailed(
                            f"{self.task.id}: the critics' loss is not finite at step {done}; "
                            "a smaller --sac.learning-rate may help"
                        )
                    reached = self._evaluate(done, state.policy)
                if reached or step == len(self.log) or time.monotonic() - saved_at >= checkpoint_seconds:
                    self._save(step, state)
                    saved_at = time.monotonic()
        self.progress.end()
        policies = {}
        for name, (at, value) in self._reached().items():
            policies[name] = (at, value, self._policies(name).load(at, like=like.policy))
        return Outcome(self.log[:step], self.curve, policies)

    def _actions(
        self, step: int, policy: SquashedGaussianPolicy, observations: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        if step * self.size < self.settings.warmup:
            return uniform(self.task, self.size, (self.settings.seed, WARMUP, step))
        return to_task(self.task, sample(policy, observations, jax.random.fold_in(self.key, ACT), step))

    def _fresh(self) -> State:
        task, key = self.task, jax.random.fold_in(self.key, INIT)
        state = sac.init(self.settings.sac, task.observation_size, task.action_size, key)
        # Python scalars make weakly typed leaves; a checkpoint has none, and both must be one program.
        return jax.tree.map(lambda leaf: jnp.array(leaf, leaf.dtype), state)

    def _updates(self, step: int) -> int:
        """Updates due after ``step`` steps of every environment."""
        if step * self.size <= self.settings.warmup:
            return 0
        rate = self.size * self.settings.updates_per_step
        return int(step * rate) - int((step - 1) * rate)

    def _draw(self, step: int, updates: int) -> Steps:
        """Batches drawn uniformly, with replacement, from everything logged; (updates, batch, ...)."""
        task, settings = self.task, self.settings
        random = np.random.default_rng((settings.seed, DRAW, step))
        rows = random.integers(0, step * self.size, (updates, settings.sac.batch_size))
        drawn = self.log.reshape(-1)[rows]
        unit = (drawn["action"] - task.action_low) / (task.action_high - task.action_low)
        return Steps(
            jnp.asarray(drawn["observation"]),
            jnp.asarray(2.0 * unit - 1.0),
            jnp.asarray(drawn["reward"]),
            jnp.asarray(drawn["next_observation"]),
            jnp.asarray(drawn["terminated"], jnp.float32),
        )

    def _evaluate(self, done: int, policy: SquashedGaussianPolicy) -> bool:
        """Adds to the curve; whether a goal was reached for the first time, whose policy is then kept."""
        settings = self.settings
        seed = int(np.random.SeedSequence([settings.seed, EVALUATE]).generate_state(1)[0]) // 2
        controller = Mode(self.task, policy)
        try:
            results = rollout(self.task, controller, settings.evaluation_episodes, seed)
        except FloatingPointError as error:
            raise RunFailed(f"{self.task.id}, evaluation at step {done}: {error}") from error
        before = self._reached()
        self.curve.append((done, float(results.returns.mean())))
        goals = ", ".join(f"{name} {goal:g}" for name, goal in settings.goals)
        self.progress.say(f"step {done}: evaluation return {self.curve[-1][1]:.1f} (goals: {goals})")
        first = self._reached().keys() - before.keys()
        for name in first:
            self._policies(name).save(done, policy)
        return bool(first)

    def _reached(self) -> dict[str, tuple[int, float]]:
        """Goals reached so far -> step and return of the first evaluation that reached them."""
        firsts = ((name, next((point for point in self.curve if point[1] >= goal), None))
                  for name, goal in self.settings.goals)  # fmt: skip
        return {name: first for name, first in firsts if first is not None}

    def _policies(self, name: str) -> CheckpointStore:
        return CheckpointStore(self.folder / "policies" / name, self.settings.fingerprint)

    def _save(self, step: int, state: State) -> None:
        """The state goes last: what it does not vouch for is written again."""
        with self.log_file.open("r+b" if self.log_file.exists() else "w+b") as file:
            file.seek(self.saved * self.size * self.log.itemsize)
            file.write(self.log[self.saved : step].tobytes())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        files.write_json(self.folder / "curve.json", self.curve)
        self.store.save(step, state)
        self.saved = step

    def _restore(self, like: State) -> State:
        step = self.store.steps()[-1]
        if step > len(self.log):
            self.log = np.zeros((step, self.size), self.log.dtype)
        state: State = self.store.load(step, like=like)
        records = np.fromfile(self.log_file, self.log.dtype, step * self.size)
        self.log[:step] = records.reshape(step, self.size)
        curve = files.read_json(self.folder / "curve.json")
        self.curve = [(int(at), float(value)) for at, value in curve if at <= step * self.size]
        self.saved = step
        return state
