"""The augment stage: candidates, planning, and augmented.hdf5 (Eqs. 17-25, Algorithm 1)."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.config import AugmentConfig, Config
from ipd.data.windows import candidate_steps
from ipd.planning.augment import imagine
from ipd.planning.candidates import choose, imagined_return, real_return
from ipd.runs import files
from ipd.runs.context import Run, plain, unstack
from ipd.types import Segment, Steps
from ipd.value import learn as value_learner
from ipd.world.uncertainty import TerminationRule, predict_fn

KEPT = 4_000
"""Values of each kind that the summary keeps for the page."""
STEP_KEYS = ("observations", "actions", "rewards", "next_observations")


class Dreamer(NamedTuple):
    """One seed's value functions and world model, and what limits them."""

    values: value_learner.State
    ensemble: Any
    kappa: jax.Array


class Candidates(NamedTuple):
    """Logged rows that could be replanned, and what is expected of each; scaled reward units."""

    rows: NDArray[np.int64]
    imagined: NDArray[np.float32]
    real: NDArray[np.float32]

    @property
    def gap(self) -> NDArray[np.float32]:
        """Imagined minus real return (Eq. 20)."""
        return self.imagined - self.real


def candidate_rows(run: Run) -> NDArray[np.int64]:
    """Rows with `history_steps` before them and `imagine_steps` from them on in their episode."""
    config = run.config.augment
    return candidate_steps(run.episodes.starts, config.history_steps, config.imagine_steps)


@eqx.filter_jit
def _returns(
    config: Config, rule: TerminationRule | None, dreamer: Dreamer, steps: Steps, rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
    augment, discount = config.augment, config.value.discount
    values = value_learner.value_fn(dreamer.values)
    real = real_return(steps, values, rows, augment.imagine_steps, discount)
    imagined = imagined_return(
        predict_fn(config.world, dreamer.ensemble, rule), values, value_learner.policy_fn(dreamer.values),
        augment, discount, steps.observations[rows], steps.actions.shape[1], dreamer.kappa,
    )  # fmt: skip
    return imagined, real


@eqx.filter_jit
def _imagine(
    config: Config, augment: AugmentConfig, rule: TerminationRule | None, dreamer: Dreamer, steps: Steps,
    rows: jax.Array, key: jax.Array,
) -> Segment:  # fmt: skip
    return imagine(
        predict_fn(config.world, dreamer.ensemble, rule), value_learner.value_fn(dreamer.values),
        value_learner.policy_fn(dreamer.values), augment, config.value.discount, steps.observations[rows],
        steps.actions.shape[1], key, dreamer.kappa,
    )  # fmt: skip


def _batches(rows: NDArray[np.int64], size: int) -> list[tuple[NDArray[np.int64], int]]:
    """Pieces of one shape, at most `size` rows each, the last filled up, and how many of each count."""
    number = -(-len(rows) // size)
    size = -(-len(rows) // number) if number else size
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [(np.concatenate([p, np.repeat(p[:1], size - len(p))]), len(p)) for p in pieces]


def expected(run: Run, rule: TerminationRule | None, dreamer: Dreamer, steps: Steps) -> Candidates:
    """Imagined and real return of every candidate (Eqs. 17, 18)."""
    rows = candidate_rows(run)
    parts = []
    for piece, count in _batches(rows, run.config.augment.batch_size):
        both = _returns(run.config, rule, dreamer, steps, jnp.asarray(piece))
        parts.append(np.stack([np.asarray(part)[:count] for part in both]))
    both_returns = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.float32)
    return Candidates(rows, both_returns[0], both_returns[1])


def segments_from(
    run: Run, augment: AugmentConfig, rule: TerminationRule | None, dreamer: Dreamer, steps: Steps,
    rows: NDArray[np.int64], key: jax.Array, told: bool = True,
) -> Segment:  # fmt: skip
    """Algorithm 1 from each row, NumPy, learner's units; batch number b draws from `fold_in(key, b)`."""
    parts, done = [], 0
    for number, (piece, count) in enumerate(_batches(rows, augment.batch_size)):
        batch_key = jax.random.fold_in(key, number)
        segment = _imagine(run.config, augment, rule, dreamer, steps, jnp.asarray(piece), batch_key)
        parts.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], segment))
        done += count
        if told:
            run.progress.advance(done)
    joined: Segment = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return joined


def augment(run: Run, values: Any, world: Any, split: Any) -> str:
    """Makes augmented.hdf5; returns its fingerprint. `values` and `world` are finished stages."""
    fingerprint = run.fingerprint("augment", run.config.augment, (values.fingerprint, world.fingerprint))

    def work() -> dict[str, Any]:
        config, steps = run.config.augment, jax.tree.map(jnp.asarray, run.steps)
        keys, seeds = run.keys("augment"), []
        with files.replacing(run.folder / "augmented.hdf5") as partial, h5py.File(partial, "w") as file:
            for row, seed in enumerate(run.seeds):
                dreamer = dreamer_of(run, values, world, row)
                found = expected(run, split.rule, dreamer, steps)
                episode = run.episodes.episode_index[found.rows]
                chosen = choose(found.rows, found.gap, episode, run.episodes.lengths, config)
                run.progress.begin("augment", 0, len(chosen), "states")
                if len(chosen):
                    segments = segments_from(run, config, split.rule, dreamer, steps, chosen, keys[row])
                    keep = np.asarray(segments.valid.sum(axis=1) >= config.min_steps)
                else:
                    segments, keep = None, np.zeros(0, bool)
                run.progress.end()
                _write_group(run, file.create_group(f"seed-{seed}"), found, chosen[keep], segments, keep)
                seeds.append(_summary(run, found, chosen, segments, keep))
        return {"seeds": plain(seeds)}

    return run.finish("augment", fingerprint, work)


def dreamer_of(run: Run, values: Any, world: Any, row: int) -> Dreamer:
    """One seed of two finished stages, with the kappa of the world stage's summary."""
    kappa = jnp.asarray(run.summary("world")["seeds"][row]["kappa"], jnp.float32)
    return Dreamer(unstack(values.state, row), unstack(world.state.best, row), kappa)


def _write_group(
    run: Run,
    group: Any,
    found: Candidates,
    rows: NDArray[np.int64],
    segments: Segment | None,
    keep: NDArray[Any],
) -> None:
    """D4RL keys in logged units, one row a valid step; provenance with one row a segment."""
    normaliser, spec = run.normaliser, run.spec
    valid = np.asarray(segments.valid)[keep] if segments is not None else np.zeros((0, 1), bool)
    flat = {
        name: getattr(segments, name)[keep][valid]
        for name in (*STEP_KEYS, "terminated", "uncertainty")
        if segments is not None
    }
    empty = {"observations": (0, spec.observation_size), "actions": (0, spec.action_size),
             "next_observations": (0, spec.observation_size)}  # fmt: skip
    for name in (*STEP_KEYS, "terminated", "uncertainty"):
        flat.setdefault(name, np.zeros(empty.get(name, (0,)), np.float32))
    terminals = flat["terminated"] > 0.5
    lengths = valid.sum(axis=1)
    ends = np.zeros(len(terminals), bool)
    ends[np.cumsum(lengths) - 1] = True
    std, mean = normaliser.observation_std, normaliser.observation_mean
    at = np.searchsorted(found.rows, rows)
    first = np.cumsum(lengths) - lengths
    per_segment = (
        (
            np.add.reduceat(flat["uncertainty"], first) / lengths,
            np.maximum.reduceat(flat["uncertainty"], first),
        )
        if len(rows)
        else (np.zeros(0), np.zeros(0))
    )
    columns: dict[str, NDArray[Any]] = {
        "observations": flat["observations"] * std + mean,
        "actions": normaliser.raw_actions(flat["actions"]),
        "rewards": flat["rewards"] / normaliser.reward_scale,
        "next_observations": flat["next_observations"] * std + mean,
        "terminals": terminals,
        "timeouts": ends & ~terminals,
        "uncertainty": flat["uncertainty"],
        "provenance/row": rows,
        "provenance/episode": run.episodes.episode_index[rows],
        "provenance/step": run.episodes.timesteps[rows],
        "provenance/length": lengths,
        "provenance/mean_uncertainty": per_segment[0].astype(np.float32),
        "provenance/max_uncertainty": per_segment[1].astype(np.float32),
        "provenance/imagined_return": found.imagined[at],
        "provenance/real_return": found.real[at],
    }
    for name, column in columns.items():
        packed = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if len(column) else {}
        group.create_dataset(name, data=column, track_times=False, **packed)


def read_segments(run: Run, seed: int) -> tuple[Segment, NDArray[np.int64]]:
    """One seed of augmented.hdf5: segments in learner's units, padded, and the rows they start from.

    The file keeps the model's own rewards; here the scaled ones are less ``uncertainty_penalty`` times U
    (as in MOPO, Yu et al. 2020): what the model is unsure of should not look better than what was
    logged. U has the unit of ``world.uncertainty``, so each kind asks for a penalty of its own.
    """
    time, penalty = run.config.augment.imagine_steps, run.config.augment.uncertainty_penalty
    with h5py.File(run.folder / "augmented.hdf5", "r") as file:
        group = file[f"seed-{seed}"]
        flat = {name: group[name][()] for name in (*STEP_KEYS, "terminals", "uncertainty")}
        rows, lengths = group["provenance/row"][()], group["provenance/length"][()]
    valid = np.arange(time) < lengths[:, None]
    columns = (
        run.normaliser.observations(flat["observations"]),
        run.normaliser.actions(flat["actions"]),
        run.normaliser.rewards(flat["rewards"]) - penalty * flat["uncertainty"],
        run.normaliser.observations(flat["next_observations"]),
        flat["terminals"].astype(np.float32),
        flat["uncertainty"],
    )

    def padded(column: NDArray[Any]) -> NDArray[Any]:
        full = np.zeros((*valid.shape, *column.shape[1:]), np.float32)
        full[valid] = column
        return full

    return Segment(*map(padded, columns), valid=valid), rows  # type: ignore[arg-type, misc]


def read_gaps(run: Run, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows that one seed's segments start from, and imagined minus real return of each."""
    with h5py.File(run.folder / "augmented.hdf5", "r") as file:
        told = file[f"seed-{seed}/provenance"]
        return told["row"][()], told["imagined_return"][()] - told["real_return"][()]


def _summary(
    run: Run, found: Candidates, chosen: NDArray[np.int64], segments: Segment | None, keep: NDArray[Any]
) -> dict[str, Any]:
    lengths = np.zeros(0) if segments is None else np.asarray(segments.valid).sum(axis=1)
    thin = np.random.default_rng(0).permutation(len(found.rows))[:KEPT]
    at = np.searchsorted(found.rows, chosen)
    some = np.sort(np.random.default_rng(1).permutation(len(chosen))[:KEPT])
    edges = np.linspace(0, run.spec.max_episode_steps, 51)
    times = run.episodes.timesteps
    kept = at[some[: KEPT // 2]]
    return {
        "candidates": len(found.rows),
        "selected": len(chosen),
        "kept_segments": int(keep.sum()),
        "kept_steps": int(lengths[keep].sum()),
        "accepted_first": float((lengths > 0).mean()) if len(lengths) else 0.0,
        "mean_length": float(lengths[keep].mean()) if keep.any() else 0.0,
        "gap": found.gap[thin],
        "chosen_gap": found.gap[at[some]],
        "timestep_candidates": np.histogram(times[found.rows], edges)[0],
        "timestep_chosen": np.histogram(times[chosen], edges)[0],
        "timestep_edges": edges,
        "real_return": found.real[kept],
        "imagined_return": found.imagined[kept],
    }
