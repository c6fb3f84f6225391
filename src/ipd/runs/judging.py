"""The stages that judge: evaluation in the real task, and the audit of imagination against it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.evaluation import rollouts, scores, truth
from ipd.evaluation.tasks import Task
from ipd.policy.act import Controller, Driver, MeanController
from ipd.runs import imagination, learning
from ipd.runs.context import Run, plain
from ipd.runs.errors import RunFailed
from ipd.runs.learning import Trained
from ipd.types import Segment

FIRST_EPISODE_SEED = 10_000
AUDITED = 400
"""States of each kind that the audit replays."""


def evaluate(
    run: Run, task: Task, values: Trained, guide: Trained, cloning: Trained, policy: Trained
) -> str:
    """evaluations.csv: the finished policies, and the snapshots of IPD on the way.

    `guide` are the values that the policy learned from: `values`, or those refitted.
    """
    config = run.config.evaluate
    inputs = (values.fingerprint, guide.fingerprint, cloning.fingerprint, policy.fingerprint)
    fingerprint = run.fingerprint("evaluate", config, inputs)
    path = run.folder / "evaluations.csv"

    def work() -> dict[str, Any]:
        path.unlink(missing_ok=True)
        steps = [
            step for step in learning.snapshots(run.config.policy) if step < policy.step and config.episodes
        ]
        finals = 3 + (guide is not values) + (config.rerank > 0)
        total = len(steps) * config.episodes + finals * config.final_episodes
        run.progress.begin("evaluate", 0, total * len(run.seeds), "episodes")
        done = 0

        def judge(name: str, step: int, controller: Any, episodes: int) -> None:
            nonlocal done
            try:
                found = rollouts.rollout(task, controller, episodes, FIRST_EPISODE_SEED, len(run.seeds))
            except FloatingPointError as error:
                raise RunFailed(f"stage evaluate, policy {name} of step {step}: {error}") from error
            scores.add_rows(path, _rows(task, name, run.seeds, step, found))
            done += episodes * len(run.seeds)
            run.progress.advance(done)

        judge(
            "cloning",
            cloning.step,
            MeanController(cloning.state.policy, run.normaliser),
            config.final_episodes,
        )
        mean = MeanController(values.state.policy, run.normaliser)
        judge("quasi_optimal", values.step, mean, config.final_episodes)
        if guide is not values:
            mean = MeanController(guide.state.policy, run.normaliser)
            judge("quasi_optimal_refitted", guide.step, mean, config.final_episodes)
        for step in steps:
            state = learning.snapshot(run, policy, "policy", step)
            judge("ipd", step, controller(run, guide, state), config.episodes)
        judge("ipd", policy.step, controller(run, guide, policy.state), config.final_episodes)
        if config.rerank:
            reranked = controller(run, guide, policy.state, rerank=config.rerank)
            judge("ipd_reranked", policy.step, reranked, config.final_episodes)
        run.progress.end()
        return {}

    return run.finish("evaluate", fingerprint, work)


def controller(
    run: Run, values: Trained, state: Any, seeds: slice = slice(None), rerank: int = 0
) -> Controller:
    """The sequence policy of some seeds (rows of `run.seeds`), ready to act."""
    scale = jnp.asarray(run.summary("policy")["prompt_scale"], jnp.float32)
    driver = Driver(state.acting, values.state.value, values.state.target_critics, scale)
    chosen = jax.tree.map(lambda leaf: leaf[seeds], driver)
    return Controller(chosen, run.normaliser, run.config.policy.context_len, rerank=rerank)


def _rows(
    task: Task, name: str, seeds: tuple[int, ...], step: int, found: rollouts.Results
) -> list[scores.Row]:
    return [
        scores.Row(name, seed, step, episode, total, int(length), scores.normalized_score(task, total))
        for seed, totals, lengths in zip(seeds, found.returns.tolist(), found.lengths, strict=True)
        for episode, (total, length) in enumerate(zip(totals, lengths, strict=True))
    ]


def audit(run: Run, task: Task, values: Trained, world: Trained, split: learning.Split, augment: str) -> str:
    """Imagined against true return, for chosen and random states, greedy and MPC."""
    fingerprint = run.fingerprint(
        "audit", run.config.augment, (values.fingerprint, world.fingerprint, augment)
    )

    def work() -> dict[str, Any]:
        steps = jax.tree.map(jnp.asarray, run.steps)
        keys = run.keys("audit")
        run.progress.begin("audit", 0, 4 * len(run.seeds), "comparisons")
        seeds = []
        for row, seed in enumerate(run.seeds):
            dreamer = imagination.dreamer_of(run, values, world, row)
            states = {"chosen": _chosen(run, seed), "random": _random(run, seed)}
            rows = []
            for number, (kind, start) in enumerate((k, s) for k, s in states.items() if len(s)):
                for planner, config in _planners(run).items():
                    free = dreamer._replace(kappa=jnp.asarray(jnp.inf))
                    key = jax.random.fold_in(keys[row], number)
                    segment = imagination.segments_from(
                        run, config, split.rule, free, steps, start, key, told=False
                    )
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
                    run.progress.advance(4 * row + len(rows))
            error = truth.replay_error(task, recorded(run, states["random"]))
            seeds.append({"replay_error": error, "rows": rows})
        run.progress.end()
        return {"seeds": plain(seeds)}

    return run.finish("audit", fingerprint, work)


def _planners(run: Run) -> dict[str, Any]:
    config = dataclasses.replace(run.config.augment, batch_size=AUDITED)
    several = config if config.num_plans > 1 else dataclasses.replace(config, num_plans=3, plan_noise=1.0)
    return {"greedy": dataclasses.replace(config, num_plans=1, plan_noise=0.0), "mpc": several}


def _chosen(run: Run, seed: int) -> NDArray[np.int64]:
    """Rows of the segments with the largest gap between imagined and real return, ascending."""
    rows, gap = imagination.read_gaps(run, seed)
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
