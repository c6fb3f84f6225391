"""Runs an exported policy. This one file is all that is needed beside the exported folder.

    policy = Runner("folder")
    policy.reset()
    action = policy.act(observation)        # where `policy.needs_reward`: act(observation, reward)

It needs NumPy, and onnxruntime for policy.onnx or JAX for policy.stablehlo; policy.safetensors needs NumPy
alone. Observations and actions are in logged units and float32; all between them is float64. `contract.json`
says what the policy expects and which limits hold; nothing is run that is not the file it was written for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FORMAT = 3
"""Version of contract.json that this file reads."""

Row = NDArray[Any]
Memory = dict[str, NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]
Step = Callable[[Row, Memory], tuple[Row, Memory]]
"""(obs,) in logged units and the memory -> (act,) in logged units and the new memory."""


class Runner:
    """Acts for one episode at a time, in logged units.

    `contract` is what contract.json says; `observation_names` and `action_names` give the order of the
    dimensions; `needs_reward` tells a policy that counts down the return it was asked for. Raises
    `ValueError` where the policy's file is not the one of the contract, or they do not fit each other.
    """

    def __init__(self, folder: str | Path):
        try:
            self._open(Path(folder))
        except Exception as error:  # of any library that reads the policy's file
            text = f"{folder}: {type(error).__name__}: {error!s:.500}; export the policy again"
            text = str(error)[:1_000] if str(folder) in str(error) else text
            raise ValueError("".join(filter(str.isprintable, text))) from error

    def _open(self, folder: Path) -> None:
        self.contract: dict[str, Any] = _contract(folder / "contract.json")
        seen, done, limits = (self.contract[key] for key in ("observation", "action", "limits"))
        self.observation_names: tuple[str, ...] = tuple(seen["names"])
        self.action_names: tuple[str, ...] = tuple(done["names"])
        width, count = len(self.observation_names), len(self.action_names)
        keys = ("mean", "std", "data_low", "data_high")
        told = (_numbers(seen[key], width, f"observation.{key}") for key in keys)
        self._mean, std, self._data_low, self._data_high = told
        # a dimension that never changed has no width, but rounding
        beyond = np.float32(seen["margin"]) * np.maximum(self._data_high - self._data_low, std)
        self._low, self._high = self._data_low - beyond, self._data_high + beyond
        self._bounds = tuple(_numbers(done[key], count, f"action.{key}") for key in ("low", "high"))
        self._limits = tuple(_numbers(limits[key], count, f"limits.{key}") for key in ("low", "high"))
        self._rate = None if limits["rate"] is None else _numbers(limits["rate"], count, "limits.rate")
        self._on_bad: str = self.contract["on_bad_observation"]["do"]
        if self._on_bad not in ("refuse", "hold", "clip"):
            raise ValueError(f"{folder}: on_bad_observation.do is {self._on_bad!r}: not refuse, hold or clip")
        self.step: Step = _load(folder, self.contract, width, count)
        """The policy alone: no check of the observation, no limits."""
        self.needs_reward = "reward" in self.contract["memory"]
        self.reset()
        self.step(self._mean, self.blank())  # what does not fit together shows here

    def reset(self, last_action: ArrayLike | None = None) -> None:
        """Begin an episode. `last_action` (act,): the one in force now, from which the rate limit counts."""
        size = self._bounds[0].size
        self._last = None if last_action is None else _numbers(last_action, size, "last_action")
        self._memory, self._begun = self.blank(), False

    def blank(self) -> Memory:
        """The memory before the first step of an episode."""
        described = self.contract["memory"].items()
        return {name: np.full(each["shape"], each["first"], each["dtype"]) for name, each in described}

    def act(self, observation: ArrayLike | Mapping[str, float], reward: Any = None) -> Row:
        """The action (act,) for an observation (obs,), or for one number for each of `observation_names`.

        `reward`, logged units, is that of the step before; it is read where `needs_reward`, and may be
        left out only at an episode's first step. Raises `ValueError` for another shape or other names, a
        reward that is missing or not finite, and, where the contract says `refuse`, for NaN, infinity,
        and values out of range; the episode then goes on as if it had not been asked. Raises
        `FloatingPointError` where the policy gives an action that is not finite.
        """
        row = self._ordered(observation)
        memory = self._memory | self._told(reward)
        bad = ~((row >= self._low) & (row <= self._high))  # NaN compares false
        if bad.any() and self._on_bad == "refuse":
            raise ValueError(self._complaint(row, bad))
        if bad.any() and self._on_bad == "hold":
            return self._hold(memory)
        if bad.any():
            near = np.where(np.isnan(row), self._mean, np.clip(row, self._data_low, self._data_high))
            row = np.where(bad, near, row)
        action, memory = self.step(row, memory)
        if not np.isfinite(action).all():
            raise FloatingPointError(f"the policy gave {action.tolist()}")
        limited = self._limit(action)
        if "actions" in memory and (limited != action).any():
            memory["actions"][-1] = self._scaled(limited)  # what was done, not what was meant
        self._last, self._memory, self._begun = limited, memory, True
        return limited.copy()

    def _told(self, reward: Any) -> Memory:
        """The part of the memory that a reward changes: steps that were held add theirs up."""
        if not self.needs_reward:
            return {}
        if reward is None and self._begun:
            raise ValueError("the policy counts its return down: act(observation, reward of the step before)")
        earned = np.asarray(0 if reward is None else reward, np.float32)
        if earned.shape or not np.isfinite(earned):
            raise ValueError(f"reward is {reward}: must be one finite number")
        return {"reward": np.asarray(self._memory["reward"] + earned, np.float32)}

    def _ordered(self, observation: Any) -> Row:
        names = self.observation_names
        if isinstance(observation, Mapping):
            odd = sorted(set(observation) ^ set(names))
            if odd:
                fault = "is missing" if odd[0] in names else "is no dimension of the policy"
                raise ValueError(f"observation: {odd[0]!r} {fault}; it has {', '.join(names)}")
            observation = [observation[name] for name in names]
        return _row(observation, len(names), "observation")

    def _complaint(self, row: Row, bad: NDArray[np.bool_]) -> str:
        at = int(np.argmax(bad))
        more = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
        return (
            f"observation dimension {at} ({self.observation_names[at]}) is {row[at]:g}, accepted are "
            f"{self._low[at]:g} to {self._high[at]:g}{more}; mend the sensor, or export with a larger "
            "--margin, or with --on-bad-observation hold or clip"
        )

    def _hold(self, memory: Memory) -> Row:
        """The last action again. The policy never hears of this step, except that time goes on."""
        low, high = self._bounds
        self._last = self._limit((low + high) / np.float32(2) if self._last is None else self._last)
        if "time" in memory:
            memory["time"] = np.asarray(memory["time"] + np.int32(1))
        self._memory, self._begun = memory, True
        return self._last.copy()

    def _limit(self, action: Row) -> Row:
        """Rate first: where both cannot be kept, the fixed limits are."""
        if self._rate is not None and self._last is not None:
            action = np.clip(action, self._last - self._rate, self._last + self._rate)
        return np.clip(action, *self._limits)

    def _scaled(self, action: Row) -> Row:
        """To learner's units, [-1, 1] between the bounds."""
        low, high = self._bounds
        half = (high - low) / np.float32(2)
        half = np.where(half > 0, half, np.float32(1))
        return np.clip((action - (high + low) / np.float32(2)) / half, np.float32(-1), np.float32(1))


def _row(values: Any, size: int, what: str) -> Row:
    row = np.asarray(values, np.float32)
    if row.shape != (size,):
        raise ValueError(f"{what} has shape {row.shape}, expected ({size},)")
    return row


def _numbers(values: Any, size: int, what: str) -> Row:
    row = _row(values, size, what)
    if not np.isfinite(row).all():
        raise ValueError(f"{what} is {row.tolist()}: must be finite")
    return row


def digest_of(contract: Mapping[str, Any]) -> str:
    """SHA-256 of all that a contract says but this digest."""
    return hashlib.sha256(json.dumps({**contract, "sha256": None}, sort_keys=True).encode()).hexdigest()


def _bytes(path: Path) -> bytes:
    if path.is_file():  # a pipe would be waited for
        return path.read_bytes()
    raise ValueError(f"{path}: cannot be read, for it is missing or no plain file; export the policy again")


def _contract(path: Path) -> dict[str, Any]:
    contract: dict[str, Any] = json.loads(_bytes(path))
    if (found := contract.get("format")) != FORMAT:
        raise ValueError(f"{path}: format {found!r}, this runner reads {FORMAT}; use the runner.py beside it")
    if contract["sha256"] != digest_of(contract):
        raise ValueError(f"{path}: damaged or edited, its sha256 is not that of its values; export it again")
    code = path.with_name("runner.py")  # its line ends may have changed on the way to another system
    plain = _bytes(code).replace(b"\r\n", b"\n") if code.exists() else b""
    if plain and hashlib.sha256(plain).hexdigest() != contract["runner_sha256"]:
        raise ValueError(f"{code}: damaged or edited, its sha256 is not the one in {path.name}")
    return contract


def _load(folder: Path, contract: dict[str, Any], width: int, count: int) -> Step:
    """The policy's file as a function, once its bytes are known to be those of the contract."""
    told = contract["policy"]
    content = _bytes(path := folder / Path(told["file"]).name)
    if hashlib.sha256(content).hexdigest() != told["sha256"]:
        raise ValueError(f"{path}: damaged, its sha256 is not the one in contract.json; export it again")
    readers = {"onnx": _onnx, "stablehlo": _stablehlo, "safetensors": _plain}
    if told["format"] not in readers:
        raise ValueError(f"{path}: format {told['format']!r}, known are {', '.join(readers)}")
    shapes = {name: tuple(each["shape"]) for name, each in contract["memory"].items()}
    return readers[told["format"]](content, contract["network"], {"observation": (width,), **shapes}, count)


def _require(path: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if dict(found) != dict(wanted):
        raise ValueError(f"{path} has {dict(found)}, contract.json says {dict(wanted)}; export it again")


def _onnx(content: bytes, network: dict[str, Any], inputs: Shapes, count: int) -> Step:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one small network: threads would only wait for each other
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    _require("policy.onnx", {each.name: tuple(each.shape) for each in session.get_inputs()}, inputs)
    outputs = {each.name: tuple(each.shape) for each in session.get_outputs()}
    next_memory = {f"next_{name}": shape for name, shape in inputs.items() if name != "observation"}
    _require("policy.onnx", outputs, {"action": (count,), **next_memory})

    def step(observation: Row, memory: Memory) -> tuple[Row, Memory]:
        action, *rest = session.run(["action", *next_memory], {"observation": observation, **memory})
        return action, dict(zip(memory, rest, strict=True))

    return step


def _stablehlo(content: bytes, network: dict[str, Any], inputs: Shapes, count: int) -> Step:
    import jax.export

    exported = jax.export.deserialize(bytearray(content))  # type: ignore[no-untyped-call, unused-ignore]
    # dictionaries are flattened in the order of their names
    names = ["observation", *sorted(name for name in inputs if name != "observation")]
    found = dict(zip(names, (each.shape for each in exported.in_avals), strict=False))
    _require("policy.stablehlo", found, inputs)
    _require("policy.stablehlo", {"action": exported.out_avals[0].shape}, {"action": (count,)})
    call = jax.jit(exported.call)

    def step(observation: Row, memory: Memory) -> tuple[Row, Memory]:
        with jax.enable_x64(True):
            action, after = call(observation, memory)
        return np.array(action), {name: np.array(after[name]) for name in memory}

    return step


def _plain(content: bytes, network: dict[str, Any], inputs: Shapes, count: int) -> Step:
    length = int.from_bytes(content[:8], "little")
    arrays: dict[str, Row] = {}
    for name, each in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in each["data_offsets"])
            arrays[name] = np.frombuffer(content[start:end], np.float32).astype(float).reshape(each["shape"])
    sizes = {"observation": arrays["observation_mean"].shape, "action": arrays["action_low"].shape}
    _require("policy.safetensors", sizes, {"observation": inputs["observation"], "action": (count,)})

    def step(observation: Row, memory: Memory) -> tuple[Row, Memory]:
        normal = (observation - arrays["observation_mean"]) / arrays["observation_std"]
        if network["kind"] == "sequence":
            scaled, memory = _sequence(arrays, network, normal, memory)
        else:
            scaled = np.tanh(_mlp(arrays, "policy", normal))
        action = scaled * arrays["action_half"] + arrays["action_centre"]
        return action.clip(arrays["action_low"], arrays["action_high"]).astype(np.float32), memory

    return step


def _linear(arrays: dict[str, Row], name: str, x: Row) -> Row:
    return x @ arrays[f"{name}/weight"] + arrays[f"{name}/bias"]


def _mlp(arrays: dict[str, Row], name: str, x: Row) -> Row:
    """Linear layers with ReLU between them."""
    x, layer = _linear(arrays, f"{name}/0", x), 1
    while f"{name}/{layer}/weight" in arrays:
        x, layer = _linear(arrays, f"{name}/{layer}", np.maximum(x, 0)), layer + 1
    return x


def _sequence(
    arrays: dict[str, Row], network: dict[str, Any], normal: Row, memory: Memory
) -> tuple[Row, Memory]:
    """Action in [-1, 1] of the Transformer over (prompt, observation, action) tokens, and the memory."""
    time = memory["time"] if "time" in memory else (memory["timesteps"][-1] + 1) * memory["present"][-1]
    newest = {"observations": normal, "actions": np.zeros(memory["actions"].shape[1]), "prompts": 0.0,
              "timesteps": min(int(time), len(arrays["embed_timestep"]) - 1), "present": True}  # fmt: skip
    after: Memory = {
        name: np.concatenate([memory[name][1:], np.asarray(new, memory[name].dtype)[None]])
        for name, new in newest.items()
    }
    before = memory["prompts"][-1]
    if network["prompt"] == "value":
        prompt = (_mlp(arrays, "value", normal) / arrays["prompt_scale"])[0]
    elif network["prompt"] == "counted":
        prompt = before - memory["reward"] * arrays["reward_scale"] / arrays["return_scale"]
    else:
        most = before + arrays["rise"] if memory["present"][-1] else np.inf
        prompt = min(_linear(arrays, "head_prompt", _hidden(arrays, network, after, 2))[0], most)
    after["prompts"][-1] = prompt
    action = _linear(arrays, "head", _hidden(arrays, network, after, 1))
    action = np.clip(action, -1, 1) if network["prompt"] == "predicted" else np.tanh(action)
    after["actions"][-1] = action
    more = {"time": time + np.int32(1), "reward": np.float32(0)}
    return action, after | {name: np.asarray(each) for name, each in more.items() if name in memory}


def _hidden(arrays: dict[str, Row], network: dict[str, Any], seen: Memory, behind: int) -> Row:
    """(width,) of the token that `behind` tokens follow, which it does not see."""
    table, heads = arrays["embed_timestep"], network["heads"]
    time = table[seen["timesteps"]] if network["time"] == "episode" else table
    rows = {"prompt": seen["prompts"][:, None], "observation": seen["observations"],
            "action": seen["actions"]}  # fmt: skip
    tokens = np.stack([_linear(arrays, f"embed_{s}", rows[s]) + time for s in network["streams"]], 1)
    x = tokens.reshape(-1, table.shape[1])[:-behind]
    visible = np.tril(np.ones((len(x), len(x)), bool)) & np.repeat(seen["present"], 3)[:-behind]

    def norm(name: str, x: Row) -> Row:
        centred = x - x.mean(-1, keepdims=True)
        inverse = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + network["epsilon"])
        return centred * inverse * arrays[f"{name}/weight"] + arrays[f"{name}/bias"]

    def by_head(x: Row) -> Row:
        return x.reshape(len(x), heads, -1).transpose(1, 0, 2)

    x = norm("norm_in", x)
    for layer in range(network["layers"]):
        name = f"blocks/{layer}"
        asked = slice(-1 if layer == network["layers"] - 1 else 0, None)  # in the end one token counts
        made = _linear(arrays, f"{name}/qkv", norm(f"{name}/norm_attention", x))
        q, k, v = map(by_head, np.split(made, 3, 1))
        scores = (q[:, asked] * q.shape[-1] ** -0.5) @ k.transpose(0, 2, 1)
        scores = np.where(visible[asked], scores, -1e9)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        x = x[asked] + _linear(arrays, f"{name}/out", mixed.transpose(1, 0, 2).reshape(-1, x.shape[1]))
        up = _linear(arrays, f"{name}/up", norm(f"{name}/norm_forward", x))
        x = x + _linear(arrays, f"{name}/down", np.maximum(up, 0))
    return norm("norm_out", x[-1])
