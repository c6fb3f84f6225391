"""`ipd collect`: make a dataset with soft actor-critic."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse, say
from ipd.collect.sac import SACConfig


@dataclasses.dataclass(frozen=True)
class Collect:
    """Make a D4RL-style dataset in a task. Interrupted, the same command goes on where it stopped."""

    env: str
    """Task with Box spaces, such as Hopper-v4."""
    out: Path
    """The file to write, FILE.hdf5; FILE.hdf5.part holds unfinished work."""
    recipe: str = "medium-replay"
    """random, medium, medium-replay, expert or medium-expert."""
    seed: int = 0
    """Equal seeds make equal files, on one machine."""
    score: float | None = None
    """Evaluation return at which the medium policy is taken; without it, a share of the expert's."""
    share: float = 1 / 3
    """The medium policy's share of the expert return."""
    expert_return: float | None = None
    """Without it D4RL's reference maximum, for tasks that have one."""
    steps: int | None = None
    """Rows of the file, 200,000 if not given; medium-replay has as many as its training took."""
    training_steps: int = 1_000_000
    """Training gives up after this many steps; medium-replay then writes what there is, and says so."""
    envs: int = 8
    """Environments stepped in turn."""
    warmup: int = 5_000
    """Steps of uniform actions before the first update."""
    updates_per_step: float = 0.5
    """Updates for each step of an environment."""
    evaluate_every: int = 5_000
    """Steps between evaluations; the first whose mean return reaches the score stops training."""
    evaluation_episodes: int = 5
    """Episodes of an evaluation, with deterministic actions."""
    checkpoint_seconds: float = 30.0
    """Time between checkpoints."""
    sac: SACConfig = SACConfig()


def main(argv: list[str]) -> int:
    """Parses, collects, says what the file holds."""
    options = parse(Collect, argv, "collect")
    keep_compiled()
    from ipd.collect.collecting import collect
    from ipd.collect.settings import settle
    from ipd.evaluation.tasks import task

    found = task(options.env)
    settings = settle(
        found,
        options.recipe,
        seed=options.seed,
        score=options.score,
        share=options.share,
        expert_return=options.expert_return,
        steps=options.steps,
        training_steps=options.training_steps,
        environments=options.envs,
        warmup=options.warmup,
        updates_per_step=options.updates_per_step,
        evaluate_every=options.evaluate_every,
        evaluation_episodes=options.evaluation_episodes,
        sac=options.sac,
    )
    made = collect(found, settings, options.out, options.checkpoint_seconds)
    say(f"{options.out}: {'written' if made else 'was already there, made with these settings'}")
    return 0
