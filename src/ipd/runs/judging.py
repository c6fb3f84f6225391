"""The stages that judge: evaluation in the real task, and the audit of imagination against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.evaluation import rollouts, scores, truth
from ipd.evaluation.tasks import Task
from ipd.policy.act import Controller, Driver, act, begin
from ipd.runs import augmented, files, imagination
from ipd.runs.algorithms import ALGORITHMS
from ipd.runs.context import Run, plain
from ipd.runs.errors import RunFailed
from ipd.runs.modelling import Split
from ipd.runs.trained import Kept, Trained, snapshot
from ipd.runs.trials import Contender, Early
from ipd.types import Segment

AUDITED = 400
"""States of each kind that the audit replays."""


def evaluate(run: Run, task: Task, contenders: list[Contender], inputs: tuple[str, ...], early: Early) -> str:
    """evaluations.csv: every episode of every contender; `inputs` are the fingerprints they come from."""
    fingerprint = run.fingerprint("evaluate", run.config.evaluate, inputs)
    path = run.folder / "evaluations.csv"

    def work() -> dict[str, Any]:
        run.store("evaluate", fingerprint).forget()  # of a try cut short, else its seed's rows were left out
        wrong, went_wrong, rows = set(run.stopped("evaluate")), dict[int, str](), list[scores.Row]()
        total, done = sum(contender.episodes for contender in contenders), 0
        run.progress.begin("evaluate", 0, total * len(run.seeds), "episodes")
        for contender in contenders:
            name, step, episodes, _ = contender
            try:
                found, failed = early.results(contender, task)
            except FloatingPointError as error:
                raise RunFailed(f"stage evaluate, policy {name} of step {step}: {error}") from error
            for seed, bad in zip(run.seeds, failed, strict=True):
                if bad and seed not in wrong:
                    went_wrong.setdefault(seed, f"what {name} does after {step} updates is not finite")
            rows += _rows(task, name, run.seeds, step, found)
            done += episodes * len(run.seeds)
            run.progress.advance(done)
        run.progress.end()
        files.require_held(path)
        path.unlink(missing_ok=True)
        run.stop("evaluate", fingerprint, went_wrong)
        wrong |= set(went_wrong)
        scores.add_rows(path, [row for row in rows if row.seed not in wrong])
        return {"versions": task.versions}  # the manifest's are those of the day on which the run began

    return run.finish("evaluate", fingerprint, work)


def of_baseline(run: Run, name: str, trained: Trained, label: str | None = None) -> list[Contender]:
    """A finished baseline; under its own name (no `label`) with its snapshots on the way."""
    stage, config = ALGORITHMS[name].stage, run.config.evaluate
    make = partial(acting, run, name)
    final = Contender(label or name, trained.step, config.final_episodes, lambda: make(trained.state))
    if label:
        return [final]
    return [*_on_the_way(run, name, stage, trained, make), final]


def of_method(run: Run, guide: Trained, policy: Trained) -> list[Contender]:
    """IPD with its snapshots, and as the config asks re-ranked or with fixed target returns."""
    config = run.config.evaluate
    found = _on_the_way(run, "ipd", "policy", policy, partial(controller, run, guide))

    def final(name: str, **how: Any) -> Contender:
        act = partial(controller, run, guide, policy.state, **how)
        return Contender(name, policy.step, config.final_episodes, act)

    found.append(final("ipd"))
    if config.rerank:
        found.append(final("ipd_reranked", rerank=config.rerank))
    return found + [final(f"ipd@{share:g}", prompt=share) for share in config.prompts]


def _on_the_way(
    run: Run, name: str, stage: str, trained: Trained, act: Callable[[Any], Controller]
) -> list[Contender]:
    steps = [step for step in run.snapshots(trained.step) if step < trained.step]
    found: list[Contender] = []
    for step in steps:
        tell = _teller(run, name, act, trained.step, found.extend)
        tell(step, partial(snapshot, run, trained, stage, step))
    return found


def _teller(
    run: Run, name: str, act: Callable[[Any], Controller], last: int, take: Callable[[list[Contender]], None]
) -> Kept:
    """Passes on every snapshot but the last as a contender."""
    episodes = run.config.evaluate.episodes

    def tell(step: int, load: Callable[[], Any]) -> None:
        if step < last and episodes:
            take([Contender(name, step, episodes, lambda: act(load()))])

    return tell


def snapshots_of_baseline(run: Run, name: str, early: Early) -> Kept:
    """Begins with each snapshot of a baseline in training as soon as it is kept."""
    steps = getattr(run.config, ALGORITHMS[name].stage).steps
    return _teller(run, name, partial(acting, run, name), steps, early.begin)


def snapshots_of_method(run: Run, guide: Trained, early: Early) -> Kept:
    """The same of IPD."""
    act = partial(controller, run, guide)
    return _teller(run, "ipd", act, run.config.policy.steps, early.begin)


def actors(
    run: Run, name: str, state: Any, seeds: slice = slice(None)
) -> tuple[Callable[..., tuple[jax.Array, Any]], Any, Any]:
    """Act, actors and first memories of a baseline as `Controller` takes them, of some seeds."""
    module, stage, *_ = ALGORITHMS[name]
    config, told = getattr(run.config, stage), run.summary(stage)["constants"]
    constants = {key: jnp.asarray(each, jnp.float32) for key, each in told.items()}
    state, constants, rows = jax.tree.map(
        lambda leaf: leaf[seeds], (state, constants, jnp.arange(len(run.seeds)))
    )
    blank = jax.vmap(lambda _, each: module.begin(config, run.spec, each))(rows, constants)

    def act(actor: Any, memory: Any, *now: jax.Array) -> tuple[jax.Array, Any]:
        found: tuple[jax.Array, Any] = module.act(config, *actor, memory, *now)
        return found

    return act, (state, constants), blank


def acting(run: Run, name: str, state: Any, seeds: slice = slice(None)) -> Controller:
    """A baseline of some seeds (rows of `run.seeds`), ready to act."""
    reads = "reward" in ALGORITHMS[name].reads
    return Controller(*actors(run, name, state, seeds), len(run.seeds[seeds]), run.normaliser, reads)


def drivers(run: Run, values: Trained, state: Any) -> Driver:
    """Who acts for the sequence policy, seeds on axis 0: its weights, and the values that prompt it."""
    scale = jnp.asarray(run.summary("policy")["prompt_scale"], jnp.float32)
    return Driver(state.acting, values.state.value, values.state.target_critics, scale)


def controller(
    run: Run,
    values: Trained,
    state: Any,
    seeds: slice = slice(None),
    rerank: int = 0,
    prompt: float | None = None,
) -> Controller:
    """The sequence policy of some seeds (rows of `run.seeds`), ready to act.

    `prompt` asks for that share of the best logged (discounted) return in place of V.
    """
    actors = jax.tree.map(lambda leaf: leaf[seeds], drivers(run, values, state))
    count = len(actors.prompt_scale)
    target = 0.0 if prompt is None else prompt * run.summary("policy")["best_return"]
    blank = begin(run.config.policy.context_len, run.spec, target)
    stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), blank)
    how = partial(act, rerank=rerank, discount=None if prompt is None else run.config.value.discount)
    return Controller(how, actors, stacked, count, run.normaliser, needs_reward=prompt is not None)


def _rows(
    task: Task, name: str, seeds: tuple[int, ...], step: int, found: rollouts.Results
) -> list[scores.Row]:
    return [
        scores.Row(name, seed, step, episode, total, int(length), scores.normalized_score(task, total))
        for seed, totals, lengths in zip(seeds, found.returns.tolist(), found.lengths, strict=True)
        for episode, (total, length) in enumerate(zip(totals, lengths, strict=True))
    ]


def audit(run: Run, task: Task, values: Trained, world: Trained, split: Split, augment: str) -> str:
    """Imagined against true return, for chosen and random states, greedy and MPC."""
    fingerprint = run.fingerprint(
        "audit", run.config.augment, (values.fingerprint, world.fingerprint, augment)
    )

    def work() -> dict[str, Any]:
        steps, keys, stopped = run.steps, run.keys("audit"), run.stopped("audit")
        run.progress.begin("audit", 0, 4 * (len(run.seeds) - len(stopped)), "comparisons")
        seeds: list[Any] = []
        for row, seed in enumerate(run.seeds):
            dreamer = imagination.dreamer_of(run, values, world, row)
            states = {"chosen": _chosen(run, seed), "random": _random(run, seed)}
            rows: list[Any] = []
            for number, (kind, start) in enumerate(
                (k, s) for k, s in states.items() if len(s) and seed not in stopped
            ):
                for planner, config in _planners(run).items():
                    free = dreamer._replace(kappa=jnp.asarray(jnp.inf))
                    key = jax.random.fold_in(keys[row], number)
                    segment = imagination.segments_from(run, config, split.rule, free, steps, start, key)
                    told = truth.compare(
                        task,
                        recorded(run, start),
                        logged_units(run, segment),
                        _values_of(run, dreamer),
                        discount=run.config.value.discount,
                        reward_scale=float(run.normaliser.reward_scale),
                        observation_std=run.normaliser.observation_std,
                        uncertainty_max=float(dreamer.kappa),
                    )
                    rows.append({"states": kind, "planner": planner} | told)
                    run.progress.advance(sum(len(each["rows"]) for each in seeds) + len(rows))
            error = truth.replay_error(task, recorded(run, states["random"]))
            seeds.append({"replay_error": error, "rows": rows})
        run.progress.end()
        return {"seeds": plain(seeds), "versions": task.versions}

    return run.finish("audit", fingerprint, work)


def _planners(run: Run) -> dict[str, Any]:
    config = dataclasses.replace(run.config.augment, batch_size=AUDITED)
    several = config if config.num_plans > 1 else dataclasses.replace(config, num_plans=3, plan_noise=1.0)
    return {"greedy": dataclasses.replace(config, num_plans=1, plan_noise=0.0), "mpc": several}


def _chosen(run: Run, seed: int) -> NDArray[np.int64]:
    """Rows of the segments with the largest gap between imagined and real return, ascending."""
    rows, gap = augmented.read_gaps(run, seed)
    return np.sort(rows[np.argsort(-gap, kind="stable")[:AUDITED]])


def _random(run: Run, seed: int) -> NDArray[np.int64]:
    rows = imagination.candidate_rows(run)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:AUDITED])


def recorded(run: Run, rows: NDArray[np.int64]) -> truth.Recorded:
    """The logged steps from each row on, as far as imagination reaches."""
    ahead = rows[:, None] + np.arange(run.config.augment.imagine_steps)
    episodes = run.episodes
    return truth.Recorded(
        episodes.observations[ahead],
        episodes.actions[ahead],
        episodes.rewards[ahead],
        episodes.next_observations[ahead],
        episodes.terminated[ahead],
    )


def logged_units(run: Run, segment: Segment) -> Segment:
    """A segment in the task's units."""
    std, mean = run.normaliser.observation_std, run.normaliser.observation_mean
    return segment._replace(
        observations=segment.observations * std + mean,
        actions=run.normaliser.raw_actions(segment.actions),  # type: ignore[arg-type]
        rewards=segment.rewards / run.normaliser.reward_scale,
        next_observations=segment.next_observations * std + mean,
    )


def _values_of(run: Run, dreamer: imagination.Dreamer) -> Any:
    value = jax.jit(lambda net, rows: jax.vmap(net)(rows))
    return lambda rows: np.asarray(
        value(dreamer.values.value, jnp.asarray(run.normaliser.observations(rows)))
    )
