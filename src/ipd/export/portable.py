"""A finished policy as what every format is made of: named arrays, one step in JAX, an empty memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from ipd.data.episodes import Normaliser
from ipd.nn.mlp import PRNG
from ipd.policy.act import Context, Controller, Driver, Memory, act
from ipd.runs import judging, learning, stages
from ipd.runs.algorithms import ALGORITHMS
from ipd.runs.checkpoint import named_leaves
from ipd.runs.context import Run, unstack
from ipd.runs.errors import InputError
from ipd.value.networks import GaussianPolicy

PLAIN = {"bc": "bc", "iql": "iql", "cloning": "bc", "quasi_optimal": "iql", "quasi_optimal_refitted": "iql"}
"""Policies that map an observation to the mean of a Gaussian, and whose network that is."""

Blank = dict[str, NDArray[Any]]


class Portable(NamedTuple):
    """One policy of one seed."""

    name: str
    """As in evaluations.csv."""
    arrays: dict[str, NDArray[np.float32]]
    """Weights, normaliser and prompt scale by name."""
    network: dict[str, Any]
    """What is to be known of the network beside its arrays."""
    step: Callable[[Array, dict[str, Array]], tuple[Array, dict[str, Array]]]
    """(obs,) in logged units and the memory -> (act,) in logged units and the new memory."""
    blank: Blank
    """The memory before an episode, zeros; empty for a policy without memory."""
    controller: Controller
    """Who acts in the run itself."""


def portable(run: Run, row: slice, name: str | None = None) -> Portable:
    """The policy `name` (None: the one that the run is for) of the seed in `row`.

    Raises `InputError` for a policy that cannot be exported, or that the run does not have.
    """
    algo = run.config.algo
    if algo == "ipd" and name in (None, "ipd"):
        values = stages.guide_of(run, learning.value(run))
        state = stages.policy_of(run, values).state
        acting = judging.controller(run, values, state, row)
        driver = unstack(judging.drivers(run, values, state), row.start)
        return of_sequence(driver, run.config.policy.context_len, run.normaliser, acting)
    name = name or algo
    allowed = [each for each in PLAIN if each not in ALGORITHMS] if algo == "ipd" else [algo]
    if name not in PLAIN or name not in allowed:
        cure = "export one of " + ", ".join(("ipd", *PLAIN)) + ", or act with ipd.load(RUN)"
        raise InputError(f"{run.folder}: policy {name} of a run of {algo} cannot be exported; {cure}")
    state = _plain_state(run, name)
    policy: GaussianPolicy = unstack(state.policy, row.start)
    return of_gaussian(name, policy, run.normaliser, judging.acting(run, PLAIN[name], state, row))


def _plain_state(run: Run, name: str) -> Any:
    if run.config.algo != "ipd":
        return learning.baseline(run, name).state
    if name == "cloning":
        return learning.cloning(run).state
    if name == "quasi_optimal":
        return learning.value(run).state
    if not learning.refits(run.config):
        raise InputError(f"{run.folder}: no values were refitted; export quasi_optimal")
    return stages.guide_of(run, learning.value(run)).state


def of_sequence(driver: Driver, context: int, normaliser: Normaliser, controller: Controller) -> Portable:
    """IPD's policy: prompt V(s) / scale, Transformer, action."""
    policy, value = driver.policy, driver.value
    arrays = {name.removeprefix("transformer/"): leaf for name, leaf in named_leaves(policy).items()}
    arrays |= {f"value/{name}": leaf for name, leaf in named_leaves(value.net.layers).items()}
    arrays["prompt_scale"] = driver.prompt_scale
    observation_size, action_size = policy.embed_observation.weight.shape[0], policy.head.weight.shape[1]
    network = {
        "kind": "sequence",
        "layers": len(policy.transformer.blocks),
        "heads": policy.transformer.blocks[0].heads,
        "time": policy.time,
        "epsilon": policy.transformer.norm_in.eps,
    }
    blank: Blank = {
        "observations": np.zeros((context, observation_size), np.float32),
        "actions": np.zeros((context, action_size), np.float32),
        "prompts": np.zeros(context, np.float32),
        "timesteps": np.zeros(context, np.int32),
        "present": np.zeros(context, bool),
        "time": np.zeros((), np.int32),
    }

    def acting(
        normal: Float[Array, "obs"], memory: dict[str, Array]
    ) -> tuple[Float[Array, "act"], dict[str, Array]]:
        seen = Context(*(memory[name] for name in Context._fields))
        nothing, key = jnp.zeros(()), _unused()
        action, after = act(driver, Memory(seen, memory["time"], nothing), normal, nothing, key)
        return action, after.context._asdict() | {"time": after.time}

    return Portable(
        "ipd", _with(arrays, normaliser), network, _in_logged_units(acting, normaliser), blank, controller
    )


def of_gaussian(
    name: str, policy: GaussianPolicy, normaliser: Normaliser, controller: Controller
) -> Portable:
    """The mean action of a Gaussian policy; no memory."""
    arrays = {f"policy/{key}": leaf for key, leaf in named_leaves(policy.net.layers).items()}

    def acting(
        normal: Float[Array, "obs"], memory: dict[str, Array]
    ) -> tuple[Float[Array, "act"], dict[str, Array]]:
        return policy.mean(normal), memory

    step = _in_logged_units(acting, normaliser)
    return Portable(name, _with(arrays, normaliser), {"kind": "gaussian"}, step, {}, controller)


def _unused() -> PRNG:
    return jax.random.PRNGKey(0)  # only re-ranking draws


def _with(arrays: dict[str, Any], normaliser: Normaliser) -> dict[str, NDArray[np.float32]]:
    """Float32 copies of the weights, and both halves of the bridge between the units."""
    low, high = normaliser.action_low, normaliser.action_high
    bridge = {
        "observation_mean": normaliser.observation_mean,
        "observation_std": normaliser.observation_std,
        "action_low": low,
        "action_high": high,
        "action_half": _half(normaliser),
        "action_centre": (high + low) / np.float32(2),
    }
    return {name: np.array(leaf, np.float32) for name, leaf in (arrays | bridge).items()}


def _half(normaliser: Normaliser) -> NDArray[np.float32]:
    half = (normaliser.action_high - normaliser.action_low) / np.float32(2)
    return np.where(half > 0, half, np.float32(1)).astype(np.float32)


def _in_logged_units(
    acting: Callable[[Array, dict[str, Array]], tuple[Array, dict[str, Array]]], normaliser: Normaliser
) -> Callable[[Array, dict[str, Array]], tuple[Array, dict[str, Array]]]:
    mean, std = jnp.asarray(normaliser.observation_mean), jnp.asarray(normaliser.observation_std)
    low, high = jnp.asarray(normaliser.action_low), jnp.asarray(normaliser.action_high)
    half, centre = jnp.asarray(_half(normaliser)), (high + low) / 2

    def step(observation: Array, memory: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        action, after = acting((observation - mean) / std, memory)
        return jnp.clip(action * half + centre, low, high), after

    return step
