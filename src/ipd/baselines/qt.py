"""QT, the Q-value regularised Transformer (Hu et al., 2024), with the critics it learns beside itself.

A causal Transformer over (R_t, s_t, a_t): the action is read from the token of s_t, the next observation
from that of a_t. An update moves first the critics, then the policy, then the targets:

    critics  sum over both of (Q_i(s_t, a_t) - y_t)^2, mean over the steps present in the window, with
             y_t = sum_{k=t..e} gamma^(k-t) r_k + gamma^(e+1-t) (1 - terminated_e) min_i Q'_i(s_{e+1}, a')
    policy   (pi - a)^2 + (s' predicted - s')^2 - eta * mean Q_i(s, pi) / mean |Q_j(s, pi)|

e is the window's last step, for every t of it. a' is the newest action of the policy's running average on
the window moved on by one step, to s_{e+1} and the return left there: the context that acting would have.
A truncation bootstraps (nothing is left to ask for there, as R counts), a termination does not. i and j
are the two critics, swapped by a fair coin at each update; the divisor is detached.

In use the same history is read with different returns: the target and half of it, less the rewards
earned, in equal numbers, and once more with half's newest return replaced by min Q'(s, a) - r of the
step before. One of their actions is drawn in proportion to exp(min Q') in logged reward units.

Departures from the published code:
- There y_t bootstraps from the window's last observation, under that step's terminal mark; here from the
  observation after it, so that the last reward counts too.
- Contexts that ask for the same thing are computed once, and drawn with their number as a weight: the
  same distribution. Targets are two for every task (there three for some), so that none of
  `candidates` is left over for a random return, as with two targets there.
- What Q promises enters as a return in the unit of all returns; there Q's raw reward unit was kept.
- Scaled rewards in the critics; ReLU in place of Mish; decoupled weight decay; a constant learning rate
  (there a cosine that sank by a tenth in 100,000 updates); and those of ``dt``'s windows and blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ipd.baseline_config import QTConfig
from ipd.baselines import sequences
from ipd.baselines.material import Constants, Material
from ipd.baselines.sequences import Context, Logged, TokenTransformer, Window, step_mean
from ipd.maths.returns import reward_to_go
from ipd.nn.mlp import PRNG, Linear
from ipd.types import Metrics, Spec
from ipd.value.networks import Critics

DATA_AXES = None
"""The logged steps are the same for every seed."""


class Policy(eqx.Module):
    """Action and predicted next observation at every step of one window."""

    trunk: TokenTransformer
    action_head: Linear
    observation_head: Linear

    def __init__(self, config: QTConfig, spec: Spec, key: PRNG):
        a, b, c = jax.random.split(key, 3)
        self.trunk = TokenTransformer(config, spec, (1, spec.observation_size, spec.action_size), a)
        self.action_head = Linear(config.width, spec.action_size, b)
        self.observation_head = Linear(config.width, spec.observation_size, c)

    def __call__(
        self, window: Window | Context, dropout: float = 0.0, key: PRNG | None = None
    ) -> tuple[Float[Array, "context act"], Float[Array, "context obs"]]:
        """Actions in [-1, 1] and next observations; steps that are not present carry no meaning."""
        streams = (window.returns, window.observations, window.actions)
        hidden = self.trunk(streams, window.timesteps, window.present, dropout, key)
        actions = jnp.tanh(self.action_head(hidden[:, 1]))
        return actions, self.observation_head(hidden[:, 2])


class State(NamedTuple):
    """Everything QT knows, for one seed."""

    policy: sequences.State
    target_policy: Policy
    """Running average of the policy, for the next action of the critics' target and nothing else."""
    critics: Critics
    target_critics: Critics
    critics_optimiser: Any


class Batch(NamedTuple):
    """Windows, and what they leave to be asked for."""

    window: Window
    next_returns: Float[Array, "batch"]
    """Return-to-go behind the last step, 0 behind an episode's end; in units of ``return_scale``."""


def prepare(config: QTConfig, material: Material) -> tuple[Logged, Constants]:
    """Logged steps with their returns-to-go; ``return_scale``, ``target`` and ``reward_scale``."""
    logged, constants = sequences.prepare(material, config.target)
    return logged, constants | {"reward_scale": material.reward_scale}


def _critics_optimiser(config: QTConfig) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(config.critic_learning_rate))


def init(config: QTConfig, spec: Spec, key: PRNG) -> State:
    """Fresh policy and critics; the targets start as their copies."""
    a, b = jax.random.split(key)
    policy = Policy(config, spec, a)
    critics = Critics(spec.observation_size, spec.action_size, config.hidden, 2, b)
    return State(
        sequences.fresh(config, policy),
        jax.tree.map(jnp.copy, policy),
        critics,
        jax.tree.map(jnp.copy, critics),
        _critics_optimiser(config).init(critics),
    )


def draw(config: QTConfig, data: Logged, key: PRNG) -> Batch:
    """Windows that end at steps drawn uniformly."""
    rows = sequences.draw_rows(config, data, key)
    after = jnp.minimum(rows + 1, data.returns.shape[0] - 1)
    goes_on = data.timesteps[after] == data.timesteps[rows] + 1
    return Batch(
        sequences.windows(data, rows, config.context_len), jnp.where(goes_on, data.returns[after], 0.0)
    )


def critic_targets(
    config: QTConfig, target_policy: Policy, target_critics: Critics, batch: Batch
) -> Float[Array, "batch context"]:
    """y_t of every step of every window, scaled reward units."""

    def one(window: Window, next_return: Float[Array, ""]) -> Float[Array, "context"]:
        seen = Context(window.observations, window.actions, window.returns, window.timesteps, window.present)
        after = sequences.push(seen, window.next_observations[-1], next_return)
        action = target_policy(after)[0][-1]
        behind = (1.0 - window.terminated[-1]) * target_critics(after.observations[-1], action).min()
        last = jnp.arange(config.context_len) == config.context_len - 1
        return reward_to_go(window.rewards, last, jnp.where(last, behind, 0.0), config.discount)

    return jax.vmap(one)(batch.window, batch.next_returns)


def policy_loss(
    config: QTConfig, policy: Policy, critics: Critics, window: Window, key: PRNG
) -> tuple[Float[Array, ""], Metrics]:
    """The policy's loss on a batch of windows, and its parts."""
    coin, dropout = jax.random.split(key)
    keys = jax.random.split(dropout, window.returns.shape[0])
    actions, following = jax.vmap(lambda w, k: policy(w, config.dropout, k))(window, keys)

    action_error = step_mean(window, ((actions - window.actions) ** 2).mean(-1))
    observation_error = step_mean(window, ((following - window.next_observations) ** 2).mean(-1))
    q = jax.vmap(jax.vmap(critics))(window.observations, actions)
    first = jax.random.bernoulli(coin).astype(int)
    scale = jax.lax.stop_gradient(step_mean(window, jnp.abs(q[..., 1 - first]))) + 1e-6
    loss = action_error + observation_error - config.q_weight * step_mean(window, q[..., first]) / scale
    logged_q = jax.vmap(jax.vmap(critics))(window.observations, window.actions)
    metrics = {
        "policy_loss": loss,
        "action_error": action_error,
        "observation_error": observation_error,
        "q_gain": step_mean(window, q.min(-1) - logged_q.min(-1)),
        "q_mean": step_mean(window, logged_q.mean(-1)),
    }
    return loss, metrics


def update(config: QTConfig, state: State, batch: Batch, key: PRNG) -> tuple[State, Metrics]:
    """One step of the critics, one of the policy, then the targets."""
    window = batch.window
    targets = critic_targets(config, state.target_policy, state.target_critics, batch)

    def critics_loss(critics: Critics) -> Array:
        q = jax.vmap(jax.vmap(critics))(window.observations, window.actions)
        return step_mean(window, ((q - targets[..., None]) ** 2).sum(-1))

    critic_loss, grads = jax.value_and_grad(critics_loss)(state.critics)
    steps, critics_optimiser = _critics_optimiser(config).update(grads, state.critics_optimiser)
    critics = optax.apply_updates(state.critics, steps)

    grads, metrics = jax.grad(lambda p: policy_loss(config, p, critics, window, key), has_aux=True)(
        state.policy.model
    )
    policy, more = sequences.descend(config, state.policy, grads)

    share = jnp.where(policy.step < config.target_average_start, 1.0, 1.0 - config.target_average)
    share = jnp.where(policy.step % config.target_average_every == 0, share, 0.0)
    state = State(
        policy,
        optax.incremental_update(policy.model, state.target_policy, share),
        critics,
        optax.incremental_update(critics, state.target_critics, config.polyak),
        critics_optimiser,
    )
    return state, metrics | more | {"critic_loss": critic_loss}


def begin(config: QTConfig, spec: Spec, constants: Constants) -> Context:
    """No steps yet, the whole target still to come."""
    return sequences.empty(config, spec, constants["target"])


def act(
    config: QTConfig,
    state: State,
    constants: Constants,
    memory: Context,
    observation: Float[Array, "obs"],
    reward: Float[Array, ""],
    key: PRNG,
) -> tuple[Float[Array, "act"], Context]:
    """An action drawn by Q among those that the policy gives for different returns."""
    smallest_q = lambda s, a: state.target_critics(s, a).min()  # noqa: E731
    scale, target = constants["return_scale"], constants["target"]
    promised = (smallest_q(memory.observations[-1], memory.actions[-1]) - reward) / scale
    first_step = ~memory.present[-1]
    memory = sequences.push(memory, observation, memory.returns[-1] - reward / scale)

    # rewards come off both targets alike, so that half of the target stays half of it behind
    half = memory.returns - 0.5 * target
    by_critics = half.at[-1].set(jnp.where(first_step, half[-1], promised))
    asked = jnp.stack([memory.returns, half, by_critics])
    number = config.candidates // 2
    copies = jnp.asarray([config.candidates - number, number - 1, 1])

    actions = jax.vmap(lambda returns: state.policy.acting(memory._replace(returns=returns))[0][-1])(asked)
    q = jax.vmap(lambda action: smallest_q(observation, action))(actions) / constants["reward_scale"]
    action = actions[jax.random.categorical(key, q + jnp.log(copies))]
    return action, sequences.chosen(memory, action)
