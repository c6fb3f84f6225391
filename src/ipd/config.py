"""Every setting, one frozen dataclass a stage. Defaults are the paper's tables 2 to 4.

A field's docstring is its help text on the command line. Presets change values, never meanings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import yaml

from ipd.baseline_config import (
    CQLConfig,
    DDConfig,
    DTConfig,
    EDTConfig,
    MOBILEConfig,
    QDTConfig,
    QTConfig,
    ReBRACConfig,
    ReinformerConfig,
)

Algo = Literal["ipd", "bc", "iql", "cql", "rebrac", "mobile", "dt", "qdt", "edt", "reinformer", "qt", "dd"]


@dataclasses.dataclass(frozen=True)
class ValueConfig:
    """Huber-expectile implicit Q-learning (Eqs. 1-6, Table 2)."""

    steps: int = 1_000_000
    """Updates."""
    batch_size: int = 256
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of Q, V and the policy."""
    num_critics: int = 2
    """Q networks; the smallest of their targets is used."""
    expectile: float = 0.7
    """tau of Eq. 2."""
    huber_quantile: float = 0.96
    """Quantile of |e| that becomes the Huber threshold delta of Eq. 1; 1 keeps the square everywhere."""
    inverse_temperature: float = 3.0
    """beta of Eq. 5."""
    max_advantage_weight: float = 100.0
    """Cap on exp(beta * advantage)."""
    discount: float = 0.99
    polyak: float = 0.005
    """Share of the new Q that enters its target at each update."""
    dropout: float = 0.01
    """Dropout in the policy."""
    multi_step: int = 1
    """Rewards that are summed before V takes over in the target of Q; 1 is Eq. 4."""


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """Probabilistic ensemble, reward ensemble, termination, uncertainty (Eqs. 7-16)."""

    steps: int = 200_000
    """Updates at most; training ends earlier when no member improves any more."""
    batch_size: int = 256
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (400, 400, 400, 400)
    num_members: int = 3
    """E of Eq. 7."""
    loss: Literal["likelihood", "literal"] = "likelihood"
    """`likelihood`: Gaussian log-likelihood of each member; `literal`: Eq. 14 as printed."""
    log_variance_target: float = -4.5
    variance_weight_start: float = 1.0
    """gamma_0 of Eq. 15."""
    variance_decay_steps: float = 1e5
    """T of Eq. 15."""
    log_variance_bounds: tuple[float, float] = (-10.0, 0.2)
    dynamics_weight: float = 0.5
    reward_weight: float = 0.5
    held_out: float = 0.1
    """Share of the episodes kept from training, for early stop, kappa, calibration; at most 100,000 steps."""
    validate_every: int = 1_000
    """Updates between looks at the held-out error."""
    patience: int = 10
    """Looks without improvement of a member after which it is done."""
    uncertainty: Literal["primal", "dual", "disagreement"] = "primal"
    """Divergence between members: Eq. 9, its dual, or plain squared distance of the means."""
    reduction: Literal["mean", "max"] = "mean"
    """Over pairs of members."""
    threshold_quantile: float = 0.95
    """kappa is this quantile of U over held-out real pairs ..."""
    threshold_scale: float = 1.0
    """... times this."""
    termination: Literal["known", "learned", "never"] = "known"
    """`known`: the task's own rule; learned from the data where the task has none."""


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Candidates, planning and imagined segments (Eqs. 17-25, Algorithm 1, Table 3)."""

    enabled: bool = True
    history_steps: int = 10
    imagine_steps: int = 10
    plan_steps: int = 10
    num_plans: int = 3
    plan_noise: float = 1.0
    """Scale of the quasi-optimal policy's own noise when plans are drawn."""
    augment_ratio: float = 1.0
    """N_aug: imagined steps for every logged one (Eq. 21)."""
    spacing: int = 1
    """Smallest distance in steps between two chosen states of one episode."""
    min_steps: int = 1
    """A segment shorter than this is dropped."""
    uncertainty_penalty: float = 0.0
    """Imagined rewards, as values and policy learn from them, are less this times the step's U."""
    batch_size: int = 4_096
    """Start states imagined at once."""


@dataclasses.dataclass(frozen=True)
class RefitConfig:
    """Values refitted on the enriched data, with the settings of the value stage (not in the paper)."""

    steps: int = 0
    """Updates on logged and imagined steps after augmentation; 0 keeps the first values."""
    share: float = 0.5
    """Share of imagined steps in a batch."""


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """The causal Transformer and its loss (Eq. 26, Table 4)."""

    steps: int = 100_000
    batch_size: int = 256
    learning_rate: float = 3e-4
    layers: int = 4
    heads: int = 4
    width: int = 256
    context_len: int = 20
    dropout: float = 0.01
    clip_norm: float = 5.0
    prompt: Literal["value", "hindsight", "max"] = "value"
    """What stands in for the return-to-go in training; the value always does in use."""
    time: Literal["episode", "window"] = "episode"
    """Learned embedding of the step within the episode (the paper) or of the place in the window."""
    q_weight: float = 1.0
    """alpha of Eq. 26, on Q divided by its mean size."""
    advantage_weight: float = 0.0
    """Inverse temperature of exp(advantage) weights on the cloning term; 0 is Eq. 26."""
    trace: float = 0.0
    """Advantages in those weights: 0 takes Q - V; lambda sums the TD errors of V along the steps that
    followed, each (discount * lambda) of the one before, in standard deviations."""
    mix: float = 0.5
    """Share of training windows that end in an imagined segment."""
    replace: bool = False
    """Drop the loss on logged steps that were replanned."""
    shorten: float = 0.0
    """Probability that a training window loses a random part of its oldest context."""
    average: float = 0.0
    """Decay of the running average of the weights that acts; 0 acts with the newest weights."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the Transformer's products in training; `auto`: bfloat16 where the device has units for it, which
    a CPU has not. Weights, sums, norms and the loss are float32; the policy in use computes in float64."""


@dataclasses.dataclass(frozen=True)
class CloningConfig:
    """Plain behaviour cloning of the logged steps, the yardstick beside IPD."""

    steps: int = 100_000
    batch_size: int = 256
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256)
    best_share: float = 1.0
    """Share of the episodes, those with the largest returns, that is cloned; 0.1 is known as 10 % BC."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Roll-outs in the real task."""

    episodes: int = 10
    """Episodes of every snapshot but the last."""
    final_episodes: int = 20
    """Episodes of the finished policies."""
    snapshots: int = 5
    """Equally spaced moments of the judged policy's training at which it is kept and evaluated."""
    prompts: tuple[float, ...] = ()
    """Also evaluate `ipd@P` for each P: a target return in place of V, as a share of the best logged."""
    rerank: int = 0
    """Also evaluate `ipd_reranked`: this many candidates around each action, the best by Q is taken."""


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Sets too large for memory: kept on disk, learned from window after window of random blocks."""

    above_steps: int = 4_000_000
    """Sets of more logged steps are streamed."""
    window_steps: int = 1_000_000
    """Logged steps in memory at a time, each drawn about once before the next window comes."""
    block_steps: int = 4_096
    """Neighbouring steps that come together; a window's blocks are from all over the set."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One run: the algorithm, and every stage that it may have."""

    preset: str = "paper"
    algo: Algo = "ipd"
    """What learns: the method, or one of the baselines."""
    value: ValueConfig = ValueConfig()
    world: WorldConfig = WorldConfig()
    augment: AugmentConfig = AugmentConfig()
    refit: RefitConfig = RefitConfig()
    policy: PolicyConfig = PolicyConfig()
    cloning: CloningConfig = CloningConfig()
    cql: CQLConfig = CQLConfig()
    rebrac: ReBRACConfig = ReBRACConfig()
    mobile: MOBILEConfig = MOBILEConfig()
    dt: DTConfig = DTConfig()
    qdt: QDTConfig = QDTConfig()
    edt: EDTConfig = EDTConfig()
    reinformer: ReinformerConfig = ReinformerConfig()
    qt: QTConfig = QTConfig()
    dd: DDConfig = DDConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    stream: StreamConfig = StreamConfig()


ADDED: Mapping[str, object] = {
    "augment.uncertainty_penalty": 0.0,
    "cloning.best_share": 1.0,
    "policy.precision": "auto",
    "policy.trace": 0.0,
    "stream.above_steps": 4_000_000,
    "stream.window_steps": 1_000_000,
    "stream.block_steps": 4_096,
    "value.multi_step": 1,
}
"""Dotted field -> the value by which software from before that field behaved, whatever its default is now.

A config.yaml without the field is read with it. A new field gets a line here.
"""

FORMAT = 1
"""Of the run directories that are written, `format` of manifest.json; those from before it count as 0.

It rises where a run of the format before would no longer be read as what it was; tests/formats has a run
of each.
"""


def format_problem(manifest: Mapping[str, object]) -> str:
    """Why a run with this manifest is not for this version, and the way out; "" where it is."""
    found = manifest.get("format", 0)
    if not isinstance(found, int):
        return f"its format is {found!r}, expected a whole number; restore it"
    if found <= FORMAT:
        return ""
    return f"a run of format {found}, this ipd reads formats up to {FORMAT}; upgrade it: pip install -U ipd"


_METHOD = ("value", "world", "augment", "refit", "policy", "cloning")
_SECTIONS: dict[str, tuple[str, ...]] = {
    "ipd": _METHOD,
    "bc": ("cloning",),
    "iql": ("value",),
    "qdt": ("value", "qdt"),
    "mobile": ("world", "mobile"),
}


def sections(algo: Algo) -> tuple[str, ...]:
    """Sections of `Config` that an algorithm reads."""
    return (*_SECTIONS.get(algo, (algo,)), "evaluate", "stream")


def trimmed(config: Config) -> Config:
    """`config` with what its algorithm does not read set to defaults: runs that are equal compare equal."""
    read = {"preset", "algo", *sections(config.algo)}
    plain: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(config) if f.name not in read}
    return dataclasses.replace(config, **plain)


class _Plain(yaml.SafeLoader):
    """YAML without references, with which ten lines can stand for ten thousand million values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to parts of itself (&name, *name); write them out")
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > 50:
            raise yaml.YAMLError("it is nested more than 50 deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def read_yaml(text: str) -> Any:
    """What `text` says, as plain values. Raises `yaml.YAMLError`, and no other error, where it is no YAML."""
    loader = _Plain(text)
    try:
        return loader.get_single_data()
    except (ValueError, RecursionError, OverflowError) as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error
    finally:
        loader.dispose()


def sealed(text: str) -> str:
    """The settings of a run as YAML, with a last line by which `seal_problem` notices changes."""
    return f"{text}# seal {_seal(text)}: of all but data and columns, which may move\n"


def seal_problem(text: str) -> str:
    """Why the settings in a config.yaml cannot be those of its run; "" where they may be: older ones have no
    seal. Raises `yaml.YAMLError`."""
    told = re.search(r"^# seal ([0-9a-f]{16}):", text, re.MULTILINE)
    if told is None or told[1] == _seal(text):
        return ""
    return "not the settings that the run was made with; restore it, and choose another --out for others"


def _seal(text: str) -> str:
    values = read_yaml(text)
    named = values if isinstance(values, dict) else {}
    return content_hash(repr({key: value for key, value in named.items() if key not in ("data", "columns")}))


def content_hash(*parts: Any) -> str:
    """Sixteen hexadecimal digits that change when any part does (dataclasses, dicts, scalars)."""

    def plain(part: Any) -> Any:
        return (
            dataclasses.asdict(part)
            if dataclasses.is_dataclass(part) and not isinstance(part, type)
            else part
        )

    text = json.dumps([plain(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
