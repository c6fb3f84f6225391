"""An exported policy in its task, driven by its runner alone, beside the episodes of `ipd evaluate`.

    python bench/exported.py RUN --name NAME

RUN is a run of a task of Gymnasium's own. Each format plays every episode of evaluations.csv again, and so
does `ipd.load`, which differs from `ipd evaluate` only in computing one episode at a time and not all side by
side. Writes bench/results/exported-NAME.csv, a row for each episode:

    return_difference    of the return, from evaluations.csv
    same_steps           steps before an action differs from `ipd.load`'s by more than 0.001 of half the range
    action_difference    largest, from `ipd.load`'s on the observations that it saw, in halves of the range
    steps_outside        steps whose observation was outside the range of the data
    furthest_outside     by how much at most, in widths of that range
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

import ipd
from ipd.export.runner import Runner
from ipd.export.write import NEEDS as FORMATS
from ipd.export.write import export
from ipd.runs.opened import open_run
from ipd.runs.trials import FIRST_EPISODE_SEED

HERE = Path(__file__).parent
APART = 1e-3


class Episode(NamedTuple):
    observations: np.ndarray
    rewards: np.ndarray
    """Of the step before, as the policy was told."""
    actions: np.ndarray
    total: float


def play(task: str, seed: int, policy: Any) -> Episode:
    """One episode, as a user would write it."""
    env = gymnasium.make(task)
    policy.reset()
    observation, _ = env.reset(seed=seed)
    reward, total, over, seen = 0.0, 0.0, False, []
    while not over:
        action = policy.act(np.float32(observation), reward)
        seen.append((observation, reward, action))
        observation, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
    env.close()
    observations, rewards, actions = (np.stack(each) for each in zip(*seen, strict=True))
    return Episode(np.float32(observations), np.float32(rewards), actions, total)


def again(policy: Any, episode: Episode) -> np.ndarray:
    """What the policy would have done on the way of an episode, were it told of each step as it was."""
    policy.reset()
    return np.stack([policy.act(o, r) for o, r in zip(episode.observations, episode.rewards, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default="latest", help="of the file in bench/results")
    chosen = parser.parse_args()
    opened = open_run(chosen.run)
    name, task, seed = opened.config.algo, str(opened.job.task), opened.seeds[0]
    half = (opened.normaliser.action_high - opened.normaliser.action_low) / 2
    lines = (chosen.run / "evaluations.csv").read_text().splitlines()
    rows = [row for row in csv.DictReader(lines) if row["policy"] == name]
    last = max(int(row["step"]) for row in rows)
    rows = [row for row in rows if (int(row["seed"]), int(row["step"])) == (seed, last)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        played: dict[str, Any] = {"ipd.load": ipd.load(chosen.run)}
        for format in FORMATS:
            played[format] = Runner(export(chosen.run, format, to=Path(folder) / format)[0])
        seen = played["onnx"].contract["observation"]
        low, high = np.float32(seen["data_low"]), np.float32(seen["data_high"])
        for row in rows:
            run = play(task, FIRST_EPISODE_SEED + int(row["episode"]), played["ipd.load"])
            for by, policy in played.items():
                mine = run if policy is played["ipd.load"] else play(
                    task, FIRST_EPISODE_SEED + int(row["episode"]), policy
                )  # fmt: skip
                both = min(len(run.actions), len(mine.actions))
                apart = (np.abs(run.actions[:both] - mine.actions[:both]) / half).max(1) > APART
                same = int(apart.argmax()) if apart.any() else both
                off = float((np.abs(again(policy, run) - run.actions) / half).max())
                outside = np.maximum(low - mine.observations, mine.observations - high) / (high - low)
                found.append([by, int(row["episode"]), float(row["return"]), mine.total, int(row["length"]),
                              len(mine.actions), mine.total - float(row["return"]), same, off,
                              int((outside > 0).any(1).sum()), max(float(outside.max()), 0.0)])  # fmt: skip
                print(*found[-1], flush=True)
    columns = ["by", "episode", "evaluated_return", "return", "evaluated_length", "length",
               "return_difference", "same_steps", "action_difference", "steps_outside",
               "furthest_outside"]  # fmt: skip
    with (HERE / "results" / f"exported-{chosen.name}.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *found])


if __name__ == "__main__":
    main()
