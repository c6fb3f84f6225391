"""ReBRAC (Tarasov et al., 2023, arXiv:2305.09836): TD3+BC with a penalty of its own for actor and critic.

With the slow policy pi' and slow critics Q'_i, clipped noise n, the logged action a and, where the
episode goes on in the data, the logged next action b:

    a'    = clip(pi'(s') + n, -1, 1)
    y     = r + gamma (1 - terminated) (min_i Q'_i(s', a') - beta_2 |a' - b|^2)
    J_Q   = sum_i mean (Q_i(s, a) - y)^2
    J_pi  = mean beta_1 |pi(s) - a|^2 - lambda min_i Q_i(s, pi(s)),   lambda = 1 / mean |min_i Q_i|

lambda is no function of pi in the gradient; squared distances are sums over action dimensions. The
critics have LayerNorm. The policy and all slow copies move at every `policy_delay`-th update.

beta_2 belongs to logged rewards, so it is multiplied by the scale of the learner's rewards. Departures
from the public code: observations are normalised; LayerNorm comes before ReLU, not after; no special
start of the last layers; the last step of an episode, which has no logged next action, is kept with
beta_2 = 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ipd.baseline_config import ReBRACConfig
from ipd.baselines.actor_critic import NUM_CRITICS, act, begin
from ipd.baselines.material import Constants, Material, on_device
from ipd.maths.losses import td_target
from ipd.nn.mlp import MLP, PRNG
from ipd.types import Metrics, Spec, Steps
from ipd.value.networks import Critics

__all__ = ["DATA_AXES", "State", "act", "begin", "draw", "init", "prepare", "update"]

DATA_AXES = None


class DeterministicPolicy(eqx.Module):
    """tanh of an MLP."""

    net: MLP

    def mode(self, observation: Float[Array, "obs"]) -> Float[Array, "act"]:
        """The action, in [-1, 1]."""
        return jnp.tanh(self.net(observation))


class Data(NamedTuple):
    """Logged steps, all of them or a batch; every leaf has them on its first axis."""

    steps: Steps
    next_actions: Float[Array, "steps act"]
    """Logged action of the step after; anything where the episode ends."""
    penalty: Float[Array, "steps"]
    """beta_2 in scaled reward units; 0 where the episode ends."""


class State(NamedTuple):
    """Everything the learner knows, for one seed."""

    policy: DeterministicPolicy
    target_policy: DeterministicPolicy
    critics: Critics
    target_critics: Critics
    policy_optimiser: Any
    critics_optimiser: Any
    step: Int[Array, ""]


def prepare(config: ReBRACConfig, material: Material) -> tuple[Data, Constants]:
    """All logged steps, with the action after each."""
    steps = material.steps
    weight = np.full(len(steps.rewards), config.critic_penalty * material.reward_scale, np.float32)
    weight[material.starts[1:] - 1] = 0.0
    next_actions = np.roll(np.asarray(steps.actions), -1, axis=0)
    return Data(on_device(steps), jnp.asarray(next_actions), jnp.asarray(weight)), {}


def init(config: ReBRACConfig, spec: Spec, key: PRNG) -> State:
    """Fresh state; the slow networks start as copies."""
    policy_key, critics_key = jax.random.split(key)
    obs, act_size = spec.observation_size, spec.action_size
    policy = DeterministicPolicy(MLP(obs, config.hidden, act_size, policy_key))
    critics = Critics(obs, act_size, config.hidden, NUM_CRITICS, critics_key, layer_norm=True)
    return State(
        policy,
        jax.tree.map(jnp.copy, policy),
        critics,
        jax.tree.map(jnp.copy, critics),
        optax.adam(config.actor_learning_rate).init(policy),
        optax.adam(config.critic_learning_rate).init(critics),
        jnp.asarray(0),
    )


def draw(config: ReBRACConfig, data: Data, key: PRNG) -> Data:
    """A batch of logged steps, uniformly with replacement."""
    rows = jax.random.randint(key, (config.batch_size,), 0, data.penalty.shape[0])
    return jax.tree.map(lambda leaf: leaf[rows], data)


def critic_target(
    config: ReBRACConfig, state: State, batch: Data, noise: Float[Array, "batch act"]
) -> Float[Array, "batch"]:
    """y of the module's docstring; ``noise`` is standard normal."""
    steps = batch.steps
    smoothing = jnp.clip(config.target_noise * noise, -config.noise_clip, config.noise_clip)
    next_actions = jnp.clip(jax.vmap(state.target_policy.mode)(steps.next_observations) + smoothing, -1, 1)
    next_q = jax.vmap(state.target_critics)(steps.next_observations, next_actions).min(axis=1)
    distance = ((next_actions - batch.next_actions) ** 2).sum(axis=1)
    return td_target(steps.rewards, steps.terminated, next_q - batch.penalty * distance, config.discount)


def policy_loss(
    config: ReBRACConfig, policy: DeterministicPolicy, critics: Critics, batch: Steps
) -> tuple[Float[Array, ""], Metrics]:
    """J_pi of the module's docstring."""
    actions = jax.vmap(policy.mode)(batch.observations)
    q = jax.vmap(critics)(batch.observations, actions).min(axis=1)
    distance = ((actions - batch.actions) ** 2).sum(axis=1)
    q_weight = jax.lax.stop_gradient(1.0 / jnp.abs(q).mean())
    loss = (config.actor_penalty * distance - q_weight * q).mean()
    return loss, {"q_policy": q.mean(), "action_error": distance.mean() / actions.shape[1]}


def update(config: ReBRACConfig, state: State, batch: Data, key: PRNG) -> tuple[State, Metrics]:
    """One update of the critics; at every `policy_delay`-th, of the policy and the slow networks too."""
    steps = batch.steps
    target = critic_target(config, state, batch, jax.random.normal(key, steps.actions.shape))

    def critics_loss(critics: Critics) -> tuple[Array, Array]:
        q = jax.vmap(critics)(steps.observations, steps.actions)
        return ((q - target[:, None]) ** 2).mean(axis=0).sum(), q.mean()

    (error, q_mean), grads = jax.value_and_grad(critics_loss, has_aux=True)(state.critics)
    change, critics_optimiser = optax.adam(config.critic_learning_rate).update(grads, state.critics_optimiser)
    critics = optax.apply_updates(state.critics, change)

    grads, metrics = jax.grad(
        lambda policy: policy_loss(config, policy, critics, steps), has_aux=True
    )(state.policy)  # fmt: skip
    change, policy_optimiser = optax.adam(config.actor_learning_rate).update(grads, state.policy_optimiser)
    policy = optax.apply_updates(state.policy, change)
    moved = (
        policy,
        policy_optimiser,
        optax.incremental_update(policy, state.target_policy, config.polyak),
        optax.incremental_update(critics, state.target_critics, config.polyak),
    )
    kept = (state.policy, state.policy_optimiser, state.target_policy, state.target_critics)
    step = state.step + 1
    # with seeds side by side both branches of a conditional would be computed anyway
    moves = step % config.policy_delay == 0
    policy, policy_optimiser, target_policy, target_critics = jax.tree.map(
        lambda new, old: jnp.where(moves, new, old), moved, kept
    )
    state = State(
        policy, target_policy, critics, target_critics, policy_optimiser, critics_optimiser, step
    )  # fmt: skip
    return state, metrics | {"critic_loss": error, "q_mean": q_mean}
