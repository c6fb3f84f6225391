"""The judge stage: what a finished run's policies are worth, without a simulator (docs/judging.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.data.episodes import to_steps
from ipd.evaluation import fqe
from ipd.evaluation.agreement import BEHAVIOUR, Estimate, apart, estimate, rank_correlation, verdict
from ipd.evaluation.coverage import Support, action_distance
from ipd.evaluation.logged_actions import Layout, layout, memoryless_actions, sequence_actions
from ipd.evaluation.model_return import ModelReturn, ensemble_return, reliable_share
from ipd.policy.act import act, begin
from ipd.report import page
from ipd.runs import judging, learning, loop, modelling, rundir, stages
from ipd.runs.algorithms import ALGORITHMS
from ipd.runs.context import Run, plain, unstack
from ipd.runs.errors import InputError
from ipd.runs.metrics import MetricsLog
from ipd.runs.trained import Trained
from ipd.types import Steps

STAGE = "judge"
KEY = 1_000
"""Of this stage's random numbers."""
MOST_STEPS = 1_000_000
"""Logged steps that are looked at; of a larger set, those of episodes drawn at random."""
MOST_UPDATES = 20_000


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of a judgement."""

    members: int = 4
    """Bootstrapped networks for each policy and seed."""
    steps: int = MOST_UPDATES
    """Updates of fitted Q."""
    horizon: int = 200
    """Steps of a roll-out in the model."""
    starts: int = 500
    """Logged initial states that returns are averaged over, at most."""
    kappa: float | None = None
    """Uncertainty at which a roll-out is cut; None: the world model's own."""


class Judged(NamedTuple):
    """A policy to be judged: as in `policy.act.Controller`, seeds on the first axis of actors and blanks."""

    name: str
    act: Callable[..., tuple[jax.Array, Any]]
    actors: Any
    blanks: Any
    context_len: int | None = None
    """Steps that a sequence policy looks back; None: it sees the state alone."""

    def on_log(self, row: int, rows: Layout) -> NDArray[np.float32]:
        """(N + E, act): its actions along the log, by one seed."""
        actor = unstack(self.actors, row)
        if self.context_len is not None:
            return sequence_actions(actor, self.context_len, rows)
        return memoryless_actions(self.act, actor, unstack(self.blanks, row), rows)


class Ground(NamedTuple):
    """What policies are judged on."""

    steps: Steps
    starts: NDArray[np.int64]
    rows: Layout
    chosen: NDArray[np.int64]
    """Episodes whose first states are the starts."""


def judge(folder: Path, members: int = 4, steps: int | None = None, horizon: int = 200) -> Path:
    """Judges a finished run of the method; returns the path of its page. Raises `InputError`."""
    for name, number in (
        ("members", members),
        ("steps", 1 if steps is None else steps),
        ("horizon", horizon),
    ):
        if number < 1:
            raise InputError(f"--{name} {number}: must be at least 1")
    run = stages.open_run(folder)
    if run.config.algo != "ipd" or not run.config.augment.enabled:
        raise InputError(
            f"{folder}: the run has no world model and sequence policy; judge one of `--algo ipd`"
        )
    updates = min(run.config.value.steps, MOST_UPDATES) if steps is None else steps
    with rundir.locked(folder), run.progress:
        values, cloning = learning.value(run), learning.cloning(run)
        world, split = modelling.world(run)
        guide = stages.guide_of(run, values)
        policy = stages.policy_of(run, guide)
        found = [of_baseline(run, "bc", cloning.state, "cloning")]
        found.append(of_baseline(run, "iql", values.state, "quasi_optimal"))
        if guide is not values:
            found.append(of_baseline(run, "iql", guide.state, "quasi_optimal_refitted"))
        found.append(of_method(run, guide, policy.state))
        inputs = tuple(each.fingerprint for each in (values, cloning, world, guide, policy))
        judge_policies(run, found, guide, world, split, Settings(members, updates, horizon), inputs)
        return page.write(folder)


def of_baseline(run: Run, name: str, state: Any, label: str) -> Judged:
    """A finished `bc` or `iql`."""
    module, stage, *_ = ALGORITHMS[name]
    config = getattr(run.config, stage)

    def act_alone(actor: Any, memory: Any, *now: jax.Array) -> tuple[jax.Array, Any]:
        found: tuple[jax.Array, Any] = module.act(config, actor, {}, memory, *now)
        return found

    return Judged(label, act_alone, state, ())  # it remembers nothing


def of_method(run: Run, guide: Trained, state: Any, label: str = "ipd") -> Judged:
    """The sequence policy, prompted by the values that it learned from."""
    context_len = run.config.policy.context_len
    blank = begin(context_len, run.spec)
    blanks = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(run.seeds), *leaf.shape)), blank)
    return Judged(label, act, judging.drivers(run, guide, state), blanks, context_len)


def judge_policies(
    run: Run,
    policies: list[Judged],
    guide: Trained,
    world: Trained,
    split: modelling.Split,
    settings: Settings,
    inputs: tuple[str, ...],
) -> str:
    """stages/judge/summary.json of `policies`; the last one is whom the verdict is about.

    V of `guide` stands behind the model's cut; `inputs` are the fingerprints that everything comes from.
    """
    told = {"settings": dataclasses.asdict(settings), "judged": policies[-1].name}
    fingerprint = run.fingerprint(STAGE, told | {"names": [policy.name for policy in policies]}, inputs)

    def work() -> dict[str, Any]:
        ground, seeds = ground_of(run, settings.starts), range(len(run.seeds))
        acted = np.stack([[policy.on_log(row, ground.rows) for policy in policies] for row in seeds])
        fitted = _fitted(run, ground, acted, settings, fingerprint)
        logged = np.stack([_logged_returns(run, ground, guide, row) for row in seeds])
        support = Support(np.concatenate([ground.steps.observations, ground.steps.actions], 1), ground.starts)
        of_data = {"fqe": estimate(fitted[:, -1].reshape(-1, fitted.shape[-1]))._asdict()}
        found: dict[str, Any] = {BEHAVIOUR: of_data | {"model": estimate(logged)._asdict()}}
        run.progress.begin(STAGE, 0, len(policies), "policies in the model")
        for index, policy in enumerate(policies):
            seen = [imagined(run, ground, policy, guide, world, split, settings, row) for row in seeds]
            found[policy.name] = (
                _returns(run, fitted[:, [index, -1]], seen, logged)
                | {"actions": _distances(ground, acted[:, index])}
                | {"outside": support.outside(np.concatenate([_pairs(each) for each in seen]))}
            )
            run.progress.advance(index + 1)
        run.progress.end()
        error = estimate((fitted[:, -1] - logged[:, None]).reshape(-1, fitted.shape[-1]))
        summary = told | {"policies": found, "calibration": error._asdict()} | _ranks(found)
        summary["verdict"] = verdict(policies[-1].name, summary)
        return dict(plain(summary))

    return run.finish(STAGE, fingerprint, work)


def ground_of(run: Run, starts: int) -> Ground:
    """The data, or `MOST_STEPS` of them, with at most so many first states."""
    episodes, generator = run.episodes, np.random.default_rng(0)
    order = generator.permutation(episodes.num_episodes)
    if episodes.num_steps > MOST_STEPS:
        within = max(1, int((np.cumsum(episodes.lengths[order]) <= MOST_STEPS).sum()))
        episodes = episodes.select(np.sort(order[:within]))
    steps = run.steps if episodes is run.episodes else to_steps(episodes, run.normaliser)
    chosen = np.sort(generator.permutation(episodes.num_episodes)[:starts])
    return Ground(steps, episodes.starts, layout(steps, episodes.starts), chosen)


def _fitted(
    run: Run, ground: Ground, acted: NDArray[np.float32], settings: Settings, fingerprint: str
) -> NDArray[np.float64]:
    """(seeds, policies + 1, members, starts): Q(s0, pi(s0)) in logged units; the data's own policy is last.

    That policy takes the logged actions; behind an episode, where none was taken, those of the first policy.
    """
    seeds, count, members = len(run.seeds), acted.shape[1] + 1, settings.members
    own = np.repeat(ground.rows.actions[None, None], seeds, 0)
    behind = np.setdiff1d(np.arange(len(ground.rows.actions)), ground.rows.logged)
    own[:, :, behind] = acted[:, :1, behind]
    acted = np.concatenate([acted, own], axis=1).reshape(seeds * count, *own.shape[2:])
    policy = np.repeat(np.arange(seeds * count), members)
    member = np.tile(np.arange(members), seeds * count)
    value = run.config.value
    # three horizons of 1 / (1 - discount) steps fit into the fit, however short it is
    polyak = min(1.0, max(0.005, 3.0 / ((1.0 - value.discount) * settings.steps)))
    config = fqe.FQEConfig(settings.steps, value.hidden, value.discount, value.batch_size, polyak=polyak)
    leaves: tuple[Any, ...] = (
        ground.steps, acted[:, ground.rows.logged + 1], fqe.bootstrap(ground.starts, members),
        fqe.limits(np.asarray(ground.steps.rewards), value.discount), policy, member,
    )  # fmt: skip
    data = jax.tree.map(jnp.asarray, fqe.Data(*leaves))
    own_seed = np.repeat(run.seeds, count * members)
    keys = jax.vmap(lambda s, m: jax.random.fold_in(jax.random.fold_in(jax.random.key(s), KEY), m))(
        jnp.asarray(own_seed), jnp.asarray(member)
    )
    fresh = jax.jit(jax.vmap(lambda key: fqe.init(config, run.spec, jax.random.fold_in(key, 0))))(keys)
    state, _ = loop.train(
        STAGE, loop.Learner(fqe.draw, fqe.update), config, fresh, data,
        fqe.DATA_AXES, keys, run.schedule(config.steps), run.store(STAGE, fingerprint),
        MetricsLog(run.stage_folder(STAGE) / "metrics.jsonl", tuple(range(len(keys)))), run.progress,
    )  # fmt: skip
    first = ground.starts[ground.chosen]
    found = fqe.estimates(
        state, jnp.asarray(policy), jnp.asarray(ground.steps.observations[first]),
        jnp.asarray(acted[:, ground.rows.logged[first]]),
    )  # fmt: skip
    return in_logged_units(run, np.asarray(found).reshape(seeds, count, members, -1))


def in_logged_units(run: Run, values: Any) -> NDArray[np.float64]:
    """Returns in the task's units."""
    return np.asarray(values, np.float64) / float(run.normaliser.reward_scale)


def _logged_returns(run: Run, ground: Ground, guide: Trained, row: int) -> NDArray[np.float64]:
    """(starts,) discounted return of each start's episode, logged units, with V behind a truncation."""
    steps, discount = ground.steps, run.config.value.discount
    last = ground.starts[ground.chosen + 1] - 1
    value = jax.jit(jax.vmap(unstack(guide.state.value, row)))
    behind = np.asarray(value(jnp.asarray(steps.next_observations[last]))) * (1.0 - steps.terminated[last])
    found = []
    for episode, tail in zip(ground.chosen, behind, strict=True):
        rewards = np.asarray(steps.rewards[ground.starts[episode] : ground.starts[episode + 1]], np.float64)
        powers = discount ** np.arange(len(rewards) + 1)
        found.append(rewards @ powers[:-1] + powers[-1] * tail)
    return in_logged_units(run, found)


def imagined(
    run: Run, ground: Ground, policy: Judged, guide: Trained, world: Trained, split: modelling.Split,
    settings: Settings, row: int,
) -> ModelReturn:  # fmt: skip
    """One seed's policy in its own model, from all starts, (members, starts); NumPy, learner's units."""
    own = run.summary("world")["seeds"][row]["kappa"]
    kappa = jnp.asarray(own if settings.kappa is None else settings.kappa, jnp.float32)
    found = ensemble_return(
        run.config.world, unstack(world.state.best, row), split.rule, policy.act, unstack(policy.actors, row),
        unstack(policy.blanks, row), unstack(guide.state.value, row),
        jnp.asarray(ground.steps.observations[ground.starts[ground.chosen]]), settings.horizon,
        run.config.value.discount, kappa, jax.random.fold_in(jax.random.key(run.seeds[row]), KEY),
    )  # fmt: skip
    return ModelReturn(*map(np.asarray, found))  # type: ignore[arg-type]


def _pairs(found: ModelReturn) -> NDArray[np.float32]:
    """(n, obs + act): the reliable pairs that were visited."""
    return np.concatenate([found.observations, found.actions], axis=-1)[np.asarray(found.valid)]


def _returns(
    run: Run, fitted: NDArray[np.float64], seen: list[ModelReturn], logged: NDArray[np.float64]
) -> dict[str, Any]:
    """Both estimates of one policy and its gain over the data, logged units.

    fitted (seeds, 2, members, starts), the data's own policy second; logged (seeds, starts).
    """
    starts = logged.shape[-1]
    total = np.stack([in_logged_units(run, each.total) for each in seen])
    found: dict[str, Any] = {}
    gains = {"fqe": fitted[:, 0] - fitted[:, 1], "model": total - logged[:, None]}
    for name, values in {"fqe": fitted[:, 0], "model": total}.items():
        found[name] = estimate(values.reshape(-1, starts))._asdict()
        found[name]["gain"] = estimate(gains[name].reshape(-1, starts))._asdict()
        found[name]["seeds"] = values.mean((1, 2)).tolist()
    found["model"]["reliable_share"] = float(np.mean([reliable_share(each) for each in seen]))
    found["model"]["length"] = float(np.mean([each.length for each in seen]))
    found["model"]["cut"] = float(np.mean([each.cut for each in seen]))
    return found


def _distances(ground: Ground, acted: NDArray[np.float32]) -> dict[str, float | None]:
    """Means over seeds of ``action_distance``; acted (seeds, N + E, act)."""
    states, actions = np.asarray(ground.steps.observations), np.asarray(ground.steps.actions)
    each = [action_distance(states, actions, one[ground.rows.logged]) for one in acted]
    told = {key: [one[key] for one in each] for key in each[0]}
    return {key: None if None in values else float(np.mean(values)) for key, values in told.items()}  # type: ignore[arg-type]


def _ranks(found: dict[str, Any]) -> dict[str, Any]:
    """How far both estimates of each policy are apart (written into `found`), and whether they rank alike."""
    both = ("fqe", "model")
    for each in found.values():
        each["apart"] = apart(*(Estimate(*(each[how][key] for key in Estimate._fields)) for how in both))
    means = [[each[how]["mean"] for each in found.values()] for how in both]
    return {"rank_correlation": rank_correlation(*means)}
