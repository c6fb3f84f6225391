"""Pytrees of arrays on disk: safetensors, with a JSON sidecar that says what must be in it.

The sidecar is written last and removed first, so a step exists exactly when its sidecar does.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from ipd.runs import files
from ipd.runs.errors import InputError

FAILED = "failed.json"


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def named_leaves(tree: Any) -> dict[str, Any]:
    """The array leaves of `tree` by their path, e.g. `critics/layers/0/weight`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, _is_array))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _plain(leaf: Any) -> NDArray[Any]:
    """A leaf as NumPy; random keys as their raw uint32 data."""
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    return array if array.ndim == 0 else np.ascontiguousarray(array)


@dataclasses.dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one stage of one run."""

    folder: Path
    fingerprint: str
    """Hash of config, inputs and code; a checkpoint with another one is not resumed from."""

    def path(self, step: int) -> Path:
        """File of the checkpoint at `step`."""
        return self.folder / f"step-{step}.safetensors"

    def steps(self) -> list[int]:
        """Steps that are whole, in order."""
        whole = (p for p in self.folder.glob("step-*.json") if p.with_suffix(".safetensors").is_file())
        numbers = (path.stem.removeprefix("step-") for path in whole)
        return sorted(int(number) for number in numbers if number.isdecimal() and number.isascii())

    def save(self, step: int, tree: Any, keep: tuple[int, ...] = ()) -> None:
        """Writes `tree` as `step`, then drops the other steps except those in `keep`."""
        arrays = {name: _plain(leaf) for name, leaf in named_leaves(tree).items()}
        content = safetensors.numpy.save(arrays)
        files.write_bytes(self.path(step), content)
        files.write_json(self.path(step).with_suffix(".json"), self._described(step, arrays, content))
        for other in self.steps():
            if other != step and other not in keep:
                self.remove(other)

    def _described(self, step: int, arrays: dict[str, NDArray[Any]], content: bytes) -> dict[str, Any]:
        """The sidecar."""
        return {
            "step": step,
            "fingerprint": self.fingerprint,
            "sha256": files.digest(content),
            "tensors": {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in arrays.items()},
        }

    def remove(self, step: int) -> None:
        """Deletes a checkpoint, its description first, so that no half of it can be taken for a whole."""
        self.path(step).with_suffix(".json").unlink(missing_ok=True)
        self.path(step).unlink(missing_ok=True)

    def fail(self, what: dict[int, str]) -> None:
        """Notes that seeds came to something that is not finite: seed -> what and when."""
        told = {str(seed): text for seed, text in sorted((self.failed() | what).items())}
        files.write_json(self.folder / FAILED, {"fingerprint": self.fingerprint, "seeds": told})

    def forget(self) -> None:
        """Takes back what `fail` noted."""
        (self.folder / FAILED).unlink(missing_ok=True)

    def failed(self) -> dict[int, str]:
        """Seeds that failed in this stage, with what went wrong."""
        path = self.folder / FAILED
        if not path.exists():
            return {}
        with files.understood(path):
            told = files.read_json(path)["seeds"].items()
            return {int(seed): str(text) for seed, text in told if str(seed).isdecimal()}

    def clean(self) -> None:
        """Drops halves of a save or a removal that was cut short, and steps of another fingerprint."""
        for step in self.steps():
            if files.read_object(self.path(step).with_suffix(".json")).get("fingerprint") != self.fingerprint:
                self.remove(step)
        if self.failed() and files.read_object(self.folder / FAILED).get("fingerprint") != self.fingerprint:
            self.forget()
        whole = self.steps()
        for path in [*self.folder.glob("step-*.safetensors"), *self.folder.glob("step-*.json")]:
            if path.stem.removeprefix("step-") not in map(str, whole):
                path.unlink()

    def names(self, step: int) -> set[str]:
        """Of the arrays saved as `step`, as their description says."""
        return set(files.read_object(self.path(step).with_suffix(".json")).get("tensors", ()))

    def load(self, step: int, like: Any) -> Any:
        """The tree saved as `step`, in the structure of `like` (arrays or their shapes and dtypes).

        Raises `InputError`, naming the file, where bytes, names, shapes or dtypes are not as they should be.
        """
        path = self.path(step)
        cure = "delete the stage's folder and run the same `ipd train` again"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {cure}") from error
        sidecar = files.read_object(path.with_suffix(".json"))
        if files.digest(content) != sidecar.get("sha256"):
            raise InputError(f"{path}: damaged, its sha256 is not the one in {path.stem}.json; {cure}")
        try:
            arrays = safetensors.numpy.load(content)
        except (safetensors.SafetensorError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{path}: no safetensors ({error}); {cure}") from error
        described = self._described(step, arrays, content)
        if sidecar != {key: described.get(key) for key in sidecar}:
            raise InputError(
                f"{path.with_suffix('.json')}: damaged, it does not describe {path.name}; {cure}"
            )
        wanted = named_leaves(like)
        if arrays.keys() != wanted.keys():
            odd = sorted(arrays.keys() ^ wanted.keys())
            raise InputError(f"{path}: tensors differ from what this version expects, first {odd[0]}; {cure}")

        def restore(name: str, leaf: Any) -> jax.Array:
            array = arrays[name]
            expected = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
            if array.shape != expected.shape or array.dtype != expected.dtype:
                raise InputError(
                    f"{path}: {name} is {array.dtype}{list(array.shape)}, "
                    f"expected {expected.dtype}{list(expected.shape)}; {cure}"
                )
            device = jnp.asarray(array)
            return jax.random.wrap_key_data(device) if _is_key(leaf) else device

        dynamic, static = eqx.partition(like, _is_array)
        restored = [restore(name, leaf) for name, leaf in wanted.items()]
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(dynamic), restored), static)
