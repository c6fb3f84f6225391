"""The judge stage: what a finished run's policies are worth, without a simulator (docs/judging.md)."""

from __future__ import annotations

import dataclasses
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
from ipd.evaluation.logged_actions import Layout, layout
from ipd.evaluation.model_return import ModelReturn, ensemble_return, reliable_share
from ipd.report import page
from ipd.runs import loop, opened, rundir
from ipd.runs.algorithms import ALGORITHMS, code_of
from ipd.runs.context import Run, plain, unstack
from ipd.runs.errors import InputError, RunFailed
from ipd.runs.judged import Judged, Model, contenders, model_of, with_values
from ipd.runs.metrics import MetricsLog
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
    seed: int = 0
    """Of fitted Q: the draw of episodes, first weights and batches."""


class Ground(NamedTuple):
    """What policies are judged on."""

    steps: Steps
    starts: NDArray[np.int64]
    rows: Layout
    chosen: NDArray[np.int64]
    """Episodes whose first states are the starts."""


def judge(
    folder: Path, members: int = 4, steps: int | None = None, horizon: int = 200, model: Path | None = None
) -> Path:
    """Judges a finished run; returns the path of its page. Raises `InputError`.

    `model` is another run, of the same data, whose world model and values give the second opinion where
    the run has none.
    """
    for name, number in (
        ("members", members),
        ("steps", 1 if steps is None else steps),
        ("horizon", horizon),
    ):
        if number < 1:
            raise InputError(f"--{name} {number}: must be at least 1")
    run = with_values(opened.open_run(folder))
    if run.failed:
        told = "; ".join(f"seed {seed}, {text}" for seed, text in run.failed.items())
        raise InputError(f"{folder}: a seed was stopped ({told}); judge a run without that seed")
    updates = min(run.config.value.steps, MOST_UPDATES) if steps is None else steps
    with rundir.locked(folder), run.progress:
        found, trained, imagines = contenders(run)
        if model is not None:
            imagines = model_of(run, model)
        inputs = [each.fingerprint for each in trained]
        if imagines is not None:
            inputs += [imagines.values.fingerprint, imagines.world.fingerprint]
        judge_policies(run, found, imagines, Settings(members, updates, horizon), tuple(inputs))
        return page.write(folder)


def judge_policies(
    run: Run, policies: list[Judged], model: Model | None, settings: Settings, inputs: tuple[str, ...]
) -> str:
    """stages/judge/summary.json of `policies`; the last one is whom the verdict is about.

    `inputs` are the fingerprints that everything comes from.
    """
    told = {"settings": dataclasses.asdict(settings), "judged": policies[-1].name}
    names = [policy.name for policy in policies]
    code = code_of(ALGORITHMS[run.config.algo]) if run.config.algo in ALGORITHMS else ()
    fitting = {"names": names, "value": dataclasses.asdict(run.config.value)}
    fingerprint = run.fingerprint(STAGE, told | fitting, inputs, code)

    def work() -> dict[str, Any]:
        ground, seeds = ground_of(run, settings.starts), range(len(run.seeds))
        acted = np.stack([[policy.on_log(row, ground.rows) for policy in policies] for row in seeds])
        fitted, behind = _fitted(run, ground, acted, settings, fingerprint)
        logged, share = _logged_returns(run, ground, behind)
        of_data = {"fqe": estimate(_flat(fitted[:, -1]))._asdict(), "logged": estimate(logged)._asdict()}
        found: dict[str, Any] = {BEHAVIOUR: of_data | {"behind_share": share}}
        for index, policy in enumerate(policies):
            found[policy.name] = {
                "fqe": _with_gain(fitted[:, index], fitted[:, -1]),
                "actions": _distances(ground, acted[:, index]),
            }
        if model is not None:
            _imagine_all(run, ground, policies, model, settings, logged, found)
        error = estimate(_flat(fitted[:, -1] - logged[:, None]))
        rewards = in_logged_units(run, ground.steps.rewards)
        data = {"episodes": len(ground.starts) - 1, "terminates": bool(np.any(ground.steps.terminated)),
                "same_reward": None if np.ptp(rewards) else float(rewards[0])}  # fmt: skip
        summary = told | {"policies": found, "calibration": error._asdict(), "data": data} | _ranks(found)
        summary["verdict"] = verdict(policies[-1].name, summary)
        return dict(plain(summary))

    return run.finish(STAGE, fingerprint, work)


def _imagine_all(
    run: Run, ground: Ground, policies: list[Judged], model: Model, settings: Settings,
    logged: NDArray[np.float64], found: dict[str, Any],
) -> None:  # fmt: skip
    """Writes each policy's return in the model into `found`, and where it led; logged (seeds, starts)."""
    support = Support(np.concatenate([ground.steps.observations, ground.steps.actions], 1), ground.starts)
    run.progress.begin(STAGE, 0, len(policies), "policies in the model")
    for index, policy in enumerate(policies):
        seen = [imagined(run, ground, policy, model, settings, row) for row in range(len(run.seeds))]
        total = np.stack([in_logged_units(run, each.total) for each in seen])
        found[policy.name]["model"] = _with_gain(total, logged[:, None]) | {
            "reliable_share": float(np.mean([reliable_share(each) for each in seen])),
            "length": float(np.mean([each.length for each in seen])),
            "cut": float(np.mean([each.cut for each in seen])),
        }
        found[policy.name]["outside"] = support.outside(np.concatenate([_pairs(each) for each in seen]))
        run.progress.advance(index + 1)
    run.progress.end()


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
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(seeds, policies + 1, members, starts): Q(s0, pi(s0)) in logged units; the data's own policy is last.

    That policy takes the logged actions; behind an episode, where none was taken, those of the first policy.
    The second result, (seeds, starts), is its Q there, where the starts' episodes led to.
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
        ground.steps, acted[:, ground.rows.logged + 1], fqe.bootstrap(ground.starts, members, settings.seed),
        fqe.limits(np.asarray(ground.steps.rewards), value.discount), policy, member,
    )  # fmt: skip
    data = jax.tree.map(jnp.asarray, fqe.Data(*leaves))
    own_seed = np.repeat(run.seeds, count * members)
    keys = jax.vmap(
        lambda s, m: jax.random.fold_in(jax.random.fold_in(jax.random.key(s), KEY + settings.seed), m)
    )(jnp.asarray(own_seed), jnp.asarray(member))
    fresh = jax.jit(jax.vmap(lambda key: fqe.init(config, run.spec, jax.random.fold_in(key, 0))))(keys)
    state, _ = _trained(
        STAGE, loop.Learner(fqe.draw, fqe.update), config, fresh, data,
        fqe.DATA_AXES, keys, run.schedule(config.steps), run.store(STAGE, fingerprint),
        MetricsLog(run.stage_folder(STAGE) / "metrics.jsonl", tuple(range(len(keys)))), run.progress,
    )  # fmt: skip

    def said(states: Any, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        actions = jnp.asarray(acted[:, rows])
        each = fqe.estimates(state, jnp.asarray(policy), jnp.asarray(states), actions)
        return in_logged_units(run, each).reshape(seeds, count, members, -1)

    first, last = ground.starts[ground.chosen], ground.starts[ground.chosen + 1] - 1
    after = said(ground.steps.next_observations[last], ground.rows.logged[last] + 1)
    return said(ground.steps.observations[first], ground.rows.logged[first]), after[:, -1].mean(1)


def _trained(*arguments: Any) -> tuple[Any, int]:
    """As `loop.train`; one network that fails spoils the comparison, so all of it."""
    try:
        return loop.train(*arguments)
    except loop.SeedsFailed as error:
        raise RunFailed(f"stage {STAGE}: {next(iter(error.what.values()))}; nothing was judged") from error


def in_logged_units(run: Run, values: Any) -> NDArray[np.float64]:
    """Returns in the task's units."""
    return np.asarray(values, np.float64) / float(run.normaliser.reward_scale)


def _logged_returns(
    run: Run, ground: Ground, behind: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """(seeds, starts) discounted return of each start's episode, logged units, `behind` a truncation.

    Also the share of it that lies behind truncations, in [0, 1]: nobody logged that.
    """
    steps, discount = ground.steps, run.config.value.discount
    rewards = in_logged_units(run, steps.rewards)
    seen, powers = [], []
    for episode in ground.chosen:
        own = rewards[ground.starts[episode] : ground.starts[episode + 1]]
        seen.append(own @ discount ** np.arange(len(own)))
        powers.append(discount ** len(own))
    ended = np.asarray(steps.terminated)[ground.starts[ground.chosen + 1] - 1] > 0
    tail = np.where(ended, 0.0, np.array(powers) * behind)
    sizes = np.abs(seen).mean(), np.abs(tail).mean()
    return np.array(seen) + tail, float(sizes[1] / sum(sizes)) if sum(sizes) else 0.0


def imagined(
    run: Run, ground: Ground, policy: Judged, model: Model, settings: Settings, row: int
) -> ModelReturn:
    """One seed's policy in its own model, from all starts, (members, starts); NumPy, learner's units.

    A model of another run may have other seeds; they are taken in turn.
    """
    of_model = row % len(model.run.seeds)
    own = model.run.summary("world")["seeds"][of_model]["kappa"]
    kappa = jnp.asarray(own if settings.kappa is None else settings.kappa, jnp.float32)
    found = ensemble_return(
        model.run.config.world, unstack(model.world.state.best, of_model), model.split.rule,
        policy.act, unstack(policy.actors, row), unstack(policy.blanks, row),
        unstack(model.values.state.value, of_model),
        jnp.asarray(ground.steps.observations[ground.starts[ground.chosen]]), settings.horizon,
        run.config.value.discount, kappa, jax.random.fold_in(jax.random.key(run.seeds[row]), KEY),
    )  # fmt: skip
    return ModelReturn(*map(np.asarray, found))  # type: ignore[arg-type]


def _pairs(found: ModelReturn) -> NDArray[np.float32]:
    """(n, obs + act): the reliable pairs that were visited."""
    return np.concatenate([found.observations, found.actions], axis=-1)[np.asarray(found.valid)]


def _flat(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(seeds, members, starts) -> (seeds * members, starts)."""
    return values.reshape(-1, values.shape[-1])


def _with_gain(values: NDArray[np.float64], data: NDArray[np.float64]) -> dict[str, Any]:
    """The estimate of a policy's returns (seeds, members, starts) and that of its gain over the data's."""
    gain, seeds = estimate(_flat(values - data))._asdict(), values.mean((1, 2)).tolist()
    return estimate(_flat(values))._asdict() | {"gain": gain, "seeds": seeds}


def _distances(ground: Ground, acted: NDArray[np.float32]) -> dict[str, float | None]:
    """Means over seeds of ``action_distance``; acted (seeds, N + E, act)."""
    states, actions = np.asarray(ground.steps.observations), np.asarray(ground.steps.actions)
    each = [action_distance(states, actions, one[ground.rows.logged]) for one in acted]
    told = {key: [one[key] for one in each] for key in each[0]}
    return {key: None if None in values else float(np.mean(values)) for key, values in told.items()}  # type: ignore[arg-type]


def _ranks(found: dict[str, Any]) -> dict[str, Any]:
    """How far both estimates of each policy are apart (written into `found`), and whether they rank alike."""
    pairs = [(each["fqe"], each.get("model", each.get("logged"))) for each in found.values()]
    for each, pair in zip(found.values(), pairs, strict=True):
        both = [Estimate(*(how[key] for key in Estimate._fields)) for how in pair if how]
        each["apart"] = apart(*both) if len(both) == 2 else None
    if not all(other for _, other in pairs):
        return {"rank_correlation": None}
    first, second = ([how["mean"] for how in side] for side in zip(*pairs, strict=True))
    return {"rank_correlation": rank_correlation(first, second)}
