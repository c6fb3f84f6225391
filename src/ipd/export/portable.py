"""A finished policy as what every format is made of: named arrays, one step in JAX, an empty memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from ipd.baselines.dt import ReturnPolicy
from ipd.baselines.material import Constants
from ipd.baselines.rebrac import DeterministicPolicy
from ipd.baselines.reinformer import MaxReturnTransformer
from ipd.baselines.sequences import TokenTransformer
from ipd.config import Algo
from ipd.data.episodes import Normaliser
from ipd.nn.mlp import PRNG
from ipd.policy.act import Context, Controller, Driver, Memory, act, action_range, widened
from ipd.policy.model import SequencePolicy
from ipd.runs import judging, learning, opened
from ipd.runs.algorithms import ALGORITHMS, Algorithm
from ipd.runs.checkpoint import named_leaves
from ipd.runs.context import Run, unstack
from ipd.runs.errors import InputError
from ipd.types import Spec
from ipd.value.networks import GaussianPolicy, SquashedGaussianPolicy

YARDSTICKS: dict[str, Algo] = {"quasi_optimal": "iql", "quasi_optimal_refitted": "iql", "cloning": "bc"}
"""Policies beside IPD in its runs, and the algorithm that each is."""

Blank = dict[str, NDArray[Any]]
Step = Callable[[Array, dict[str, Array]], tuple[Array, dict[str, Array]]]


class Portable(NamedTuple):
    """One policy of one seed."""

    name: str
    """As in evaluations.csv."""
    arrays: dict[str, NDArray[np.float32]]
    """Weights, normaliser and prompt scale by name; without weights where `network` is "unknown"."""
    network: dict[str, Any]
    """What is to be known of the network beside its arrays. Its `kind` is "mlp", "sequence" (graphs that
    ONNX and plain arrays have) or "unknown": such a policy is its `step` alone."""
    step: Step
    """(obs,) in logged units and the memory -> (act,) in logged units and the new memory. Observation,
    reward and action are float32, the rest float64, as in `Controller`: runs under `jax.enable_x64`."""
    blank: Blank
    """The memory before an episode; empty for a policy without memory. `reward` in it is the logged reward
    of the step before, where the policy wants to be told."""
    controller: Controller
    """Who acts in the run itself."""
    constants: Constants
    """What the policy was given of the data, learner's units."""


def portable(run: Run, row: slice, name: str | None = None) -> Portable:
    """The policy `name` (None: the one that the run is for) of the seed in `row`.

    Raises `InputError` for a policy that the run does not have.
    """
    algo = run.config.algo
    name = name or algo
    if name == "ipd" == algo:
        values = opened.guide_of(run, learning.value(run))
        state = opened.policy_of(run, values).state
        acting = judging.controller(run, values, state, row)
        driver = unstack(judging.drivers(run, values, state), row.start)
        return of_sequence(driver, run.config.policy.context_len, run.normaliser, acting)
    there: dict[str, Algo] = YARDSTICKS if algo == "ipd" else {algo: algo}
    if name not in there:
        has = ", ".join(("ipd", *there) if algo == "ipd" else there)
        raise InputError(f"{run.folder}: a run of {algo} has no policy {name!r}; export one of {has}")
    algorithm = ALGORITHMS[there[name]]
    state = _state(run, name)
    told = run.summary(algorithm.stage)["constants"]
    constants = {key: jnp.asarray(each[row.start], jnp.float32) for key, each in told.items()}
    made = Acting(
        algorithm, getattr(run.config, algorithm.stage), unstack(state, row.start), constants, run.spec
    )
    return of_baseline(name, made, run.normaliser, judging.acting(run, there[name], state, row))


def _state(run: Run, name: str) -> Any:
    if name == "cloning":
        return learning.cloning(run).state
    if name == "quasi_optimal":
        return learning.value(run).state
    if name != "quasi_optimal_refitted":
        return learning.baseline(run, name).state
    if not learning.refits(run.config):
        raise InputError(f"{run.folder}: no values were refitted; export quasi_optimal")
    return opened.guide_of(run, learning.value(run)).state


def of_sequence(driver: Driver, context: int, normaliser: Normaliser, controller: Controller) -> Portable:
    """IPD's policy: prompt V(s) / scale, Transformer, action."""
    policy, value = driver.policy, driver.value
    arrays = {name.removeprefix("transformer/"): leaf for name, leaf in named_leaves(policy).items()}
    arrays |= {f"value/{name}": leaf for name, leaf in named_leaves(value.net.layers).items()}
    arrays["prompt_scale"] = driver.prompt_scale
    observation_size, action_size = policy.embed_observation.weight.shape[0], policy.head.weight.shape[1]
    network = _sequence(policy, ("prompt", "observation", "action")) | {"prompt": "value"}
    blank: Blank = {
        "observations": np.zeros((context, observation_size)),
        "actions": np.zeros((context, action_size)),
        "prompts": np.zeros(context),
        "timesteps": np.zeros(context, np.int32),
        "present": np.zeros(context, bool),
        "time": np.zeros((), np.int32),
    }

    def acting(
        normal: Float[Array, "obs"], memory: dict[str, Array]
    ) -> tuple[Float[Array, "act"], dict[str, Array]]:
        seen = Context(*(memory[name] for name in Context._fields))
        nothing, key = jnp.zeros(()), _key(memory["time"])  # only re-ranking draws
        action, after = act(widened(driver), Memory(seen, memory["time"], nothing), normal, nothing, key)
        return action, after.context._asdict() | {"time": after.time}

    arrays = _with(arrays, normaliser)
    return Portable("ipd", arrays, network, _in_logged_units(acting, normaliser), blank, controller, {})


class Acting(NamedTuple):
    """A trained baseline of one seed."""

    algorithm: Algorithm
    config: Any
    state: Any
    constants: Constants
    spec: Spec


def of_baseline(name: str, made: Acting, normaliser: Normaliser, controller: Controller) -> Portable:
    """Any algorithm: its `act`, the memory's arrays by name, and its network where that is a known one."""
    module, reads = made.algorithm.module, made.algorithm.reads
    first = module.begin(made.config, made.spec, made.constants)
    # what was asked for at each step has one name for all policies
    names = [each.replace("returns", "prompts") for each in named_leaves(first)]
    blank = {name: _wide(leaf) for name, leaf in zip(names, jax.tree.leaves(first), strict=True)}
    if "key" in reads:
        blank["time"] = np.zeros((), np.int32)
    if "reward" in reads:
        blank["reward"] = np.zeros((), np.float32)

    def acting(
        normal: Float[Array, "obs"], memory: dict[str, Array]
    ) -> tuple[Float[Array, "act"], dict[str, Array]]:
        kept = jax.tree.unflatten(jax.tree.structure(first), [memory[each] for each in names])
        reward = memory.get("reward", jnp.zeros(())).astype(jnp.float64) * normaliser.reward_scale
        time = memory.get("time", jnp.zeros((), jnp.int32))
        actor = widened((made.state, made.constants))
        action, kept = module.act(made.config, *actor, kept, normal, reward, _key(time))
        after = dict(zip(names, jax.tree.leaves(kept), strict=True))
        told = {"time": time + 1, "reward": jnp.zeros((), jnp.float32)}
        return action, after | {each: told[each] for each in memory if each in told}

    arrays, network = _known(made, normaliser)
    step = _in_logged_units(acting, normaliser)
    return Portable(name, _with(arrays, normaliser), network, step, blank, controller, made.constants)


def _key(time: Array) -> PRNG:
    """What `Controller` gives the one row of one seed."""
    return jax.random.split(jax.random.fold_in(jax.random.PRNGKey(0), time), (1, 1))[0, 0]


def _known(made: Acting, normaliser: Normaliser) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and description of the network that acts, if graphs are known for it."""
    network = made.state.acting if hasattr(made.state, "acting") else made.state.policy
    match network:
        case GaussianPolicy() | DeterministicPolicy() | SquashedGaussianPolicy():
            arrays = {f"policy/{name}": leaf for name, leaf in named_leaves(network.net.layers).items()}
            last = f"policy/{len(network.net.layers) - 1}"
            for name in (f"{last}/weight", f"{last}/bias"):
                arrays[name] = arrays[name][..., : made.spec.action_size]  # the mean; behind it log std
            return arrays, {"kind": "mlp"}
        case ReturnPolicy():
            arrays, described = _trunk(network.trunk, ("prompt", "observation", "action"))
            arrays |= {f"head/{name}": leaf for name, leaf in named_leaves(network.head).items()}
            arrays["return_scale"] = made.constants["return_scale"]
            return arrays, described | {"prompt": "counted"}
        case MaxReturnTransformer():
            arrays, described = _trunk(network.trunk, ("observation", "prompt", "action"))
            arrays |= {f"head/{name}": leaf for name, leaf in named_leaves(network.head_mean).items()}
            told = named_leaves(network.head_return)
            arrays |= {f"head_prompt/{name}": leaf for name, leaf in told.items()}
            arrays["rise"] = made.constants["rise"] if made.config.bounded else np.inf
            return arrays, described | {"prompt": "predicted"}
    return {}, {"kind": "unknown"}


def _trunk(trunk: TokenTransformer, streams: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    arrays = {"embed_timestep": trunk.embed_timestep} | named_leaves(trunk.transformer)
    for stream, layer in zip(streams, trunk.embed, strict=True):
        arrays |= {f"embed_{stream}/{name}": leaf for name, leaf in named_leaves(layer).items()}
    return arrays, _sequence(trunk, streams)


def _sequence(policy: SequencePolicy | TokenTransformer, streams: tuple[str, ...]) -> dict[str, Any]:
    """A Transformer over the tokens of `streams`, in that order at each step; the last but one acts."""
    return {
        "kind": "sequence",
        "streams": list(streams),
        "layers": len(policy.transformer.blocks),
        "heads": policy.transformer.blocks[0].heads,
        "time": policy.time,
        "epsilon": policy.transformer.norm_in.eps,
    }


def _with(arrays: dict[str, Any], normaliser: Normaliser) -> dict[str, NDArray[np.float32]]:
    """Float32 copies of the weights, and both halves of the bridge between the units."""
    half, centre = action_range(normaliser)
    bridge = {
        "observation_mean": normaliser.observation_mean,
        "observation_std": normaliser.observation_std,
        "action_low": normaliser.action_low,
        "action_high": normaliser.action_high,
        "action_half": half,
        "action_centre": centre,
        "reward_scale": normaliser.reward_scale,
    }
    return {name: np.array(leaf, np.float32) for name, leaf in (arrays | bridge).items()}


def _wide(leaf: Array) -> NDArray[Any]:
    return np.array(leaf, np.float64 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)


def _in_logged_units(
    acting: Callable[[Array, dict[str, Array]], tuple[Array, dict[str, Array]]], normaliser: Normaliser
) -> Callable[[Array, dict[str, Array]], tuple[Array, dict[str, Array]]]:
    mean, std, low, high, _ = normaliser
    half, centre = action_range(normaliser)

    def step(observation: Array, memory: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        action, after = acting((observation.astype(jnp.float64) - mean) / std, memory)
        return jnp.clip(action * half + centre, low, high).astype(jnp.float32), after

    return step
