"""Writes an exported policy, its contract and its runner into a folder that is whole or not there."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from ipd.data.columns import pieces
from ipd.data.episodes import Episodes, Normaliser
from ipd.export import runner
from ipd.export.portable import Portable, portable
from ipd.export.runner import Runner
from ipd.runs import files, opened, rundir
from ipd.runs.context import Run
from ipd.runs.errors import InputError, RunFailed

LARGEST_DIFFERENCE = 1e-6
"""Of an exported action from the run's own, in halves of the action range; a larger one is not written."""
PARITY_STEPS = 50
MARGIN = 0.5
"""In widths of the data's range; ordinary episodes go further than the data by up to a tenth of one."""
UNITS = "logged units"
NEEDS = {"onnx": ("onnx", "onnxruntime"), "stablehlo": (), "safetensors": ()}

_BAD = {
    "refuse": "an error that names the dimension; the episode goes on as if it had not been asked",
    "hold": "the last action again, at first the middle of the bounds; the policy's memory leaves the step "
    "out, but its time goes on and its reward adds up",
    "clip": "the nearest value in the range of the data, the data's mean for NaN",
}


class Limits(NamedTuple):
    """What no action may leave, logged units: (act,) numbers, one for all dimensions, or () for none."""

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    rate: tuple[float, ...] = ()
    """Largest change from one step to the next."""

    def resolved(self, normaliser: Normaliser) -> dict[str, list[float] | None]:
        """As the contract has them; without limits the action bounds. Raises `InputError`."""
        low = _each("--limit-low", self.low, normaliser.action_low)
        high = _each("--limit-high", self.high, normaliser.action_high)
        rate = _each("--rate-limit", self.rate, np.ones_like(low)) if self.rate else None
        low, high = np.maximum(low, normaliser.action_low), np.minimum(high, normaliser.action_high)
        if (low > high).any():
            at = int(np.argmax(low > high))
            raise InputError(
                f"action dimension {at}: no action between {low[at]:g} and {high[at]:g}; give limits that "
                f"cross neither each other nor the bounds {normaliser.action_low[at]:g} and "
                f"{normaliser.action_high[at]:g}"
            )
        if rate is not None and (rate <= 0).any():
            raise InputError("--rate-limit: must be above 0")
        return {"low": low.tolist(), "high": high.tolist(), "rate": None if rate is None else rate.tolist()}


def _each(option: str, given: tuple[float, ...], default: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(given) not in (0, 1, default.size):
        raise InputError(f"{option}: {len(given)} numbers; give one, or {default.size}, one a dimension")
    if not np.isfinite(given).all():
        raise InputError(f"{option}: must be finite")
    return np.broadcast_to(np.asarray(given, np.float32), default.shape) if given else default


def export(
    folder: Path,
    format: str = "onnx",
    seed: int | None = None,
    to: Path | None = None,
    policy: str | None = None,
    limits: Limits = Limits(),
    on_bad_observation: str = "refuse",
    margin: float = MARGIN,
) -> tuple[Path, float]:
    """The folder with the finished policy of a run, and the largest difference from the run's actions.

    The difference is in halves of the action range, over `PARITY_STEPS` random observations. Raises
    `InputError` where run, seed, policy, limits or `to` will not do or a package is missing,
    `RunFailed` where the difference is larger than `LARGEST_DIFFERENCE`.
    """
    _require_packages(format)
    if not (np.isfinite(margin) and margin >= 0):
        raise InputError(f"--margin {margin}: must be finite and not below 0")
    run, row = opened.open_seed(folder, seed)
    seed = run.seeds[row.start]
    to = to or folder / "export" / f"{format}-seed-{seed}"
    if to.exists():
        raise InputError(f"{to}: exists; choose another --to")
    told = limits.resolved(run.normaliser)
    made = portable(run, row, policy)
    data = files.read_json(run.folder / "manifest.json")["data"]
    names = {kind: list(data.get(f"{kind}_names", ())) for kind in ("observation", "action")}
    contract = contract_of(made, names, _range(run.episodes, run), told, on_bad_observation, margin)
    contract |= {
        "task": run.job.task,
        "algorithm": run.config.algo,
        "seed": seed,
        "discount": run.config.value.discount if run.config.algo in ("ipd", "iql") else None,
        "data": {"source": run.job.data, "digest": run.digest},
        "versions": rundir.versions(),
    }
    return to, write(to, format, made, contract)


def write(to: Path, format: str, made: Portable, contract: dict[str, Any]) -> float:
    """Makes the folder `to` once the policy in it is known to act as the run's; returns the difference.

    Raises `InputError` where the format cannot hold the policy, else as `export`.
    """
    if format != "stablehlo" and made.network["kind"] == "unknown":
        raise InputError(f"--format {format}: has no graph for policy {made.name}; take --format stablehlo")
    with files.replacing(to) as partial:
        partial.mkdir()
        content = _serialised(format, made)
        (partial / f"policy.{format}").write_bytes(content)
        contract["policy"] |= {
            "file": f"policy.{format}",
            "format": format,
            "sha256": files.digest(content),
        }
        (partial / "runner.py").write_bytes(Path(runner.__file__).read_bytes())
        contract["runner_sha256"] = files.digest((partial / "runner.py").read_bytes().replace(b"\r\n", b"\n"))
        _write_contract(partial, contract)
        difference = parity(Runner(partial), made)
        if not difference <= LARGEST_DIFFERENCE:
            raise RunFailed(
                f"policy.{format} acts {difference:.2g} of half the action range off the run's policy, "
                f"allowed are {LARGEST_DIFFERENCE:g}; nothing was written, export another --format"
            )
        contract["parity"] = {
            "largest_difference": difference,
            "allowed": LARGEST_DIFFERENCE,
            "units": "halves of the action range",
            "steps": PARITY_STEPS,
        }
        _write_contract(partial, contract)
    return difference


def _write_contract(folder: Path, contract: dict[str, Any]) -> None:
    """With its own digest, which the runner checks."""
    contract["sha256"] = runner.digest_of(contract)
    files.write_json(folder / "contract.json", contract)


def parity(exported: Runner, made: Portable) -> float:
    """Largest difference from the run's own actions over random observations, in halves of the action range.

    Both go on from what they did themselves, as in use; no limits act. Rewards are random too.
    """
    random = np.random.default_rng(0)
    mean, std, half = (made.arrays[name] for name in ("observation_mean", "observation_std", "action_half"))
    made.controller.reset()
    memory, off, reward = exported.blank(), [], np.float32(0)
    for noise in random.normal(size=(PARITY_STEPS, mean.size)).astype(np.float32):
        observation = mean + std * noise
        if "reward" in memory:
            memory["reward"] = np.asarray(reward)
        action, memory = exported.step(observation, memory)
        off.append(np.abs((action - made.controller.act(observation, reward)) / half))
        reward = noise[0]
    return float(np.max(off))  # NaN where any is


def _require_packages(format: str) -> None:
    for package in NEEDS[format]:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"--format {format} needs {package}, which is missing; pip install 'ipd[export]'"
            ) from error


def _serialised(format: str, made: Portable) -> bytes:
    if format == "safetensors":
        return safetensors.numpy.save(made.arrays)
    if format == "onnx":
        from ipd.export import onnx_graph

        return onnx_graph.model(made.arrays, made.network, made.blank)
    import jax.export

    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        (made.arrays["observation_mean"], made.blank),
    )
    with jax.enable_x64(True):
        exported = jax.export.export(jax.jit(made.step), platforms=("cpu", "cuda", "tpu"))(*shapes)
    return bytes(exported.serialize())


def contract_of(
    made: Portable,
    names: dict[str, list[str]],
    seen: tuple[NDArray[np.float32], NDArray[np.float32]],
    limits: dict[str, list[float] | None],
    on_bad_observation: str = "refuse",
    margin: float = MARGIN,
) -> dict[str, Any]:
    """What the runner has to know beside the file itself.

    `names` of the dimensions under `observation` and `action`, none for numbered ones; `seen` are the
    smallest and the largest logged observation (obs,); `limits` as `Limits.resolved` gives them.
    """
    numbers = {name: made.arrays[name].tolist() for name in ("observation_mean", "observation_std",
                                                             "action_low", "action_high")}  # fmt: skip
    sizes = {
        kind: len(numbers[f"{kind}_{end}"]) for kind, end in (("observation", "mean"), ("action", "low"))
    }
    named = {k: names.get(k) or [f"{k}_{i}" for i in range(size)] for k, size in sizes.items()}
    told = {key: np.asarray(each).tolist() for key, each in made.constants.items()}
    return {
        "format": runner.FORMAT,
        "policy": {"name": made.name},
        "observation": {
            "names": named["observation"],
            "units": UNITS,
            "mean": numbers["observation_mean"],
            "std": numbers["observation_std"],
            "data_low": seen[0].tolist(),
            "data_high": seen[1].tolist(),
            "margin": margin,
        },
        "action": {
            "names": named["action"],
            "units": UNITS,
            "low": numbers["action_low"],
            "high": numbers["action_high"],
        },
        "limits": limits | {"units": UNITS, "order": "rate, then low and high, after the policy"},
        "on_bad_observation": {"do": on_bad_observation, "means": _BAD[on_bad_observation]},
        "network": made.network,
        "context": len(made.blank["present"]) if "present" in made.blank else None,
        "prompt_scale": float(made.arrays["prompt_scale"]) if "prompt_scale" in made.arrays else None,
        "constants": told,
        "target_return": _target(told, float(made.arrays["reward_scale"])),
        "memory": {
            name: {"shape": list(leaf.shape), "dtype": leaf.dtype.name, "first": leaf.ravel()[0].item()}
            for name, leaf in made.blank.items()
        },
    }


def _target(constants: dict[str, Any], reward_scale: float) -> float | None:
    """The return that is asked for, logged units; None where none is."""
    if "target" not in constants:
        return None
    return float(constants["target"] * constants["return_scale"] / reward_scale)


def _range(episodes: Episodes, run: Run) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(obs,) smallest and largest logged observation of each dimension."""
    low = np.full(episodes.observation_size, np.inf, np.float32)
    high = -low
    for piece in pieces(episodes.num_steps):
        low = np.minimum(low, episodes.observations[piece].min(0))
        high = np.maximum(high, episodes.observations[piece].max(0))
    return low, high
