"""Which rows belong to a context or to a candidate window (Eq. 19); no window crosses an episode."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ipd.data.columns import IntArray


def window_rows(
    index: Int[Array, " batch"], start: Int[Array, " batch"], context: int
) -> tuple[Int[Array, "batch context"], Bool[Array, "batch context"]]:
    """Rows of the ``context`` steps that end at row ``index``, oldest first, and which of them exist.

    ``start`` is the first row of each index's episode. Positions before it are not present, and name
    the first row itself, so that every row may be read.
    """
    rows = index[:, None] + jnp.arange(1 - context, 1)[None, :]
    return jnp.maximum(rows, start[:, None]), rows >= start[:, None]


def candidate_steps(starts: IntArray, history_steps: int, imagine_steps: int) -> IntArray:
    """Rows t that may be replanned (Eq. 19), ascending; empty where no episode is long enough.

    In t's own episode ``history_steps`` steps come before t and ``imagine_steps`` recorded steps
    follow from t on, so that the state they end in (the last one's next observation) is logged too.
    ``starts`` (E + 1,) are the first rows of the episodes, then the number of rows.
    """
    rows = np.arange(starts[-1], dtype=np.int64)
    episode = np.searchsorted(starts, rows, side="right") - 1
    enough_before = rows - starts[episode] >= history_steps
    enough_after = starts[episode + 1] - rows >= imagine_steps
    return rows[enough_before & enough_after]
