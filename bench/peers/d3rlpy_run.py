"""Train d3rlpy's IQL or CQL with the settings of one of our presets, and try it as ours is tried.

    PYTHONPATH=src .venv-peers/bin/python bench/peers/d3rlpy_run.py iql --out results/peers/d3rlpy-iql

Runs in an environment of its own (README.md beside this file): d3rlpy stands on PyTorch, `ipd` does
not. What `ipd` can do without JAX is used here as it is, so that it is the same by construction:
reading the data, the normaliser and the reward scale, the settings of the preset, the roll-outs with
their reset seeds, scores and the file of episodes. Networks, losses, optimisers and the drawing of
batches are d3rlpy's.

Writes ``evaluations.csv`` and ``manifest.json`` into the folder. A seed that is there already is left
out, so a run that was broken off is called again, and seeds can be run one at a time.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.algos import CQLConfig, IQLConfig
from d3rlpy.constants import ActionSpace
from d3rlpy.dataset import MDPDataset
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.models import VectorEncoderFactory
from d3rlpy.optimizers import AdamFactory, CosineAnnealingLRFactory

from ipd.baseline_config import CQLConfig as OurCQL
from ipd.config import ValueConfig
from ipd.data.episodes import Episodes, Normaliser, fit_normaliser, locomotion_reward_scale
from ipd.data.sources import load
from ipd.evaluation import rollouts, scores
from ipd.evaluation.tasks import Task
from ipd.evaluation.tasks import task as find_task
from ipd.presets import with_task

FIRST_EPISODE_SEED = 10_000
"""As in `ipd.runs.judging`, which needs JAX."""
UPDATES_A_LINE = 1_000
PACKAGES = ("d3rlpy", "torch", "numpy", "h5py", "gymnasium", "mujoco")


def iql(ours: ValueConfig, updates: int) -> IQLConfig:
    """d3rlpy's settings for what the preset says of the value stage.

    The policy's learning rate falls along a cosine to 0 at the last update, in d3rlpy's own script too.
    """
    falling = AdamFactory(lr_scheduler_factory=CosineAnnealingLRFactory(T_max=updates))
    encoder = VectorEncoderFactory(list(ours.hidden))
    return IQLConfig(
        batch_size=ours.batch_size,
        gamma=ours.discount,
        actor_learning_rate=ours.learning_rate,
        critic_learning_rate=ours.learning_rate,
        actor_optim_factory=falling,
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        value_encoder_factory=encoder,
        tau=ours.polyak,
        n_critics=ours.num_critics,
        expectile=ours.expectile,
        weight_temp=ours.inverse_temperature,
        max_weight=ours.max_advantage_weight,
    )


def cql(ours: OurCQL, updates: int) -> CQLConfig:
    """d3rlpy's settings for what the preset says of CQL: a fixed weight, which belongs to logged rewards."""
    encoder = VectorEncoderFactory(list(ours.hidden))
    return CQLConfig(
        batch_size=ours.batch_size,
        gamma=ours.discount,
        actor_learning_rate=ours.actor_learning_rate,
        critic_learning_rate=ours.critic_learning_rate,
        temp_learning_rate=ours.actor_learning_rate,
        alpha_learning_rate=0.0,
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        tau=ours.polyak,
        conservative_weight=ours.conservative_weight,
        n_action_samples=ours.num_actions,
    )


ALGORITHMS: dict[str, tuple[str, Callable[[Any, int], Any]]] = {
    "iql": ("value", iql),
    "cql": ("cql", cql),
}
"""Name -> section of our configuration, and its translation."""


def dataset(episodes: Episodes, normaliser: Normaliser) -> MDPDataset:
    """The logged steps in learner's units, every one of them.

    d3rlpy takes a step's next observation from the row below and leaves out the last row of a
    truncated episode. So each of these gets one more row, which is never drawn: the observation after
    its last step.
    """
    cut = np.flatnonzero(episodes.truncated)
    below = cut + 1
    last = normaliser.observations(episodes.next_observations[cut])
    flag = np.zeros(episodes.num_steps, np.float32)
    found = MDPDataset(
        observations=np.insert(normaliser.observations(episodes.observations), below, last, axis=0),
        actions=np.insert(normaliser.actions(episodes.actions), below, 0, axis=0),
        rewards=np.insert(normaliser.rewards(episodes.rewards), below, 0),
        terminals=np.insert(episodes.terminated.astype(np.float32), below, 0),
        timeouts=np.insert(flag, below, 1),
        action_space=ActionSpace.CONTINUOUS,
        action_size=episodes.action_size,
    )
    if found.transition_count != episodes.num_steps:
        raise SystemExit(f"d3rlpy holds {found.transition_count} steps of {episodes.num_steps}")
    return found


class Controller:
    """The deterministic action of a d3rlpy policy, in the task's units."""

    def __init__(self, learner: Any, normaliser: Normaliser) -> None:
        self._learner, self._normaliser = learner, normaliser

    def reset(self, rows: int) -> None:
        """Nothing to forget."""

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """(rows, obs) -> (rows, act)."""
        scaled = self._learner.predict(self._normaliser.observations(observations))
        return self._normaliser.raw_actions(scaled)


def train(config: Any, data: MDPDataset, updates: int, seed: int) -> Any:
    """A fresh learner after so many updates; d3rlpy logs losses and times on the way."""
    d3rlpy.seed(seed)
    learner = config.create(device="cpu:0")
    each = min(updates, UPDATES_A_LINE)
    if updates % each:
        raise SystemExit(f"{updates} updates: must be a multiple of {each}")
    learner.fit(
        data,
        n_steps=updates,
        n_steps_per_epoch=each,
        experiment_name=f"seed {seed}",
        with_timestamp=False,
        save_interval=updates,
        logger_adapter=NoopAdapterFactory(),
        show_progress=False,
    )
    return learner


def evaluate(
    learner: Any, normaliser: Normaliser, task: Task, name: str, seed: int, step: int, episodes: int
) -> list[scores.Row]:
    """Every episode of a finished learner."""
    found = rollouts.rollout(task, Controller(learner, normaliser), episodes, FIRST_EPISODE_SEED)
    pairs = zip(found.returns[0].tolist(), found.lengths[0].tolist(), strict=True)
    return [
        scores.Row(name, seed, step, episode, total, length, scores.normalized_score(task, total))
        for episode, (total, length) in enumerate(pairs)
    ]


def keep_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Writes what runs, or refuses where the folder belongs to something else."""
    text = json.dumps(manifest, indent=1) + "\n"
    if path.exists() and path.read_text() != text:
        raise SystemExit(f"{path} tells of other settings, data or versions: choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("algo", choices=ALGORITHMS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="bundled:hopper-medium-replay", help="as `ipd train --data`")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, help="instead of the preset's")
    parser.add_argument("--episodes", type=int, help="instead of the preset's")
    chosen = parser.parse_args(arguments)

    torch.set_num_threads(1)
    episodes = load(chosen.data)
    task = find_task(episodes.task or parser.error("the data do not name their task"))
    # CQL's logsumexp and its weight are stated in logged rewards; ours computes them there
    scaled = task.locomotion and chosen.algo == "iql"
    scale = locomotion_reward_scale(episodes) if scaled else 1.0
    normaliser = fit_normaliser(episodes, task.action_low, task.action_high, scale)
    section, translate = ALGORITHMS[chosen.algo]
    ours = with_task(chosen.preset, task.id, chosen.data, chosen.algo)
    settings, tries = getattr(ours, section), chosen.episodes or ours.evaluate.final_episodes
    updates = chosen.updates or settings.steps
    config, name = translate(settings, updates), f"d3rlpy_{chosen.algo}"
    keep_manifest(
        chosen.out / "manifest.json",
        {
            "versions": {"python": platform.python_version()} | {each: version(each) for each in PACKAGES},
            "data": {
                "source": chosen.data,
                "digest": episodes.digest,
                "episodes": episodes.num_episodes,
                "steps": episodes.num_steps,
            },
            "task": task.id,
            "preset": chosen.preset,
            "updates": updates,
            "episodes_a_seed": tries,
            "reward_scale": scale,
            "settings": config.serialize_to_dict(),
        },
    )
    table = chosen.out / "evaluations.csv"
    done = {row[:3] for row in scores.read_rows(table)} if table.exists() else set()
    data = dataset(episodes, normaliser)
    for seed in chosen.seeds:
        if (name, seed, updates) in done:
            print(f"seed {seed} is there already")
            continue
        learner = train(config, data, updates, seed)
        rows = evaluate(learner, normaliser, task, name, seed, updates, tries)
        scores.add_rows(table, rows)
        print(f"seed {seed}: mean return {np.mean([row.return_ for row in rows]):.0f}", flush=True)


if __name__ == "__main__":
    main()
