"""Imagined segments to look at: each beside the log, with the plans that were considered at every step.

The plans are made again as augmentation made them: its noise is drawn anew from the keys and the places
that augmented.hdf5 keeps, and the states are those of the file. Everything comes out in logged units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.config import AugmentConfig, Config
from ipd.data.episodes import SMALLEST_STD
from ipd.planning.mpc import consider, plan_noise
from ipd.runs import augmented
from ipd.runs.context import Run, plain
from ipd.runs.errors import InputError
from ipd.runs.imagination import Dreamer, batch_rows, dreamer_of
from ipd.value import learn as value_learner
from ipd.world.uncertainty import TerminationRule, predict_fn

Table = dict[str, NDArray[Any]]

DIMENSIONS = 3
"""Observation and action dimensions shown at most: those in which imagination and log part most."""
PLANS = 8
"""Plans shown at most: the policy's own, then the best."""


def provenance(run: Run, seed: int) -> Table:
    """What one seed's segments came from, one entry a segment; `first` is the row of its first step in the
    file. Raises `InputError` where the file is of a version that did not keep enough to make plans again."""
    with augmented.opened(run) as file:
        told = {name: values[()] for name, values in file[f"seed-{seed}/provenance"].items()}
    if "place" not in told:
        raise InputError(
            f"{run.folder / augmented.NAME}: of an older version, which did not keep what plans can be made "
            "again from; the same `ipd train` command makes it anew"
        )
    return told | {"first": np.cumsum(told["length"]) - told["length"]}


Pick = tuple[int, str]
"""A segment's place in its seed's provenance, and a word on why it is shown."""


def telling(told: Table, steps: int) -> list[Pick]:
    """Segments that show the most: the largest, median and smallest gain, and one that ended early."""
    order = _by_gain(told)
    if not len(order):
        return []
    early = order[told["length"][order] < steps]
    picks = [(order[0], "largest gain"), (order[len(order) // 2], "median gain")]
    picks += [(early[len(early) // 2], "ended early")] if len(early) else []
    picks += [(order[-1], "smallest gain")]
    return [(int(at), why) for i, (at, why) in enumerate(picks) if at not in [p for p, _ in picks[:i]]]


def spread(told: Table, episode: int | None, count: int) -> list[Pick]:
    """At most `count` segments, evenly from the largest gain to the smallest; of one episode, if given.

    Raises `InputError` where there is none.
    """
    order = _by_gain(told)
    ranks = np.arange(len(order)) if episode is None else np.flatnonzero(told["episode"][order] == episode)
    if not len(ranks):
        where = "" if episode is None else f" from episode {episode}"
        kept = f"the {len(order)} that were kept are of other episodes" if len(order) else "none was kept"
        raise InputError(f"no imagined segment{where}; {kept}")
    shown = ranks[np.linspace(0, len(ranks) - 1, min(count, len(ranks))).round().astype(int)]
    return [(int(order[rank]), f"gain number {rank + 1} of {len(order)}") for rank in shown]


def _by_gain(told: Table) -> NDArray[np.int64]:
    return np.argsort(told["real_return"] - told["imagined_return"], kind="stable")


def view(run: Run, values: Any, world: Any, split: Any, augmented: str) -> None:
    """The stage behind the page's examples: a few segments of the first seed that was not stopped."""
    fingerprint = run.fingerprint("view", run.config.augment, (augmented,))

    def work() -> dict[str, Any]:
        stopped = run.stopped("view")
        row = next(row for row, seed in enumerate(run.seeds) if seed not in stopped)
        told = provenance(run, run.seeds[row])
        return examples(run, values, world, split, row, told, telling(told, run.config.augment.imagine_steps))

    run.finish("view", fingerprint, work)


def examples(
    run: Run, values: Any, world: Any, split: Any, row: int, told: Table, picks: Sequence[Pick]
) -> dict[str, Any]:
    """Segments of the run's `row`-th seed, as the page takes them (docs/architecture.md, ``view``)."""
    config, dreamer, seed = run.config.augment, dreamer_of(run, values, world, row), run.seeds[row]
    shown: dict[str, Any] = {"seed": seed, "kappa": float(dreamer.kappa), "segments": []}
    stretches = [_stretch(run, seed, told, at) for at, _ in picks]
    starts = [(number, t) for number, one in enumerate(stretches) for t in range(len(one["planned"]))]
    if not starts:
        return shown
    batch = batch_rows(run.summary("augment")["seeds"][row]["selected"], config.batch_size)
    key, places = run.keys("augment")[row], [int(told["place"][at]) for at, _ in picks]
    noises = [_noise(config, key, batch, run.spec.action_size, places[number], t) for number, t in starts]
    noise = np.stack(noises, axis=2)
    states = np.stack([stretches[number]["planned"][t] for number, t in starts])
    rule = split.rule
    plans = jax.tree.map(np.asarray, _consider(run.config, rule, dreamer, *map(jnp.asarray, (states, noise))))
    for number, (at, why) in enumerate(picks):
        mine = [place for place, (owner, _) in enumerate(starts) if owner == number]
        judged = [_judge(run.config, rule, dreamer, *stretches[number][kind]) for kind in ("log", "model")]
        told_of = _told(run, told, at, why, stretches[number], judged, [_pick(plans, p) for p in mine])
        shown["segments"].append(plain(told_of))
    return shown


def _noise(
    config: AugmentConfig, key: jax.Array, batch: int, action_size: int, place: int, step: int
) -> NDArray[np.float32]:
    """Noise (time, plans, act) of the plans from the chosen state number `place`, at one of its steps."""
    keys = jax.random.split(jax.random.fold_in(key, place // batch), config.imagine_steps)
    return np.asarray(_draw(config, batch, action_size, keys[step], jnp.asarray(place % batch)))


@eqx.filter_jit
def _draw(
    config: AugmentConfig, batch: int, action_size: int, key: jax.Array, column: jax.Array
) -> jax.Array:
    return plan_noise(config, key, batch, action_size)[:, :, column]


@eqx.filter_jit
def _consider(
    config: Config, rule: TerminationRule | None, dreamer: Dreamer, states: jax.Array, noise: jax.Array
) -> dict[str, jax.Array]:
    """Every plan from each state, leaves (states, plans, ...): actions, rewards, states and U on the way."""
    predict = predict_fn(config.world, dreamer.ensemble, rule)
    values, policy = value_learner.value_fn(dreamer.values), value_learner.policy_fn(dreamer.values)
    rollout, scores = consider(
        predict, values, policy, config.value.discount, states, noise, dreamer.kappa
    )  # fmt: skip
    plans, count = scores.shape

    def follow(state: jax.Array, action: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        said = predict(state, action)
        return said.next_observation, (said.next_observation, said.uncertainty)

    first = jnp.tile(states, (plans, 1))
    _, (ways, unsure) = jax.lax.scan(follow, first, jnp.swapaxes(rollout.actions, 0, 1))
    ways = jnp.concatenate([first[None], ways])
    flat = {
        "actions": rollout.actions, "rewards": rollout.rewards, "valid": rollout.valid,
        "terminated": rollout.terminated, "end_value": values(rollout.final_observations),
        "states": jnp.swapaxes(ways, 0, 1), "uncertainty": unsure.T, "score": scores.reshape(-1),
    }  # fmt: skip
    return {n: jnp.swapaxes(x.reshape(plans, count, *x.shape[1:]), 0, 1) for n, x in flat.items()}


@eqx.filter_jit
def _judge(
    config: Config, rule: TerminationRule | None, dreamer: Dreamer, states: jax.Array, actions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """V of `states` (time + 1, obs), and U of the pairs with `actions` (time, act)."""
    predict = predict_fn(config.world, dreamer.ensemble, rule)
    return value_learner.value_fn(dreamer.values)(states), predict(states[:-1], actions).uncertainty


def _pick(plans: Table, place: int) -> Table:
    """One state's plans: the policy's own, then the best of the others."""
    own = {name: leaf[place] for name, leaf in plans.items()}
    order = np.argsort(-own["score"], kind="stable")
    shown = np.concatenate([[0], order[order != 0][: PLANS - 1]])
    return {name: leaf[shown] for name, leaf in own.items()} | {
        "considered": np.asarray(len(order)),
        "usable": np.asarray(np.isfinite(own["score"]).sum()),
        "best": np.asarray(int(np.argmax(own["score"][shown]))),
    }


def _stretch(run: Run, seed: int, told: Table, at: int) -> dict[str, Any]:
    """One segment and the log from the same row on, learner's units; padded to `imagine_steps`.

    `planned` are the states at which plans were made: of every step, and where imagination stopped for
    doubt also of the step that it did not take.
    """
    time, bridge = run.config.augment.imagine_steps, run.normaliser
    length, first, row = (int(told[name][at]) for name in ("length", "first", "row"))
    with augmented.opened(run) as file:
        group, names = file[f"seed-{seed}"], (*augmented.STEP_KEYS, "terminals", "uncertainty")
        own = {name: group[name][first : first + length] for name in names}
    states = bridge.observations(np.concatenate([own["observations"], own["next_observations"][-1:]]))
    actions = bridge.actions(own["actions"])
    whole = length == time or bool(own["terminals"][-1])
    stretch = slice(row, row + time)
    log = run.steps
    behind = np.concatenate([log.observations[stretch], log.next_observations[row + time - 1 : row + time]])

    def padded(values: NDArray[Any], rows: int) -> NDArray[np.float32]:
        more = np.repeat(values[-1:], rows - len(values), axis=0)
        return np.concatenate([values, more]).astype(np.float32)

    return {
        "length": length,
        "log_ended": bool(log.terminated[row + time - 1] > 0.5),
        "end": "terminated" if own["terminals"][-1] else "whole" if whole else "unreliable",
        "planned": states[: length if whole else length + 1],
        "model": (padded(states, time + 1), padded(actions, time)),
        "log": (np.asarray(behind), np.asarray(log.actions[stretch])),
        "rewards": (np.asarray(log.rewards[stretch]), bridge.rewards(own["rewards"])),
        "uncertainty": own["uncertainty"],
    }


def _told(
    run: Run, told: Table, at: int, why: str, stretch: dict[str, Any], judged: list[Any], plans: list[Table]
) -> dict[str, Any]:
    """Everything of one segment in logged units, with the dimensions in which it parts most from the log."""
    length, scale, discount = stretch["length"], run.normaliser.reward_scale, run.config.value.discount
    log, model = stretch["log"], stretch["model"]
    apart = np.abs(model[0][: length + 1] - log[0][: length + 1]).max(axis=0)
    # What never moves is divided by a floor, and an error of no size in it would lead the others.
    still = (run.normaliser.observation_std <= SMALLEST_STD) & (np.ptp(log[0], axis=0) == 0)
    order = np.argsort(-apart, kind="stable")
    shown = np.sort(order[~still[order]][:DIMENSIONS])
    differ = np.abs(model[1][:length] - log[1][:length]).max(axis=0)
    acts = np.sort(np.argsort(-differ, kind="stable")[:DIMENSIONS])

    def states(values: NDArray[Any]) -> NDArray[Any]:
        std, mean = run.normaliser.observation_std, run.normaliser.observation_mean
        return (values * std + mean)[..., shown]

    def actions(values: NDArray[Any]) -> NDArray[Any]:
        return run.normaliser.raw_actions(values)[..., acts]

    def side(kind: int, steps: int) -> dict[str, Any]:
        both = (log, model)[kind]
        value, unsure = (np.asarray(part) for part in judged[kind])
        return {
            "observations": states(both[0][: steps + 1]),
            "actions": actions(both[1][:steps]),
            "rewards": stretch["rewards"][kind][:steps] / scale,
            "value": value[: steps + 1] / scale,
            "uncertainty": (unsure[:steps], stretch["uncertainty"])[kind],
        }

    names = run.episodes.observation_names, run.episodes.action_names
    return {
        "why": why,
        **{name: int(told[name][at]) for name in ("row", "episode", "step", "length")},
        "imagine_steps": run.config.augment.imagine_steps,
        "end": stretch["end"],
        "imagined_return": told["imagined_return"][at] / scale,
        "real_return": told["real_return"][at] / scale,
        "discount": discount,
        "dimensions": [names[0][i] if names[0] else f"observation {i}" for i in shown],
        "action_dimensions": [names[1][i] if names[1] else f"action {i}" for i in acts],
        "log": side(0, run.config.augment.imagine_steps) | {"ended": stretch["log_ended"]},
        "model": side(1, length),
        "plans": [
            {
                "considered": int(plan["considered"]), "usable": int(plan["usable"]),
                "best": int(plan["best"]), "score": plan["score"] / scale,
                "actions": actions(plan["actions"][:, 0]),
                "length": plan["valid"].sum(axis=1), "end_value": plan["end_value"] / scale,
                "ended": (plan["terminated"] * plan["valid"]).max(axis=1) > 0.5,
                "rewards": plan["rewards"] / scale, "uncertainty": plan["uncertainty"],
                "observations": states(plan["states"]),
            }
            for plan in plans
        ],
    }  # fmt: skip
