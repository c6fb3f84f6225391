"""What to collect: the recipe, and everything a collected file depends on."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from ipd.collect.sac import SACConfig
from ipd.evaluation.scores import reference
from ipd.evaluation.tasks import Task
from ipd.runs.errors import InputError
from ipd.runs.files import digest

RECIPES = {
    "random": "uniform actions",
    "medium": "sampled actions of the policy that first reached the score",
    "medium-replay": "every step of training up to there",
    "expert": "sampled actions of the policy that first reached the expert return",
    "medium-expert": "half and half",
}
ROWS = 200_000
TRAINING_STEPS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Settings:
    """Two files made with equal settings and package versions are equal."""

    task: str
    """Gymnasium id."""
    recipe: str
    """One of ``RECIPES``."""
    seed: int
    goals: tuple[tuple[str, float], ...]
    """Name and evaluation return of each policy that is needed, the lowest first."""
    steps: int | None
    """Rows of the file; None for ``medium-replay``, whose training says how many."""
    training_steps: int
    """Steps after which training gives up."""
    environments: int
    """Environments stepped in turn."""
    warmup: int
    """Steps of uniform actions before the first update."""
    updates_per_step: float
    evaluate_every: int
    """Steps between evaluations; training can stop only there."""
    evaluation_episodes: int
    """Episodes with the policy's deterministic action; their mean return is what must reach a goal."""
    sac: SACConfig

    def plain(self) -> dict[str, Any]:
        """As JSON has it, so that what was read back compares equal."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    @property
    def fingerprint(self) -> str:
        """Hash of what a step of training depends on; the budget is not of it, so that it can be raised."""
        values = self.plain()
        del values["training_steps"]
        return digest(json.dumps(values).encode())


def settle(
    task: Task,
    recipe: str,
    *,
    seed: int = 0,
    score: float | None = None,
    share: float = 1 / 3,
    expert_return: float | None = None,
    steps: int | None = None,
    training_steps: int = TRAINING_STEPS,
    environments: int = 8,
    warmup: int = 5_000,
    updates_per_step: float = 0.5,
    evaluate_every: int = 5_000,
    evaluation_episodes: int = 5,
    sac: SACConfig = SACConfig(),
) -> Settings:
    """Checks what was asked for and fills in what follows from the task.

    ``score`` is the return of the medium policy, else ``share`` of the expert return; without
    ``expert_return`` that is D4RL's reference maximum. Raises ``InputError`` where the recipe is
    unknown, the task has no reference and none was given, or a number makes no sense.
    """
    if recipe not in RECIPES:
        raise InputError(f"--recipe {recipe}: there is no such recipe; there are: {', '.join(RECIPES)}")
    for name, value in (("envs", environments), ("evaluate-every", evaluate_every), ("warmup", warmup),
                        ("evaluation-episodes", evaluation_episodes), ("training-steps", training_steps),
                        ("steps", ROWS if steps is None else steps), ("sac.batch-size", sac.batch_size),
                        ("updates-per-step", updates_per_step)):  # fmt: skip
        if value <= 0:
            raise InputError(f"--{name} {value}: must be above 0")
    for name, stated in (("score", score), ("expert-return", expert_return)):
        if stated is not None and not math.isfinite(stated):
            raise InputError(f"--{name} {stated:g}: must be a finite number")
    if not 0 < share <= 1:
        raise InputError(f"--share {share:g}: must be above 0 and at most 1")
    if training_steps < environments:
        raise InputError(f"--training-steps {training_steps}: must be at least --envs {environments}")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be at least 0")
    if score is not None and not recipe.startswith("medium"):
        raise InputError(f"--score is the medium policy's; recipe {recipe} takes --expert-return or nothing")
    if recipe == "medium-replay" and steps is not None:
        raise InputError("--steps: medium-replay is as long as its training; limit it by --training-steps")
    goals: list[tuple[str, float]] = []
    if recipe.startswith("medium"):
        goals.append(("medium", _share(task, share, expert_return) if score is None else score))
    if recipe.endswith("expert"):
        goals.append(("expert", _expert(task, expert_return)))
    if goals != sorted(goals, key=lambda goal: goal[1]):
        raise InputError(f"the medium score {goals[0][1]:g} is above the expert return {goals[1][1]:g}")
    if steps is not None and steps < len(goals):
        raise InputError(f"--steps {steps}: {recipe} holds steps of {len(goals)} policies")
    return Settings(
        task=task.id,
        recipe=recipe,
        seed=seed,
        goals=tuple((name, float(goal)) for name, goal in goals),
        steps=None if recipe == "medium-replay" else steps or ROWS,
        training_steps=training_steps,
        environments=environments,
        warmup=warmup,
        updates_per_step=updates_per_step,
        evaluate_every=evaluate_every,
        evaluation_episodes=evaluation_episodes,
        sac=sac,
    )


def _share(task: Task, share: float, stated: float | None) -> float:
    """``share`` of the expert return: a score on the way there only where that is above 0."""
    expert = _expert(task, stated)
    if expert <= 0:
        raise InputError(
            f"the expert return {expert:g} is not above 0, a share of it says nothing: give --score"
        )
    return share * expert


def _expert(task: Task, stated: float | None) -> float:
    if stated is not None:
        return stated
    bounds = reference(task)
    if bounds is None:
        raise InputError(f"{task.id} has no D4RL reference return; state one with --expert-return")
    return bounds[1]
