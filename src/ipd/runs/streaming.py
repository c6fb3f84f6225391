"""The feeds of the stages that can learn from sets larger than memory (`runs.feed`).

All columns lie on disk; a window is gathered from them. Of a set that is streamed, numbers with one value a
step (rewards, prompts, weights, the episode of a row) stay in memory, observations and actions do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from ipd.data.columns import release
from ipd.policy.enriched import Data, Imagined, Logged, stack_seeds
from ipd.runs.context import Run
from ipd.runs.feed import Feed, Shuffled
from ipd.types import Steps
from ipd.value import refit
from ipd.world import learn as world_learner

Rows = NDArray[np.int64]


def _logged(run: Run, rows: int) -> Shuffled:
    stream = run.config.stream
    block = min(stream.block_steps, stream.window_steps)
    return Shuffled(rows, block, stream.window_steps // block, seed=0)


def _updates(blocks: Shuffled, batch_size: int) -> int:
    """As many as draw each row of a window once."""
    return max(1, min(blocks.rows, blocks.size) // batch_size)


def _take(columns: Any, rows: Rows) -> Any:
    taken = jax.tree.map(lambda leaf: leaf[rows], columns)
    release()
    return taken


def steps(run: Run, chosen: Rows | None, batch_size: int) -> Feed:
    """Logged steps, of the `chosen` rows alone where they are given."""
    blocks = _logged(run, len(run.steps.rewards) if chosen is None else len(chosen))

    def window(number: int) -> Steps:
        at = blocks.at(number)
        found: Steps = _take(run.steps, at if chosen is None else chosen[at])
        return found

    return Feed(window, _updates(blocks, batch_size))


def world(run: Run, training: Rows, held_out: Steps) -> Feed:
    """The rows of the `training` episodes, with bootstrap samples; the held-out steps are in every window.

    A member's sample is drawn block by block, as many rows as the block has with replacement, and the same
    whenever the block comes again.
    """
    config, blocks = run.config.world, _logged(run, len(training))

    def sample(seed: int, block: int, first: int, size: int) -> Rows:
        drawn = np.random.default_rng((seed, first)).integers(0, size, (config.num_members, size))
        return drawn + block * size

    def window(number: int) -> world_learner.Data:
        starts, at = blocks.starts(number).tolist(), blocks.at(number)
        size = len(at) // len(starts)
        samples = [
            [sample(seed, block, first, size) for block, first in enumerate(starts)] for seed in run.seeds
        ]
        bootstrap: Any = np.concatenate(np.swapaxes(samples, 0, 1), axis=-1, dtype=np.int32)
        return world_learner.Data(_take(run.steps, training[at]), held_out, bootstrap)

    return Feed(window, _updates(blocks, config.batch_size))


def refitted(run: Run, imagined: Sequence[Steps]) -> Feed:
    """Logged steps beside each seed's own `imagined` ones."""
    blocks, config = _logged(run, len(run.steps.rewards)), run.config.value
    own = [blocks._replace(rows=len(part.rewards), seed=seed)
           for part, seed in zip(imagined, run.seeds, strict=True)]  # fmt: skip

    def window(number: int) -> refit.Data:
        parts = [_take(part, order.at(number)) for part, order in zip(imagined, own, strict=True)]
        imagined_now: Any = refit.stack_seeds(parts)
        return refit.Data(_take(run.steps, blocks.at(number)), *imagined_now)

    return Feed(window, _updates(blocks, config.batch_size))


def enriched_steps(run: Run, parts: Sequence[Data]) -> Feed:
    """Enriched data for the sequence policy, of every seed.

    The context of a logged step begins in its block at the earliest, as if the episode did. The context of an
    imagined one is complete: the steps before its segment's first are appended to those of the blocks.
    """
    context, logged = run.config.policy.context_len, parts[0].logged
    time = parts[0].imagined.actions.shape[1]
    blocks = _logged(run, len(logged.timesteps))
    # as many imagined steps as logged ones, or fewer, if a seed would append more rows than the blocks have
    segments = max(1, blocks.block // time)
    fit = max(1, blocks.size // max(time, context) // segments)
    orders = [Shuffled(len(part.imagined.source), segments, fit, seed)
           for part, seed in zip(parts, run.seeds, strict=True)]  # fmt: skip

    def window(number: int) -> Data:
        table, starts = [blocks.at(number)], blocks.starts(number)
        size = len(table[0]) // len(starts)
        moved = np.repeat(np.arange(len(starts)) * size - starts, size)
        local = [np.maximum(logged.episode_start[table[0]], np.repeat(starts, size)) + moved]
        imagined = []
        for part, order in zip(parts, orders, strict=True):
            *leaves, total = part.imagined
            chosen = Imagined(*_take(leaves, order.at(number)), total)  # type: ignore[call-arg]
            history = chosen.source[:, None] + np.arange(1 - context, 1)
            at = sum(map(len, table)) + np.arange(history.size).reshape(history.shape)
            missing = np.maximum(logged.episode_start[chosen.source] - history[:, 0], 0)
            table.append(np.maximum(history, 0).reshape(-1))
            local.append(np.repeat(at[:, 0] + missing, context))
            moved_to: Any = {"source": at[:, -1].astype(np.int32), "total": np.minimum(total, len(at))}
            imagined.append(chosen._replace(**moved_to))
        rows = np.concatenate(table)
        shared: dict[str, Any] = {
            "observations": logged.observations[rows],
            "actions": logged.actions[rows],
            "timesteps": logged.timesteps[rows],
            "episode_start": np.concatenate(local).astype(np.int32),
            "total": np.int32(len(table[0])),
        }
        return stack_seeds(
            [
                Data(Logged(prompts=own.prompts[rows], weights=own.weights[rows], **shared), dreamt)
                for own, dreamt in zip([part.logged for part in parts], imagined, strict=True)
            ]
        )

    return Feed(window, _updates(blocks, run.config.policy.batch_size))
