"""What goes wrong without failing: each found by a rule, told with a cure. In the terminal, in metrics.jsonl
and on the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ipd.config import Config
from ipd.types import Steps

NEAR_BOUND = 0.05
"""Share of the range of log-variances that counts as its end."""
FEW_ACCEPTED = 0.05
"""Share of chosen states, below which kappa rejects nearly everything."""
DEAD = 3.0
"""A member whose held-out error is this many times the median member's has learned less than it should."""
ALIKE = 0.05
"""Where the exponents of the policy's weights go no further than this from 0, all weights are near 1."""


class Alarm(NamedTuple):
    """One thing that is wrong with one seed."""

    seed: int
    what: str
    cure: str


def of(
    stage: str,
    config: Config,
    seeds: tuple[int, ...],
    last: Mapping[int, Mapping[str, float]],
    summary: Mapping[str, Any],
    steps: Callable[[], Steps],
) -> list[Alarm]:
    """Alarms of a finished stage: of its `last` metrics by seed, of its summary, and of the data."""
    found = [alarm for seed in seeds for alarm in _of_metrics(stage, config, seed, last.get(seed, {}), steps)]
    told = summary.get("seeds", [])
    for seed, entry in zip(seeds, told if len(told) == len(seeds) else [], strict=False):
        found += _of_summary(seed, entry)
    return found


def _of_metrics(
    stage: str, config: Config, seed: int, last: Mapping[str, float], steps: Callable[[], Steps]
) -> Iterator[Alarm]:
    largest = max((abs(last[name]) for name in ("q_mean", "q_policy") if name in last), default=0.0)
    if largest:
        discount = getattr(getattr(config, stage, None), "discount", config.value.discount)
        reach = float(np.abs(np.asarray(steps().rewards)).max()) / (1 - discount)
        if largest > reach > 0:  # without rewards there is nothing to reach, and Q is small
            yield Alarm(
                seed,
                f"Q has blown up: {largest:.3g} on average, where no policy can reach more than {reach:.3g}",
                f"a smaller {_rate(config, stage)}",
            )
    if {"value_loss", "huber_delta"} <= last.keys():
        spread, more = _exponents(config, last), "a higher --value.inverse-temperature"
        if spread < ALIKE and np.ptp(np.asarray(steps().rewards)) > 0:  # equal ones say nothing in any unit
            largest = float(np.abs(np.asarray(steps().rewards)).max())
            yield Alarm(
                seed,
                f"the policy's weights are all alike, for the advantages are too small: the exponents are "
                f"within {spread:.2g} of 0; the largest reward is {largest:.2g}",
                more if largest >= 1 else f"multiplying the rewards in the data until that is 1, or {more}",
            )
    if "log_variance" in last:
        low, high = config.world.log_variance_bounds
        room = NEAR_BOUND * (high - low)
        if last["log_variance"] > high - room:
            yield Alarm(
                seed,
                f"the model's log-variance is at its upper bound, {last['log_variance']:.2f} of {high:g}: "
                "it says little more than that anything may follow",
                "more --world.steps, or wider --world.hidden; look for noise or missing columns in the data",
            )
        if last["log_variance"] < low + room:
            yield Alarm(
                seed,
                f"the model's log-variance is at its lower bound, {last['log_variance']:.2f} of {low:g}: "
                "it is certain of everything",
                "look for columns that are copies or do not change (`ipd data check`), or lower "
                "--world.log-variance-bounds",
            )
    if "action_error" in last:
        spread = float(np.var(np.asarray(steps().actions), axis=0, dtype=np.float64).mean())
        if last["action_error"] > spread:
            yield Alarm(
                seed,
                f"the policy has left the data's actions: squared difference {last['action_error']:.3g}, "
                f"where the mean action always taken gives {spread:.3g}",
                "less --policy.q-weight" * (stage == "policy")
                + ", or " * (stage == "policy")
                + f"more --{stage}.steps if it still falls",
            )


def _exponents(config: Config, last: Mapping[str, float]) -> float:
    """How far from 0 the exponents of Eq. 5's weights are at most: nearly all, or by their mean square."""
    value = config.value
    if value.huber_quantile < 1:
        size = last["huber_delta"]
    else:  # the loss is half the square, weighted with no less than this
        size = np.sqrt(2 * last["value_loss"] / min(value.expectile, 1 - value.expectile))
    return float(value.inverse_temperature * size)


def _rate(config: Config, stage: str) -> str:
    """The options that set how fast a stage learns; the refit has those of the values."""
    section = "value" if stage == "refit" else stage
    names = (field.name for field in dataclasses.fields(getattr(config, section)))
    rates = [f"--{section}.{name.replace('_', '-')}" for name in names if name.endswith("learning_rate")]
    return ", ".join(rates)


def _of_summary(seed: int, entry: Mapping[str, Any]) -> Iterator[Alarm]:
    errors = np.array(entry.get("member_error") or [], np.float64)
    if len(errors):
        dead = np.flatnonzero(~(errors <= DEAD * np.nanmedian(errors)))
        if len(dead):
            yield Alarm(
                seed,
                f"member {', '.join(map(str, dead))} of the world model is dead: held-out error "
                f"{errors[dead[0]]:.3g}, the median member's is {np.nanmedian(errors):.3g}",
                "another --first-seed, more --world.num-members, or more --world.steps",
            )
    accepted = entry.get("accepted_first")
    if accepted is not None and entry.get("selected", 0) and accepted < FEW_ACCEPTED:
        yield Alarm(
            seed,
            f"kappa rejects nearly everything: of the chosen states {100 * accepted:.1f} % have a first step "
            "inside the reliable part of the model",
            "a higher --world.threshold-quantile or --world.threshold-scale, or a world model trained longer",
        )
