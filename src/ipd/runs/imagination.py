"""The augment stage: candidates, planning, and augmented.hdf5 (Eqs. 17-25, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
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
from ipd.runs import augmented, files
from ipd.runs.context import Run, plain, unstack
from ipd.types import Segment, Steps
from ipd.value import learn as value_learner
from ipd.world.uncertainty import TerminationRule, predict_fn

KEPT = 4_000
"""Values of each kind that the summary keeps for the page."""


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
    config: Config, rule: TerminationRule | None, dreamer: Dreamer, stretches: Steps
) -> tuple[jax.Array, jax.Array]:
    augment, discount = config.augment, config.value.discount
    values = value_learner.value_fn(dreamer.values)
    real = real_return(stretches, values, discount)
    imagined = imagined_return(
        predict_fn(config.world, dreamer.ensemble, rule), values, value_learner.policy_fn(dreamer.values),
        augment, discount, stretches.observations[:, 0], stretches.actions.shape[-1], dreamer.kappa,
    )  # fmt: skip
    return imagined, real


@eqx.filter_jit
def _imagine(
    config: Config, augment: AugmentConfig, rule: TerminationRule | None, dreamer: Dreamer, action_size: int,
    observations: jax.Array, key: jax.Array,
) -> Segment:  # fmt: skip
    return imagine(
        predict_fn(config.world, dreamer.ensemble, rule), value_learner.value_fn(dreamer.values),
        value_learner.policy_fn(dreamer.values), augment, config.value.discount, observations, action_size,
        key, dreamer.kappa,
    )  # fmt: skip


def batch_rows(rows: int, most: int) -> int:
    """Rows of each batch, so that batches of at most `most` are as full as can be."""
    number = -(-rows // most)
    return -(-rows // number) if number else most


def _batches(rows: NDArray[np.int64], size: int) -> list[tuple[NDArray[np.int64], int]]:
    """Pieces of one shape, at most `size` rows each, the last filled up, and how many of each count."""
    size = batch_rows(len(rows), size)
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [(np.concatenate([p, np.repeat(p[:1], size - len(p))]), len(p)) for p in pieces]


def expected(run: Run, rule: TerminationRule | None, dreamer: Dreamer, steps: Steps) -> Candidates:
    """Imagined and real return of every candidate (Eqs. 17, 18); `steps` are NumPy."""
    rows = candidate_rows(run)
    ahead, parts, done = np.arange(run.config.augment.imagine_steps), [], 0
    run.progress.begin("augment", 0, len(rows), "candidates")
    for piece, count in _batches(rows, run.config.augment.batch_size):
        stretches = Steps(*(jnp.asarray(leaf[piece[:, None] + ahead]) for leaf in steps))
        both = _returns(run.config, rule, dreamer, stretches)
        parts.append(np.stack([np.asarray(part)[:count] for part in both]))
        done += count
        run.progress.advance(done)
    run.progress.end()
    both_returns = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.float32)
    return Candidates(rows, both_returns[0], both_returns[1])


def batches_from(
    run: Run, augment: AugmentConfig, rule: TerminationRule | None, dreamer: Dreamer, steps: Steps,
    rows: NDArray[np.int64], key: jax.Array,
) -> Iterator[tuple[NDArray[np.int64], Segment]]:  # fmt: skip
    """Algorithm 1 from each row, NumPy, learner's units, with the rows, batch by batch.

    Batch number b draws from `fold_in(key, b)`.
    """
    for number, (piece, count) in enumerate(_batches(rows, augment.batch_size)):
        batch_key = jax.random.fold_in(key, number)
        start = jnp.asarray(steps.observations[piece])
        segment = _imagine(run.config, augment, rule, dreamer, steps.actions.shape[1], start, batch_key)
        yield piece[:count], jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], segment)


def segments_from(
    run: Run, augment: AugmentConfig, rule: TerminationRule | None, dreamer: Dreamer, steps: Steps,
    rows: NDArray[np.int64], key: jax.Array,
) -> Segment:  # fmt: skip
    """What `batches_from` makes, in one piece."""
    parts = [segment for _, segment in batches_from(run, augment, rule, dreamer, steps, rows, key)]
    joined: Segment = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return joined


def augment(run: Run, values: Any, world: Any, split: Any) -> str:
    """Makes augmented.hdf5; returns its fingerprint. `values` and `world` are finished stages."""
    fingerprint = run.fingerprint("augment", run.config.augment, (values.fingerprint, world.fingerprint))

    def work() -> dict[str, Any]:
        config, steps = run.config.augment, run.steps
        keys, seeds, went_wrong = run.keys("augment"), [], dict[int, str]()
        run.store("augment", fingerprint).forget()  # of a try cut short
        with files.replacing(run.folder / augmented.NAME) as partial, h5py.File(partial, "w") as file:
            for row, seed in enumerate(run.seeds):
                dreamer = dreamer_of(run, values, world, row)
                found = expected(run, split.rule, dreamer, steps)
                if not np.isfinite(found.gap).all():
                    at = found.rows[np.argmin(np.isfinite(found.gap))]
                    went_wrong[seed] = f"tensor gap is not finite at logged step {at}"
                    found = Candidates(found.rows[:0], found.imagined[:0], found.real[:0])
                episode = run.episodes.episode_index[found.rows]
                chosen = choose(found.rows, found.gap, episode, run.episodes.lengths, config)
                writer, lengths = augmented.Writer(run, file, seed), [np.zeros(0, np.int64)]
                run.progress.begin("augment", 0, len(chosen), "states")
                for rows, segments in batches_from(
                    run, config, split.rule, dreamer, steps, chosen, keys[row]
                ):
                    lengths.append(np.asarray(segments.valid).sum(axis=1))
                    keep = lengths[-1] >= config.min_steps
                    at = np.searchsorted(found.rows, rows[keep])
                    places = np.searchsorted(chosen, rows[keep])
                    kept = jax.tree.map(lambda leaf, keep=keep: leaf[keep], segments)
                    wrong = _not_finite(kept)
                    if wrong is not None:
                        name, at = wrong
                        went_wrong[seed] = f"tensor {name} imagined from step {rows[keep][at]} is not finite"
                        lengths.pop()
                        break
                    writer.add(rows[keep], places, kept, found.imagined[at], found.real[at])
                    run.progress.advance(sum(map(len, lengths)))
                run.progress.end()
                seeds.append(_summary(run, found, chosen, np.concatenate(lengths)))
        run.stop("augment", fingerprint, went_wrong)
        return {"seeds": plain(seeds)}

    return run.finish("augment", fingerprint, work)


def _not_finite(segments: Segment) -> tuple[str, int] | None:
    """Name and segment (row) of the first valid step with a number that is none."""
    for name in (*augmented.STEP_KEYS, "uncertainty"):
        leaf = np.asarray(getattr(segments, name))
        finite = np.isfinite(leaf).all(axis=tuple(range(2, leaf.ndim)))
        bad = (segments.valid & ~finite).any(axis=1)
        if bad.any():
            return name, int(np.argmax(bad))
    return None


def dreamer_of(run: Run, values: Any, world: Any, row: int) -> Dreamer:
    """One seed of two finished stages, with the kappa of the world stage's summary."""
    kappa = run.summary("world")["seeds"][row]["kappa"]
    if kappa is None:  # the seed was stopped there; nothing of its model is reliable
        kappa = 0.0
    return Dreamer(unstack(values.state, row), unstack(world.state.best, row), jnp.float32(kappa))


def _summary(
    run: Run, found: Candidates, chosen: NDArray[np.int64], lengths: NDArray[np.int64]
) -> dict[str, Any]:
    """`lengths`: valid steps of the segment from each chosen row."""
    keep = lengths >= run.config.augment.min_steps
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
