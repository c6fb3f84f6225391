"""The sequence policy of Eq. 26: a causal Transformer over (prompt, observation, action) tokens."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ipd.config import PolicyConfig
from ipd.nn.mlp import PRNG, Linear
from ipd.nn.transformer import Transformer
from ipd.types import Spec


class SequencePolicy(eqx.Module):
    """Maps one window (``types.Window`` without its batch axis) to an action at every position.

    Tokens are interleaved (prompt_0, s_0, a_0, prompt_1, ...); the action of position t is read
    from its observation token, which sees prompt_t and s_t but not a_t.
    """

    embed_prompt: Linear
    embed_observation: Linear
    embed_action: Linear
    embed_timestep: Float[Array, "timesteps width"]
    transformer: Transformer
    head: Linear
    time: Literal["episode", "window"] = eqx.field(static=True)

    def __init__(self, config: PolicyConfig, spec: Spec, key: PRNG):
        keys = jax.random.split(key, 6)
        self.embed_prompt = Linear(1, config.width, keys[0])
        self.embed_observation = Linear(spec.observation_size, config.width, keys[1])
        self.embed_action = Linear(spec.action_size, config.width, keys[2])
        steps = spec.max_episode_steps if config.time == "episode" else config.context_len
        self.embed_timestep = 0.02 * jax.random.normal(keys[3], (steps, config.width))
        self.time = config.time
        self.transformer = Transformer(config.width, config.layers, config.heads, keys[4])
        self.head = Linear(config.width, spec.action_size, keys[5])

    def __call__(
        self,
        prompts: Float[Array, "context"],
        observations: Float[Array, "context obs"],
        actions: Float[Array, "context act"],
        timesteps: Int[Array, "context"],
        present: Bool[Array, "context"],
        dropout: float = 0.0,
        key: PRNG | None = None,
        half: bool = False,
    ) -> Float[Array, "context act"]:
        """Deterministic actions in [-1, 1]; rows that are not ``present`` carry no meaning.

        ``half``: the Transformer's products in bfloat16.
        """
        tokens = self._tokens(prompts, observations, actions, timesteps)
        hidden = self.transformer(tokens, jnp.repeat(present, 3), dropout, key, half)
        return jnp.tanh(self.head(hidden.reshape(present.shape[0], 3, -1)[:, 1]))

    def newest(
        self,
        prompts: Float[Array, "context"],
        observations: Float[Array, "context obs"],
        actions: Float[Array, "context act"],
        timesteps: Int[Array, "context"],
        present: Bool[Array, "context"],
    ) -> Float[Array, "act"]:
        """The last row of ``__call__`` without dropout; the action in the last place is not looked at."""
        tokens = self._tokens(prompts, observations, actions, timesteps)[:-1]
        return jnp.tanh(self.head(self.transformer.newest(tokens, jnp.repeat(present, 3)[:-1])))

    def _tokens(self, prompts: Array, observations: Array, actions: Array, timesteps: Array) -> Array:
        """Interleaved, ``(3 context, width)``."""
        # steps that few logged episodes reach have embeddings that nothing ever trained
        time = self.embed_timestep[timesteps] if self.time == "episode" else self.embed_timestep
        tokens = jnp.stack(
            [
                self.embed_prompt(prompts[:, None]) + time,
                self.embed_observation(observations) + time,
                self.embed_action(actions) + time,
            ],
            axis=1,
        )
        return tokens.reshape(-1, tokens.shape[-1])
