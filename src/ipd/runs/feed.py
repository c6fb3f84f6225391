"""What the training loop learns from: data as a whole, or window after window of a set larger than memory.

A window is a number of blocks of neighbouring rows. The blocks are taken in a random order, each once,
then in another random order, and so on; within a window a learner draws as it always does. Which window an
update sees depends on its number alone, so a run that resumes needs nothing but that number.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Feed(NamedTuple):
    """Windows of data for a learner."""

    window: Callable[[int], Any]
    """Number of a window, from 0 on -> what the learner's `draw` takes, NumPy, always of the same shapes.
    It is called ahead of time, in another thread."""
    updates: int
    """Updates that draw from one window."""


class Shuffled(NamedTuple):
    """Rows in blocks of neighbours, the blocks in random order, a new one each time round."""

    rows: int
    block: int
    blocks: int
    """In a window."""
    seed: int
    """Of the order."""

    @property
    def whole(self) -> bool:
        """Whether all rows fit into one window."""
        return self.rows <= self.size

    @property
    def size(self) -> int:
        """Rows of a window that is not whole."""
        return self.block * self.blocks

    def starts(self, window: int) -> NDArray[np.int64]:
        """First row of each block of a window; a block at the very end begins early enough to be full."""
        if self.whole:
            return np.zeros(1, np.int64)
        count = -(-self.rows // self.block)
        places = range(window * self.blocks, (window + 1) * self.blocks)
        order = np.array([_order(self.seed, place // count, count)[place % count] for place in places])
        return np.minimum(order * self.block, self.rows - self.block)

    def at(self, window: int) -> NDArray[np.int64]:
        """All rows of a window, block by block."""
        inside = np.arange(self.rows if self.whole else self.block)
        return (self.starts(window)[:, None] + inside).reshape(-1)


@lru_cache(maxsize=8)
def _order(seed: int, time: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, time)).permutation(count)


class Ahead:
    """Reads the next window while the loop learns from the last; used as a context."""

    def __init__(self, data: Any, step: int, steps: int, place: Callable[[Any], Any] = lambda data: data):
        """`data` is a `Feed`, or all there is; `step` of `steps` updates are done; `place` moves a window
        to where it is learned from."""
        feed = data if isinstance(data, Feed) else Feed(lambda _: data, max(steps, 1))
        self._feed, self._steps, self._next, self._place = feed, steps, step // feed.updates, place
        self._pool = ThreadPoolExecutor(1, "ipd-feed")
        self._read: Future[Any] = self._pool.submit(self._window, self._next)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _window(self, number: int) -> Any:
        return self._place(self._feed.window(number))

    def take(self) -> tuple[Any, int]:
        """The next window, and the update with which it ends. Raises what reading it raised."""
        data = self._read.result()
        self._next += 1
        until = self._next * self._feed.updates
        if until < self._steps:
            self._read = self._pool.submit(self._window, self._next)
        return data, until
