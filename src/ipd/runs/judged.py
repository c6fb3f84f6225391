"""Whom the judge stage judges: a run's policies as they act, and the world model that imagines them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.baselines.sequences import Context
from ipd.evaluation.logged_actions import Layout, memoryless_actions, remembered_actions, sequence_actions
from ipd.policy.act import act, begin
from ipd.presets import with_task
from ipd.runs import judging, learning, modelling, opened, stages
from ipd.runs.context import Run, unstack
from ipd.runs.errors import InputError
from ipd.runs.trained import Trained


class Judged(NamedTuple):
    """A policy to be judged: as in `policy.act.Controller`, seeds on the first axis of actors and blanks."""

    name: str
    act: Callable[..., tuple[jax.Array, Any]]
    actors: Any
    blanks: Any
    context_len: int | None = None
    """Steps that IPD's policy looks back; None for the others."""

    def on_log(self, row: int, rows: Layout) -> NDArray[np.float32]:
        """(N + E, act): its actions along the log, by one seed."""
        actor = unstack(self.actors, row)
        if self.context_len is not None:
            return sequence_actions(actor, self.context_len, rows)
        along = remembered_actions if isinstance(self.blanks, Context) else memoryless_actions
        return along(self.act, actor, unstack(self.blanks, row), rows)


class Model(NamedTuple):
    """What imagines: a run's world model and the values that stand behind a roll-out's cut."""

    run: Run
    values: Trained
    world: Trained
    split: modelling.Split


def with_values(run: Run) -> Run:
    """The run with the discount and sizes of fitted Q, where its algorithm has none: its preset's of IPD."""
    config = run.config
    if "value" in stages.stages_of(config):
        return run
    try:
        value = with_task(config.preset, run.job.task, run.job.data).value
    except KeyError:  # a preset of another version
        return run
    return dataclasses.replace(
        run, job=dataclasses.replace(run.job, config=dataclasses.replace(config, value=value))
    )


def contenders(run: Run) -> tuple[list[Judged], list[Trained], Model | None]:
    """The policies of a finished run, the one it is about last; where they come from; its model, if any."""
    name = run.config.algo
    if name != "ipd":
        trained = learning.baseline(run, name)
        return [of_baseline(run, name, trained.state, name)], [trained], None
    values, cloning = learning.value(run), learning.cloning(run)
    guide = opened.guide_of(run, values)
    policy = opened.policy_of(run, guide)
    found = [of_baseline(run, "bc", cloning.state, "cloning")]
    found.append(of_baseline(run, "iql", values.state, "quasi_optimal"))
    if guide is not values:
        found.append(of_baseline(run, "iql", guide.state, "quasi_optimal_refitted"))
    found.append(of_method(run, guide, policy.state))
    model = Model(run, guide, *modelling.world(run)) if run.config.augment.enabled else None
    return found, [values, cloning, guide, policy], model


def model_of(run: Run, folder: Path) -> Model:
    """Values and world model of another run, fit to judge `run`. Raises `InputError` where they are not."""
    other = opened.open_run(folder, needs=("value", "world"))
    stopped = other.failed_in(("value", "world"))
    if stopped:
        seed, text = next(iter(stopped.items()))
        raise InputError(f"--model {folder}: seed {seed} was stopped ({text}); take a run without it")
    if (other.digest, other.spec) != (run.digest, run.spec):
        raise InputError(f"--model {folder}: learned from other data or for another task than {run.folder}")
    if other.normaliser.to_dict() != run.normaliser.to_dict():
        raise InputError(f"--model {folder}: scales observations or rewards otherwise than {run.folder}")
    if other.config.value.discount != run.config.value.discount:
        raise InputError(
            f"--model {folder}: its values discount by {other.config.value.discount:g}, "
            f"{run.folder} by {run.config.value.discount:g}"
        )
    return Model(other, learning.value(other), *modelling.world(other))


def of_baseline(run: Run, name: str, state: Any, label: str) -> Judged:
    """A finished baseline."""
    return Judged(label, *judging.actors(run, name, state))


def of_method(run: Run, guide: Trained, state: Any, label: str = "ipd") -> Judged:
    """The sequence policy, prompted by the values that it learned from."""
    context_len = run.config.policy.context_len
    blank = begin(context_len, run.spec)
    blanks = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(run.seeds), *leaf.shape)), blank)
    return Judged(label, act, judging.drivers(run, guide, state), blanks, context_len)
