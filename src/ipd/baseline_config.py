"""Settings of the baselines, one frozen dataclass each. Defaults are those of the published code.

A field's docstring is its help text on the command line, as in `ipd.config`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ActorCriticConfig:
    """What the actor-critic baselines share."""

    steps: int = 1_000_000
    """Updates."""
    batch_size: int = 256
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of critics and actor."""
    critic_learning_rate: float = 3e-4
    actor_learning_rate: float = 3e-4
    discount: float = 0.99
    polyak: float = 0.005
    """Share of the new critics (and actor) that enters the targets at each update."""


@dataclasses.dataclass(frozen=True)
class CQLConfig(ActorCriticConfig):
    """Conservative Q-learning (Kumar et al., 2020), CQL(H) on soft actor-critic."""

    actor_learning_rate: float = 1e-4
    conservative_weight: float = 5.0
    """Weight of logsumexp Q over sampled actions minus Q of the logged one."""
    num_actions: int = 10
    """Sampled actions of each kind: uniform, of the policy at s, of the policy at s'."""


@dataclasses.dataclass(frozen=True)
class ReBRACConfig(ActorCriticConfig):
    """TD3+BC, revisited (Tarasov et al., 2023): both actor and critic are pulled to the data."""

    batch_size: int = 1_024
    critic_learning_rate: float = 1e-3
    actor_learning_rate: float = 1e-3
    actor_penalty: float = 0.05
    """Weight of the actor's squared distance to the logged action."""
    critic_penalty: float = 0.01
    """Weight of the target action's squared distance to the logged next action."""
    target_noise: float = 0.2
    """Standard deviation of the noise on the target action, in half-ranges of the action."""
    noise_clip: float = 0.5
    policy_delay: int = 2
    """The actor and the targets move at every so many updates of the critics."""


@dataclasses.dataclass(frozen=True)
class MOBILEConfig(ActorCriticConfig):
    """Model-Bellman inconsistency penalty (Sun et al., 2023) on soft actor-critic in the world model."""

    hidden: tuple[int, ...] = (256, 256)
    actor_learning_rate: float = 1e-4
    penalty: float = 1.5
    """Weight of the disagreement of the members' Bellman targets."""
    num_samples: int = 10
    """Next states drawn from each member for its Bellman target."""
    rollout_steps: int = 5
    """Imagined steps from each logged state."""
    real_share: float = 0.05
    """Share of logged steps in a batch."""


@dataclasses.dataclass(frozen=True)
class SequenceConfig:
    """What the Transformer baselines share; the values are Decision Transformer's."""

    steps: int = 100_000
    """Updates."""
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    warmup_steps: int = 10_000
    """Updates over which the learning rate rises from 0."""
    clip_norm: float = 0.25
    layers: int = 3
    heads: int = 1
    width: int = 128
    context_len: int = 20
    dropout: float = 0.1
    time: Literal["episode", "window"] = "episode"
    """Learned embedding of the step within the episode or of the place in the window."""
    average: float = 0.0
    """Decay of the running average of the weights that acts; 0 acts with the newest weights."""


@dataclasses.dataclass(frozen=True)
class DTConfig(SequenceConfig):
    """Decision Transformer (Chen et al., 2021)."""

    target: float = 0.0
    """Return asked for at the start of an episode, logged units; 0 asks for the best logged one."""


@dataclasses.dataclass(frozen=True)
class QDTConfig(DTConfig):
    """Q-learning Decision Transformer (Yamagata et al., 2023): returns raised to V, then DT."""


@dataclasses.dataclass(frozen=True)
class EDTConfig(SequenceConfig):
    """Elastic Decision Transformer (Wu et al., 2023)."""

    steps: int = 50_000
    batch_size: int = 256
    layers: int = 4
    heads: int = 4
    width: int = 512
    num_bins: int = 60
    """Bins of the return between the lowest and the highest logged one, at least 2."""
    expectile: float = 0.99
    """tau of the estimated return, by which histories are compared."""
    observation_weight: float = 1.0
    """Weight of the error of the next observation."""
    expectile_weight: float = 0.5
    """Weight of the estimated return's loss."""
    cross_entropy_weight: float = 0.001
    """Weight of the cross-entropy of the return's bin."""
    expert_weight: float = 15.0
    """What the highest bin gains over the lowest, in logits, when the return to ask for is drawn."""
    top_share: float = 0.15
    """Share of the bins, the likeliest after that gain, from which it is drawn."""
    search_stride: int = 2
    """Distance in steps between the history lengths that are tried."""


@dataclasses.dataclass(frozen=True)
class ReinformerConfig(SequenceConfig):
    """Reinformer (Zhuang et al., 2024): the return is predicted by expectile regression."""

    steps: int = 50_000
    batch_size: int = 128
    warmup_steps: int = 5_000
    layers: int = 4
    heads: int = 8
    width: int = 256
    context_len: int = 5
    expectile: float = 0.99
    """tau of the predicted return."""
    entropy_weight: float = 0.1
    """First value of the learned weight of the policy's entropy."""
    bounded: bool = False
    """Ask for no more than at the step before and what the worst logged reward would leave on top."""


@dataclasses.dataclass(frozen=True)
class QTConfig(SequenceConfig):
    """Q-value regularised Transformer (Hu et al., 2024)."""

    batch_size: int = 256
    learning_rate: float = 3e-4
    warmup_steps: int = 0
    clip_norm: float = 9.0
    layers: int = 4
    heads: int = 4
    width: int = 256
    critic_learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of the critics."""
    discount: float = 0.99
    polyak: float = 0.005
    q_weight: float = 1.0
    """eta: weight of Q, divided by the other critic's mean size."""
    target_average: float = 0.995
    """Decay of the running average of the policy that gives the next action of the critic's target."""
    target_average_every: int = 5
    target_average_start: int = 1_000
    """Updates before which the running average is the policy itself."""
    candidates: int = 50
    """Contexts that compete in use by exp Q, at least 2: half of them ask for `target`, the others for
    half of it, one of these for what Q promises."""
    target: float = 0.0
    """Largest return asked for, logged units; half of it is asked for too. 0: the best logged one."""


@dataclasses.dataclass(frozen=True)
class DDConfig:
    """Decision Diffuser (Ajay et al., 2023)."""

    steps: int = 1_000_000
    """Updates."""
    batch_size: int = 64
    learning_rate: float = 2e-4
    width: int = 128
    """Channels of the U-Net's first level; a multiple of 8."""
    multipliers: tuple[int, ...] = (1, 4, 8)
    """Channels of its levels, in multiples of `width`."""
    horizon: int = 100
    """States in a plan; a multiple of 2 ** (levels - 1)."""
    predicts: Literal["noise", "velocity"] = "noise"
    """What the U-Net is asked for; only the velocity says much of the plan when nearly all is noise."""
    diffusion_steps: int = 200
    sampling_steps: int = 200
    """Denoising steps in use; fewer than `diffusion_steps` skips evenly (DDIM, no fresh noise)."""
    guidance: float = 1.2
    """w of classifier-free guidance; 0 ignores the return."""
    condition_dropout: float = 0.25
    """Probability that a training plan's return is hidden."""
    target: float = 0.9
    """Return asked for: 0 is the lowest return of any logged step, 1 the highest."""
    temperature: float = 0.5
    """Scale of the noise in sampling."""
    average: float = 0.995
    """Decay of the running average of the weights that acts."""
    inverse_hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of the inverse dynamics."""
    discount: float = 0.99
    termination_penalty: float = 100.0
    """Taken off the return where the task ended, logged units."""
