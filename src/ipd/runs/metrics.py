"""metrics.jsonl: one record a seed and chunk, no clock times, no gap and no duplicate after a resume."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ipd.runs import files
from ipd.runs.alarms import Alarm
from ipd.runs.errors import InputError

GLOSSARY: dict[str, tuple[str, str]] = {
    "value_loss": ("Huber-expectile loss of V (Eq. 3)", "scaled reward^2"),
    "critic_loss": ("squared TD error, summed over the Q networks (Eq. 4)", "scaled reward^2"),
    "actor_loss": ("advantage-weighted negative log-likelihood of the logged action (Eq. 5)", "nats"),
    "q_mean": ("Q of logged pairs", "scaled reward"),
    "v_mean": ("V of logged observations", "scaled reward"),
    "advantage_mean": ("smallest target Q minus V at logged pairs", "scaled reward"),
    "huber_delta": ("running quantile of |e|, where the Huber loss turns linear (Eq. 1)", "scaled reward"),
    "log_std": ("log standard deviation of the quasi-optimal policy, mean over dimensions", "log action"),
    "dynamics_loss": ("consistency loss, summed over members (Eq. 14)", "nats"),
    "reward_loss": ("squared error of the reward, summed over members (Eq. 16)", "scaled reward^2"),
    "termination_loss": ("cross-entropy of the learned termination", "nats"),
    "log_variance": ("predicted log-variance of the change, mean over members", "log std^2"),
    "held_out_error": ("squared error on held-out episodes, mean over members", "std^2"),
    "best_error": ("smallest held-out error so far, mean over members", "std^2"),
    "action_error": ("squared difference of predicted and logged (or imagined) action", "action^2"),
    "observation_error": ("squared difference of predicted and logged next observation", "std^2"),
    "policy_loss": ("loss of the sequence policy (Eq. 26)", "action^2"),
    "q_gain": ("smallest Q of the policy's action minus that of the data's", "scaled reward"),
    "return_loss": ("expectile loss of the return; unit: half the range, or the mean return", "unit^2"),
    "return_gain": ("predicted return minus the logged one", "largest logged return"),
    "return_cross_entropy": ("cross-entropy of the return's bin (EDT)", "nats"),
    "negative_log_likelihood": ("of the logged action", "nats"),
    "entropy": ("of the policy at logged steps, summed over action dimensions", "nats"),
    "temperature": ("weight of the entropy in the policy's loss", "loss per nat"),
    "q_policy": ("smallest Q of the policy's action", "scaled reward"),
    "conservative_gap": ("log integral of exp Q over actions, minus Q of the logged one", "scaled reward"),
    "inconsistency": ("spread of the members' Bellman targets at imagined steps (MOBILE)", "scaled reward"),
    "diffusion_error": ("squared error of the noise, or of its velocity, in plans (DD)", "std^2"),
    "gradient_norm": ("norm of the gradient before clipping", "loss per weight"),
}
"""Name -> (meaning, unit) of every metric; values are means over the updates since the record before."""


class MetricsLog:
    """The append-only log of a run's metrics; `seeds` name the rows of what is appended."""

    def __init__(self, path: Path, seeds: tuple[int, ...]) -> None:
        self._path = path
        self._seeds = seeds

    def resume(self, stage: str, step: int) -> None:
        """Forgets what `stage` logged after `step`, and a last line that a kill cut short."""
        lines = [line for line, record in self._records() if not _is_later(record, stage, step)]
        kept = "".join(lines).encode()
        if self._path.exists() and len(kept) < self._path.stat().st_size:
            files.write_bytes(self._path, kept)

    def append(
        self, stage: str, step: int, values: dict[str, NDArray[Any]], alive: NDArray[Any] | None = None
    ) -> None:
        """One record a seed (of those `alive`); `values` have the seeds on axis 0."""
        files.require_held(self._path)
        with self._path.open("a") as file:
            for row, seed in enumerate(self._seeds):
                if alive is not None and not alive[row]:
                    continue
                record = {"stage": stage, "step": step, "seed": seed}
                record |= {name: _number(value[row]) for name, value in sorted(values.items())}
                file.write(json.dumps(record, allow_nan=False) + "\n")

    def warn(self, stage: str, alarms: Sequence[Alarm]) -> None:
        """Notes alarms of a stage, in place of those it noted before."""
        lines = self._records()
        kept = [line for line, record in lines if record["stage"] != stage or "warning" not in record]
        records = [{"stage": stage, "seed": a.seed, "warning": a.what, "cure": a.cure} for a in alarms]
        if records or len(kept) < len(lines):
            text = "".join(kept) + "".join(json.dumps(record) + "\n" for record in records)
            files.write_bytes(self._path, text.encode())

    def last(self, stage: str) -> dict[int, dict[str, float]]:
        """What each seed of a stage logged last, by metric."""
        found: dict[int, dict[str, float]] = {}
        for _, record in self._records():
            if record.pop("stage") == stage and record.pop("step", None) is not None:
                found.setdefault(record.pop("seed"), {}).update(record)
        return found

    def take_over(self, other: Path, stage: str) -> None:
        """Replaces what is logged of `stage` by what another run logged of it."""
        self.resume(stage, -1)
        theirs = MetricsLog(other, self._seeds)._records()
        lines = self._records() + [each for each in theirs if _is_later(each[1], stage, -1)]
        files.write_bytes(self._path, "".join(line for line, _ in lines).encode())

    def _records(self) -> list[tuple[str, dict[str, Any]]]:
        """All whole lines, with what they say. Raises `InputError` where one is no record."""
        if not self._path.exists():
            return []
        found: list[tuple[str, dict[str, Any]]] = []
        *lines, _ = self._path.read_bytes().split(b"\n")  # what a kill cut short is after the last of them
        for line in lines:
            try:
                record = json.loads(line)
                if not _is_record(record):
                    raise ValueError("no numbers of a stage and a seed")
                found.append((line.decode() + "\n", record))
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{self._path}: line {len(found) + 1} is no metrics record ({error}); restore the file, "
                    "or run the same `ipd train` in another folder"
                ) from error
        return found

    def sync(self) -> None:
        """Makes all records durable; called before the checkpoint that counts on them."""
        with self._path.open("a") as file:
            os.fsync(file.fileno())


def _is_record(value: Any) -> bool:
    if not (isinstance(value, dict) and isinstance(value.get("stage"), str)):
        return False
    numbers = {name: number for name, number in value.items() if name != "stage"}
    if "warning" in value:
        numbers = {"seed": value.get("seed")}
    whole = type(value.get("seed")) is int and ("warning" in value or type(value.get("step")) is int)
    return whole and all(type(n) in (int, float) and abs(n) <= sys.float_info.max for n in numbers.values())


def _is_later(record: dict[str, Any], stage: str, step: int) -> bool:
    return bool(record["stage"] == stage and record.get("step", math.inf) > step)


def _number(value: Any) -> float:
    """A float32 as a number with no digits that it does not have."""
    return float(f"{float(value):.7g}")
