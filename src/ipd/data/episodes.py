"""Logged episodes, and the one bridge between logged units and learner's units."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipd.data.assembly import Found, assemble, found_in
from ipd.data.columns import BoolArray, FloatArray, IntArray, Storage, column, moments, pieces
from ipd.data.errors import DataError as DataError
from ipd.data.findings import Finding

if TYPE_CHECKING:
    from ipd.types import Steps

SMALLEST_STD = 1e-3
"""Observation dimensions that hardly vary are divided by this, so that noise is not blown up."""


@dataclasses.dataclass(frozen=True, eq=False)
class Episodes:
    """Logged steps in logged units, flat, episodes one after another."""

    observations: FloatArray
    """(N, obs)"""
    actions: FloatArray
    """(N, act)"""
    rewards: FloatArray
    """(N,)"""
    next_observations: FloatArray
    """(N, obs); never the first observation of the following episode."""
    terminated: BoolArray
    """(N,), the task ended: nothing of value follows."""
    truncated: BoolArray
    """(N,), the recording ended (time limit, cut): values bootstrap through it."""
    starts: IntArray
    """(E + 1,), row of the first step of each episode, then N."""
    source: str = "memory"
    """What was loaded, as the user named it."""
    task: str | None = None
    """Gymnasium id, where known."""
    unlogged_next: BoolArray | None = None
    """(N,), True where a termination's next observation was not stored and the observation itself
    stands in for it: of no consequence to values, wrong as a dynamics target. None: all stored."""
    remarks: tuple[str, ...] = ()
    """What the reader had to decide for want of marks in the file, one line each."""
    doubts: tuple[Finding, ...] = ()
    """What it decided against the file's own words, or holds for a mistake in it."""
    rounded: tuple[str, ...] = ()
    """Dimensions in which rounding to float32 is more than a hundredth of the range."""
    observation_names: tuple[str, ...] = ()
    """Of each dimension, as the source has them; () where it has none."""
    action_names: tuple[str, ...] = ()
    times: npt.NDArray[np.float64] | None = None
    """(N,) clock of each step, in the source's unit (dates: seconds); None where it has none."""
    columns: Mapping[str, Any] | None = None
    """Which columns of a table were read as what; None where the source is no table."""
    disk: Path | None = None
    """Folder on whose disk the columns lie, for sets too large for memory; None: in memory."""

    def __post_init__(self) -> None:
        """Raises DataError unless shapes agree and every episode has at least one step."""
        rows = len(self.observations)
        for name in ("actions", "rewards", "next_observations", "terminated", "truncated"):
            found = len(getattr(self, name))
            if found != rows:
                raise DataError(f"{found} rows, but {rows} observations", file=self.source, key=name)
        if len(self.starts) < 2 or rows == 0:
            cure = "give a file that holds at least one step"
            raise DataError("zero episodes", file=self.source, cure=cure)
        if self.starts[0] != 0 or self.starts[-1] != rows or (np.diff(self.starts) < 1).any():
            raise DataError("starts do not cut the rows into episodes", file=self.source, key="starts")

    def __repr__(self) -> str:
        """What there is, not the numbers."""
        return (
            f"<Episodes of {self.source}: {self.num_episodes:,} episodes, {self.num_steps:,} steps, "
            f"{self.observation_size} observation and {self.action_size} action dimensions, "
            f"task {self.task or 'unknown'}>"
        )

    @classmethod
    def from_arrays(
        cls,
        observations: npt.ArrayLike,
        actions: npt.ArrayLike,
        rewards: npt.ArrayLike,
        terminated: npt.ArrayLike,
        truncated: npt.ArrayLike,
        next_observations: npt.ArrayLike | None = None,
        observation_names: Sequence[str] = (),
        action_names: Sequence[str] = (),
        task: str | None = None,
    ) -> Episodes:
        """Flat arrays of N steps in logged units, cut and refused as a file with the same arrays would be.

        ``observations`` and ``next_observations`` (N, obs), ``actions`` (N, act), the rest (N,).
        """
        given = {"observations": observations, "actions": actions, "rewards": rewards}
        given |= {"terminals": terminated, "timeouts": truncated}
        if next_observations is not None:
            given["next_observations"] = next_observations
        return cls.from_found(found_in(given, (observation_names, action_names), task))

    @classmethod
    def from_found(cls, found: Found, storage: Storage | None = None) -> Episodes:
        """What a reader found in a source. Raises DataError where it does not fit together."""
        try:
            return cls(**assemble(found, storage))
        except MemoryError as error:
            cure = "take fewer episodes, or, in a run, keep the set on disk (--stream.above-steps)"
            raise DataError(f"does not fit into memory ({error})", file=found.source, cure=cure) from error

    @property
    def num_steps(self) -> int:
        """N, over all episodes."""
        return len(self.observations)

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.starts) - 1

    @property
    def observation_size(self) -> int:
        """Dimensions of an observation."""
        return int(self.observations.shape[1])

    @property
    def action_size(self) -> int:
        """Dimensions of an action."""
        return int(self.actions.shape[1])

    @cached_property
    def lengths(self) -> IntArray:
        """(E,) steps of each episode."""
        return np.diff(self.starts)

    @cached_property
    def returns(self) -> npt.NDArray[np.float64]:
        """(E,) undiscounted sum of each episode's rewards, logged units."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.starts[:-1])

    @cached_property
    def episode_index(self) -> IntArray:
        """(N,) episode of each row."""
        return np.repeat(np.arange(self.num_episodes, dtype=np.int64), self.lengths)

    @cached_property
    def timesteps(self) -> IntArray:
        """(N,) step within the episode, 0-based."""
        return np.arange(self.num_steps, dtype=np.int64) - self.starts[self.episode_index]

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the content (not of the source, task or remarks)."""
        total = hashlib.sha256()
        for name in ("observations", "actions", "rewards", "next_observations", "terminated", "truncated"):
            array = np.ascontiguousarray(getattr(self, name))
            total.update(f"{name} {array.dtype.str} {array.shape}".encode())
            for piece in pieces(len(array)):
                total.update(array[piece].data)
        total.update(np.ascontiguousarray(self.starts).data)
        if self.unlogged_next is not None:
            total.update(np.ascontiguousarray(self.unlogged_next).data)
        return total.hexdigest()[:16]

    def select(self, indices: Sequence[int] | IntArray) -> Episodes:
        """These episodes only, in this order, in memory. Raises DataError when none is named."""
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if len(chosen) == 0:
            raise DataError("no episode selected", file=self.source, cure="select at least one")
        rows = np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in chosen])
        return dataclasses.replace(
            self,
            observations=self.observations[rows],
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            next_observations=self.next_observations[rows],
            terminated=self.terminated[rows],
            truncated=self.truncated[rows],
            starts=np.concatenate([[0], np.cumsum(self.lengths[chosen])]).astype(np.int64),
            unlogged_next=None if self.unlogged_next is None else self.unlogged_next[rows],
            times=None if self.times is None else self.times[rows],
            disk=None,
        )


class Normaliser(NamedTuple):
    """Logged units to learner's units and back; fitted once, stored with every artefact.

    Methods take and give numpy arrays whose last axis is the dimension, float32 out.
    """

    observation_mean: FloatArray
    """(obs,)"""
    observation_std: FloatArray
    """(obs,), never below SMALLEST_STD."""
    action_low: FloatArray
    """(act,), mapped to -1."""
    action_high: FloatArray
    """(act,), mapped to 1."""
    reward_scale: np.float32

    def observations(self, logged: npt.ArrayLike) -> FloatArray:
        """(..., obs) logged -> zero mean and unit variance over the data."""
        return (np.asarray(logged, np.float32) - self.observation_mean) / self.observation_std

    def actions(self, logged: npt.ArrayLike) -> FloatArray:
        """(..., act) logged -> [-1, 1]; bitwise the identity for bounds of -1 and 1."""
        centre = self.action_high / np.float32(2) + self.action_low / np.float32(2)
        scaled = np.divide(np.asarray(logged, np.float32) - centre, self._half_range(), dtype=np.float32)
        return np.clip(scaled, np.float32(-1), np.float32(1))  # rounding may overshoot by one unit

    def raw_actions(self, scaled: npt.ArrayLike) -> FloatArray:
        """(..., act) in [-1, 1] -> logged units, never outside the bounds; the inverse of ``actions``."""
        # Minus the negated centre: adding +0.0 would turn -0.0 into 0.0 and break the bitwise identity.
        negated_centre = -self.action_high / np.float32(2) - self.action_low / np.float32(2)
        raw = np.asarray(scaled, np.float32) * self._half_range() - negated_centre
        return np.clip(raw, self.action_low, self.action_high)

    def rewards(self, logged: npt.ArrayLike) -> FloatArray:
        """Logged -> scaled rewards, any shape."""
        return np.asarray(logged, np.float32) * self.reward_scale

    def _half_range(self) -> FloatArray:
        half = self.action_high / np.float32(2) - self.action_low / np.float32(2)
        return np.where(half > 0, half, np.float32(1)).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and floats; exact through JSON and ``from_dict``."""
        return {name: np.asarray(value).tolist() for name, value in self._asdict().items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normaliser:
        """The normaliser that ``to_dict`` described, bit for bit."""
        arrays = {name: np.asarray(values[name], np.float32) for name in cls._fields[:-1]}
        return cls(**arrays, reward_scale=np.float32(values["reward_scale"]))


def fit_normaliser(
    episodes: Episodes,
    action_low: npt.ArrayLike | None = None,
    action_high: npt.ArrayLike | None = None,
    reward_scale: float | None = None,
) -> Normaliser:
    """Mean and std of the observations, action bounds and reward scale of a dataset.

    ``action_low`` and ``action_high`` (act,) are the task's; without them -1 and 1 where the data
    lie within, else the data's own smallest and largest of each dimension. ``reward_scale`` None is 1.
    Raises DataError where bounds are not finite or the data lie outside them.
    """
    if action_low is not None and action_high is not None:
        low, high = np.asarray(action_low, np.float32), np.asarray(action_high, np.float32)
        require_bounds(episodes, low, high)
    elif episodes.actions.min() >= -1 and episodes.actions.max() <= 1:
        low, high = np.full(episodes.action_size, -1, np.float32), np.ones(episodes.action_size, np.float32)
    else:
        low, high = episodes.actions.min(0), episodes.actions.max(0)
    mean, std = moments(episodes.observations)
    return Normaliser(
        observation_mean=mean.astype(np.float32),
        observation_std=np.maximum(std, SMALLEST_STD).astype(np.float32),
        action_low=low,
        action_high=high,
        reward_scale=np.float32(1 if reward_scale is None else reward_scale),
    )


def locomotion_reward_scale(episodes: Episodes) -> float:
    """1000 / (best return - worst return), 1 where all returns are equal (IQL's locomotion scale)."""
    spread = float(episodes.returns.max() - episodes.returns.min())
    return 1000.0 / spread if spread > 0 else 1.0


def to_steps(episodes: Episodes, normaliser: Normaliser) -> Steps:
    """All rows in learner's units, numpy float32; on disk where the episodes are."""
    from ipd.types import Steps  # its annotations import jax, which reading and checking data do not need

    def all_of(logged: npt.NDArray[Any], scaled: Callable[[npt.NDArray[Any]], FloatArray]) -> Any:
        if episodes.disk is None:
            return scaled(logged)
        made = column(logged.shape, np.float32, episodes.disk)
        for piece in pieces(len(logged)):
            made[piece] = scaled(logged[piece])
        return made

    return Steps(
        observations=all_of(episodes.observations, normaliser.observations),
        actions=all_of(episodes.actions, normaliser.actions),
        rewards=all_of(episodes.rewards, normaliser.rewards),
        next_observations=all_of(episodes.next_observations, normaliser.observations),
        terminated=episodes.terminated.astype(np.float32),  # type: ignore[arg-type]
    )


def require_bounds(episodes: Episodes, low: npt.ArrayLike, high: npt.ArrayLike) -> None:
    """Raises DataError unless the bounds (act,) are finite, of the data's size, and hold every action."""
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    problem, row = None, None
    if low.shape != (episodes.action_size,) or high.shape != low.shape:
        problem = f"{episodes.action_size} dimensions, but the task's bounds have {low.size}"
    elif not (np.isfinite(low).all() and np.isfinite(high).all()):
        problem = "the task's action bounds are not finite"
    else:
        outside = (episodes.actions < low) | (episodes.actions > high)
        if outside.any():
            row, column = (int(i) for i in np.argwhere(outside)[0])
            problem = (
                f"dimension {column} is {episodes.actions[row, column]:g}, outside the task's bounds "
                f"[{low[column]:g}, {high[column]:g}] ({outside.any(1).sum()} rows are outside)"
            )
    if problem:
        cure = "clip or rescale the actions, or name the task they were recorded in"
        raise DataError(problem, file=episodes.source, key="actions", row=row, cure=cure)
