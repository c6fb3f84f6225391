"""Named configurations. A preset only changes values; `paper` changes none.

`preset("cpu")`, or with ablations after a plus: `preset("cpu+greedy+no-q-term")`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from ipd import baseline_presets
from ipd.config import Algo, Config

Overrides = Mapping[str, Any]
"""Dotted field -> value."""

PRESETS: dict[str, Overrides] = {
    "paper": {},
    "literal": {"world.loss": "literal"},
    "default": {
        "value.steps": 200_000,
        "world.steps": 60_000,
        "world.variance_decay_steps": 1e4,
        "world.uncertainty": "disagreement",
        "refit.steps": 75_000,
        "policy.steps": 50_000,
        "policy.context_len": 2,
        "policy.advantage_weight": 5.0,
        "policy.trace": 0.8,
        "policy.average": 0.999,
        "policy.time": "window",
        "policy.q_weight": 1.0,
        "cloning.steps": 50_000,
    },
    "cpu": {
        "value.steps": 40_000,
        "value.hidden": (128, 128),
        "value.learning_rate": 1e-3,
        "value.polyak": 0.01,
        "refit.steps": 15_000,
        "world.steps": 12_000,
        "world.hidden": (128, 128, 128),
        "world.learning_rate": 1e-3,
        "world.uncertainty": "disagreement",
        "world.variance_decay_steps": 2_000.0,
        "augment.augment_ratio": 1.0,
        "policy.steps": 6_000,
        "policy.layers": 2,
        "policy.heads": 2,
        "policy.width": 64,
        "policy.context_len": 2,
        "policy.batch_size": 128,
        "policy.advantage_weight": 5.0,
        "policy.trace": 0.8,
        "policy.average": 0.999,
        "policy.time": "window",
        "policy.q_weight": 1.0,
        "evaluate.snapshots": 3,
        "cloning.steps": 12_000,
    },
    "demo": {
        "value.steps": 20_000,
        "value.hidden": (128, 128),
        "value.learning_rate": 1e-3,
        "value.polyak": 0.01,
        "world.steps": 4_000,
        "world.hidden": (128, 128, 128),
        "world.learning_rate": 1e-3,
        "world.variance_decay_steps": 1_000.0,
        "world.validate_every": 500,
        "world.uncertainty": "disagreement",
        "augment.augment_ratio": 0.5,
        "refit.steps": 8_000,
        "policy.steps": 4_000,
        "policy.layers": 2,
        "policy.heads": 2,
        "policy.width": 64,
        "policy.context_len": 2,
        "policy.batch_size": 128,
        "policy.advantage_weight": 5.0,
        "policy.trace": 0.8,
        "policy.average": 0.998,
        "policy.time": "window",
        "policy.q_weight": 1.0,
        "evaluate.snapshots": 2,
        "cloning.steps": 3_000,
        "evaluate.episodes": 5,
        "evaluate.final_episodes": 10,
    },
    "tiny": {
        "value.steps": 60,
        "refit.steps": 60,
        "value.batch_size": 16,
        "value.hidden": (16, 16),
        "world.steps": 60,
        "world.batch_size": 16,
        "world.hidden": (16, 16),
        "world.validate_every": 20,
        "world.variance_decay_steps": 30.0,
        "augment.history_steps": 3,
        "augment.imagine_steps": 3,
        "augment.plan_steps": 3,
        "augment.augment_ratio": 0.2,
        "augment.batch_size": 256,
        "policy.steps": 60,
        "policy.batch_size": 8,
        "policy.layers": 1,
        "policy.heads": 2,
        "policy.width": 16,
        "policy.context_len": 5,
        "evaluate.snapshots": 2,
        "cloning.steps": 60,
        "cloning.batch_size": 16,
        "cloning.hidden": (16, 16),
        "evaluate.episodes": 1,
        "evaluate.final_episodes": 2,
    },
}

ALGOS: dict[str, Overrides] = {
    # the published method: no Huber loss, no dropout
    "iql": {"value.huber_quantile": 1.0, "value.dropout": 0.0},
}
"""Settings by which a baseline differs from the method's own stage of that kind."""

ABLATIONS: dict[str, Overrides] = {
    "no-augmentation": {"augment.enabled": False, "policy.mix": 0.0},
    "no-q-term": {"policy.q_weight": 0.0},
    "no-refit": {"refit.steps": 0},
    "logged-refit": {"refit.share": 0.0},
    "greedy": {"augment.num_plans": 1, "augment.plan_noise": 0.0},
    "hindsight": {"policy.prompt": "hindsight"},
    "max-prompt": {"policy.prompt": "max"},
    "primal": {"world.uncertainty": "primal"},
    "dual": {"world.uncertainty": "dual"},
    "disagreement": {"world.uncertainty": "disagreement"},
}

_HAND = r"(?<![a-z])(adroithand)?(pen|hammer|door|relocate)(?![a-z])"
TASKS: tuple[tuple[str, Overrides], ...] = (
    (r"halfcheetah", {"policy.q_weight": 5.0, "qt.q_weight": 5.0, "qt.clip_norm": 15.0}),
    (r"halfcheetah", {"edt.expert_weight": 1.0, "edt.batch_size": 128}),
    (r"halfcheetah.*medium(?!.*expert)", {"qt.context_len": 5}),
    (r"hopper", {"policy.q_weight": 1.0, "qt.q_weight": 1.0}),
    (r"hopper.*medium(?!.*(replay|expert))", {"reinformer.batch_size": 256}),
    (r"hopper.*replay", {"policy.q_weight": 3.0, "qt.q_weight": 3.0}),
    (r"walker2d", {"policy.q_weight": 2.0, "qt.q_weight": 2.0, "qt.clip_norm": 5.0}),
    (r"halfcheetah.*medium", {"rebrac.actor_penalty": 0.001, "mobile.penalty": 0.5}),
    (r"halfcheetah.*replay", {"rebrac.actor_penalty": 0.01, "rebrac.critic_penalty": 0.001}),
    (r"(halfcheetah|hopper).*replay", {"mobile.penalty": 0.1}),
    (r"hopper.*medium", {"rebrac.actor_penalty": 0.01, "rebrac.critic_penalty": 0.001}),
    (r"hopper.*replay", {"rebrac.actor_penalty": 0.05, "rebrac.critic_penalty": 0.5}),
    (r"walker2d.*medium", {"rebrac.critic_penalty": 0.1, "mobile.penalty": 0.5}),
    (r"walker2d.*replay", {"rebrac.critic_penalty": 0.01, "mobile.rollout_steps": 1}),
    (r"halfcheetah.*expert", {"qt.q_weight": 0.4, "policy.q_weight": 0.4, "mobile.penalty": 2.0}),
    (r"halfcheetah.*expert", {"rebrac.actor_penalty": 0.01, "rebrac.critic_penalty": 0.1}),
    (r"hopper.*expert", {"rebrac.actor_penalty": 0.1, "rebrac.critic_penalty": 0.01, "mobile.penalty": 1.5}),
    (r"walker2d.*expert", {"rebrac.actor_penalty": 0.01, "rebrac.critic_penalty": 0.01}),
    (r"walker2d.*expert", {"mobile.penalty": 1.5, "mobile.rollout_steps": 1}),
    (rf"{_HAND}|kitchen", {"value.inverse_temperature": 0.5, "value.dropout": 0.1, "policy.dropout": 0.1}),
    (_HAND, {"policy.q_weight": 0.1, "qt.q_weight": 0.1, "cql.conservative_weight": 1.0}),
    (_HAND, {"mobile.rollout_steps": 1, "mobile.real_share": 0.5, "qt.clip_norm": 2.0}),
    (rf"{_HAND}.*human", {"mobile.real_share": 0.8}),
    (r"(?<![a-z])hammer.*cloned", {"policy.q_weight": 0.01, "qt.q_weight": 0.01}),
    (r"(?<![a-z])hammer.*human", {"qt.clip_norm": 5.0, "qt.steps": 61_000}),
    (r"(?<![a-z])door", {"policy.q_weight": 0.005, "qt.q_weight": 0.005}),
    (r"(?<![a-z])door.*cloned", {"policy.q_weight": 0.001, "qt.q_weight": 0.001}),
    (r"(?<![a-z])(adroithand)?pen(?![a-z])", {"qt.clip_norm": 9.0}),
    (r"(?<![a-z])pen.*cloned", {"rebrac.critic_penalty": 0.5}),
    (r"kitchen", {"policy.q_weight": 0.01, "qt.q_weight": 0.01}),
    # D4RL's file of kitchen-partial does not say so
    (r"kitchen.*partial|(?<!mini_)kitchen_microwave", {"qt.steps": 51_000}),
    (r"kitchen.*complete|mini_kitchen", {"policy.q_weight": 0.001, "qt.q_weight": 0.001}),
    (r"kitchen.*complete|mini_kitchen", {"reinformer.batch_size": 16}),
)
"""Pattern in the task's id or the data's name -> overrides; later rows win.

Weights of Q are QT's; the rest are the baselines' own published settings, as far as known.
"""


def preset(name: str) -> Config:
    """The configuration of a name from `PRESETS`, then `+` and `ABLATIONS`; `KeyError` for a stranger."""
    return with_task(name, None)


def with_task(name: str, task: str | None, source: str = "", algo: Algo = "ipd") -> Config:
    """`preset(name)` with the adjustments of a task and an algorithm; an ablation has the last word."""
    base, *ablations = name.split("+")
    if base not in PRESETS:
        raise KeyError(f"unknown preset '{base}'; there are: {', '.join(PRESETS)}")
    for ablation in ablations:
        if ablation not in ABLATIONS:
            raise KeyError(f"unknown ablation '{ablation}'; there are: {', '.join(ABLATIONS)}")
    # a preset measured on data of its own has the last word on the weights found by others
    config = for_task(override(Config(), ALGOS.get(algo, {})), task, source)
    config = override(config, PRESETS[base])
    config = override(config, baseline_presets.PRESETS.get(base, {}))
    for ablation in ablations:
        config = override(config, ABLATIONS[ablation])
    return dataclasses.replace(config, preset=name, algo=algo)


def for_task(config: Config, task: str | None, source: str = "") -> Config:
    """`config` adjusted to a task, known by its id or by the name of the data."""
    text = f"{task or ''} {re.split(r'[/:]', source)[-1]}".lower()
    for pattern, overrides in TASKS:
        if re.search(pattern, text):
            config = override(config, overrides)
    return config


def override(config: Config, overrides: Overrides) -> Config:
    """`config` with some dotted fields changed."""
    for field, value in overrides.items():
        stage, name = field.split(".")
        config = dataclasses.replace(
            config, **{stage: dataclasses.replace(getattr(config, stage), **{name: value})}
        )
    return config


def problems(config: Config) -> list[str]:
    """What cannot be meant in `config`, one line each: numbers out of range, sizes that do not fit."""
    found, paper = [], Config()
    may_be_zero = {"refit.steps", "evaluate.rerank", "evaluate.episodes", "evaluate.snapshots"}
    shares = {"world": ("held_out", "threshold_quantile"),
              "policy": ("mix", "shorten", "dropout", "average", "trace"),
              "value": ("expectile", "huber_quantile", "discount", "dropout", "polyak"),
              "refit": ("share",), "cloning": ("best_share",), "mobile": ("real_share",),
              "edt": ("expectile", "top_share"), "reinformer": ("expectile",),
              "dd": ("condition_dropout", "average")}  # fmt: skip
    for stage in dataclasses.fields(config):
        section = getattr(config, stage.name)
        for field in dataclasses.fields(section) if dataclasses.is_dataclass(section) else ():
            name, value = f"{stage.name}.{field.name}", getattr(section, field.name)
            whole = value if isinstance(value, tuple) else (value,)
            least = 0 if name in may_be_zero or getattr(getattr(paper, stage.name), field.name) == 0 else 1
            if any(type(v) is int and v < least for v in whole):
                found.append(f"--{name} {value}: must be at least {least}")
            if field.name in shares.get(stage.name, ()) and not 0 <= value <= 1:
                found.append(f"--{name} {value}: must lie in [0, 1]")
        if getattr(section, "discount", 0) == 1:
            found.append(f"--{stage.name}.discount 1: must be below 1, else values have no end")
        width, heads = getattr(section, "width", 1), getattr(section, "heads", 1)
        if heads >= 1 and width % heads:
            found.append(f"--{stage.name}.width {width}: no multiple of --{stage.name}.heads {heads}")
    penalty = config.augment.uncertainty_penalty
    if not 0 <= penalty < math.inf:
        found.append(f"--augment.uncertainty_penalty {penalty:g}: must be finite and at least 0")
    if config.stream.window_steps < config.stream.block_steps:
        found.append(f"--stream.window_steps {config.stream.window_steps}: less than --stream.block_steps")
    if config.qt.candidates < 2:
        found.append(f"--qt.candidates {config.qt.candidates}: must be at least 2")
    halvings = 2 ** (len(config.dd.multipliers) - 1)
    if config.dd.horizon < 2 or config.dd.horizon % halvings:
        found.append(f"--dd.horizon {config.dd.horizon}: must be a multiple of {halvings}, and at least 2")
    if config.dd.width % 8:
        found.append(f"--dd.width {config.dd.width}: no multiple of 8")
    if config.dd.sampling_steps > config.dd.diffusion_steps:
        found.append(f"--dd.sampling_steps {config.dd.sampling_steps}: more than --dd.diffusion_steps")
    return found
