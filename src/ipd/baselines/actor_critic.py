"""What the actor-critic baselines share: soft actor-critic's policy step, slow critics, acting.

Soft actor-critic with an automatic temperature (Haarnoja et al., 2018, arXiv:1812.05905). With
a ~ pi(s), two critics Q_i and the temperature alpha:

    J_pi     = mean alpha log pi(a | s) - min_i Q_i(s, a)                       (their Eqs. 7 to 9)
    J_alpha  = mean -alpha (log pi(a | s) + target entropy)                     (Eq. 18)

with a target entropy of minus the number of action dimensions; the step of J_alpha is taken on
log alpha. What the critics regress on is each baseline's own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ipd.baseline_config import ActorCriticConfig
from ipd.baselines.material import Constants
from ipd.nn.mlp import PRNG
from ipd.types import Metrics, Spec, Steps
from ipd.value.networks import Critics, SquashedGaussianPolicy

NUM_CRITICS = 2


class State(NamedTuple):
    """Everything a soft actor-critic knows, for one seed."""

    policy: SquashedGaussianPolicy
    critics: Critics
    target_critics: Critics
    log_alpha: Float[Array, ""]
    policy_optimiser: Any
    critics_optimiser: Any
    alpha_optimiser: Any
    step: Int[Array, ""]


def init(config: ActorCriticConfig, spec: Spec, key: PRNG) -> State:
    """Fresh state; the slow critics start as copies, the temperature at 1."""
    policy_key, critics_key = jax.random.split(key)
    obs, act = spec.observation_size, spec.action_size
    policy = SquashedGaussianPolicy(obs, act, config.hidden, policy_key)
    critics = Critics(obs, act, config.hidden, NUM_CRITICS, critics_key)
    log_alpha = jnp.asarray(0.0, jnp.float32)
    policy_adam = optax.adam(config.actor_learning_rate)
    return State(
        policy,
        critics,
        jax.tree.map(jnp.copy, critics),
        log_alpha,
        policy_adam.init(policy),
        optax.adam(config.critic_learning_rate).init(critics),
        policy_adam.init(log_alpha),
        jnp.asarray(0),
    )


def draw_rows(count: int, steps: Steps, key: PRNG) -> Steps:
    """``count`` logged steps, uniformly with replacement."""
    rows = jax.random.randint(key, (count,), 0, steps.rewards.shape[0])
    return jax.tree.map(lambda leaf: leaf[rows], steps)


def sample(
    policy: SquashedGaussianPolicy, observations: Float[Array, "batch obs"], key: PRNG, count: int = 1
) -> tuple[Float[Array, "batch count act"], Float[Array, "batch count"]]:
    """``count`` actions of the policy at each observation, and their log-densities."""
    noise = jax.random.normal(key, (observations.shape[0], count, policy.action_size))
    return jax.vmap(policy.sample)(observations, noise)


def q_values(
    critics: Critics, observations: Float[Array, "batch obs"], actions: Float[Array, "batch count act"]
) -> Float[Array, "batch count critics"]:
    """Q of every critic for several actions at each observation, in one product a layer."""
    batch, count, _ = actions.shape
    q = jax.vmap(critics)(jnp.repeat(observations, count, axis=0), actions.reshape(batch * count, -1))
    return q.reshape(batch, count, -1)


def next_value(
    state: State, next_observations: Float[Array, "batch obs"], key: PRNG
) -> Float[Array, "batch"]:
    """min_i Q'_i(s', a') of the slow critics for one a' ~ pi(s'), without an entropy bonus."""
    next_actions, _ = sample(state.policy, next_observations, key)
    return q_values(state.target_critics, next_observations, next_actions)[:, 0].min(axis=1)


def improve_policy(
    config: ActorCriticConfig, state: State, observations: Float[Array, "batch obs"], key: PRNG
) -> tuple[State, Metrics]:
    """One step of Adam on J_pi, and one on J_alpha with the entropy seen there."""
    adam = optax.adam(config.actor_learning_rate)
    alpha = jnp.exp(state.log_alpha)

    def loss(policy: SquashedGaussianPolicy) -> tuple[Array, tuple[Array, Array]]:
        actions, log_probs = sample(policy, observations, key)
        q, entropy = q_values(state.critics, observations, actions).min(-1).mean(), -log_probs.mean()
        return -alpha * entropy - q, (q, entropy)

    grads, (q, entropy) = jax.grad(loss, has_aux=True)(state.policy)
    steps, policy_optimiser = adam.update(grads, state.policy_optimiser)
    # d/d(log alpha) of J_alpha: the temperature rises where the entropy is below its target
    alpha_grad = alpha * (entropy + state.policy.action_size)
    alpha_step, alpha_optimiser = adam.update(alpha_grad, state.alpha_optimiser)
    state = state._replace(
        policy=optax.apply_updates(state.policy, steps),
        log_alpha=state.log_alpha + alpha_step,
        policy_optimiser=policy_optimiser,
        alpha_optimiser=alpha_optimiser,
    )
    return state, {"q_policy": q, "entropy": entropy, "temperature": alpha}


def step_critics(config: ActorCriticConfig, state: State, grads: Critics) -> State:
    """One step of Adam on the critics, then the slow critics; this ends an update."""
    steps, optimiser = optax.adam(config.critic_learning_rate).update(grads, state.critics_optimiser)
    critics = optax.apply_updates(state.critics, steps)
    return state._replace(
        critics=critics,
        target_critics=optax.incremental_update(critics, state.target_critics, config.polyak),
        critics_optimiser=optimiser,
        step=state.step + 1,
    )


def begin(config: ActorCriticConfig, spec: Spec, constants: Constants) -> tuple[()]:
    """Nothing to remember."""
    return ()


def act(
    config: ActorCriticConfig,
    state: Any,
    constants: Constants,
    memory: tuple[()],
    observation: Float[Array, "obs"],
    reward: Float[Array, ""],
    key: PRNG,
) -> tuple[Float[Array, "act"], tuple[()]]:
    """The deterministic action of the state's ``policy``."""
    return state.policy.mode(observation), memory
