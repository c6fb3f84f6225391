"""The shapes every other module speaks of.

Axis letters in the jaxtyping annotations: ``steps`` all logged steps, ``batch``, ``time``,
``obs`` and ``act`` dimensions, ``members`` of the ensemble, ``plans`` of the planner.

Two systems of units exist and never mix in one array:

* *logged units*, as the file or the task has them (``Episodes``);
* *learner's units*, in which every network, threshold, plan and prompt lives (``Steps``):
  observations with zero mean and unit variance, actions in [-1, 1], rewards times
  ``reward_scale``. ``ipd.data.episodes.Normaliser`` is the only bridge between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int

Metrics = dict[str, Float[Array, "..."]]
"""Scalars of one update, by the names in ``ipd.runs.metrics.GLOSSARY``."""


class Spec(NamedTuple):
    """Sizes a network needs to know."""

    observation_size: int
    action_size: int
    max_episode_steps: int
    """Steps after which an episode is cut; also the number of timestep embeddings."""


class Steps(NamedTuple):
    """Logged or imagined steps in learner's units, one row a step, episodes one after another."""

    observations: Float[Array, "steps obs"]
    actions: Float[Array, "steps act"]
    rewards: Float[Array, "steps"]
    next_observations: Float[Array, "steps obs"]
    terminated: Float[Array, "steps"]
    """1 where the task ended (value of what follows is 0); 0 at a time limit."""


class Prediction(NamedTuple):
    """What a world model says of one pair (s, a), or of a batch of them, in learner's units."""

    next_observation: Float[Array, "*batch obs"]
    reward: Float[Array, "*batch"]
    terminated: Float[Array, "*batch"]
    """1 where the imagined step ends the episode."""
    uncertainty: Float[Array, "*batch"]
    """U(s, a), Eq. 8."""


class Segment(NamedTuple):
    """An imagined stretch of steps from one logged state (Eq. 23), padded to ``imagine_steps``.

    Shapes are those of a batch of segments.
    """

    observations: Float[Array, "batch time obs"]
    actions: Float[Array, "batch time act"]
    rewards: Float[Array, "batch time"]
    next_observations: Float[Array, "batch time obs"]
    terminated: Float[Array, "batch time"]
    uncertainty: Float[Array, "batch time"]
    valid: Bool[Array, "batch time"]
    """False from the first step that was unreliable or came after a termination."""


class Window(NamedTuple):
    """A context of the sequence policy: ``context_len`` steps, oldest first, padded on the left."""

    observations: Float[Array, "batch context obs"]
    actions: Float[Array, "batch context act"]
    prompts: Float[Array, "batch context"]
    timesteps: Int[Array, "batch context"]
    """Step within the episode, 0-based."""
    present: Bool[Array, "batch context"]
    """False on padding: never attended to."""
    target: Float[Array, "batch context"]
    """Weight of each position in the loss; 0 where the action is only context."""


PredictFn = Callable[[Float[Array, "batch obs"], Float[Array, "batch act"]], Prediction]
ValueFn = Callable[[Float[Array, "batch obs"]], Float[Array, "batch"]]
PolicyFn = Callable[[Float[Array, "batch obs"], Float[Array, "batch act"]], Float[Array, "batch act"]]
"""Action for an observation and standard normal noise (zero noise: the mean action)."""
