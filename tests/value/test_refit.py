"""Refit of the values: what a batch holds, and where the policy's schedule begins again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.config import ValueConfig
from ipd.types import Spec, Steps
from ipd.value import learn, refit

CONFIG = ValueConfig(steps=40, batch_size=20, hidden=(7,))


def steps(rows: int, sign: float) -> Steps:
    """Rewards tell the row and, by their sign, whether it was logged (+) or imagined (-)."""
    told = sign * (1.0 + jnp.arange(rows))
    wide = jnp.broadcast_to(told[:, None], (rows, 5))
    return Steps(wide, wide[:, :3], told, wide, jnp.zeros(rows))


@pytest.mark.parametrize(("share", "dreams"), [(0.0, 0), (0.25, 5), (1.0, 20)])
def test_a_batch_holds_its_share_of_imagined_steps_and_no_padding(share: float, dreams: int) -> None:
    data = refit.Data(steps(30, 1.0), steps(11, -1.0), jnp.asarray(4))
    batches = jax.jit(jax.vmap(lambda key: refit.draw(share, CONFIG, data, key)))(
        jax.random.split(jax.random.key(0), 50)
    )
    rewards = np.asarray(batches.rewards)
    assert ((rewards < 0).sum(axis=1) == dreams).all()
    assert rewards.min() >= -4.0  # rows 5 to 11 of the imagined steps are padding
    np.testing.assert_array_equal(batches.observations[..., 0], rewards)
    if 0 < dreams < 20:
        assert set(np.unique(rewards)) == {-4.0, -3.0, -2.0, -1.0, *np.arange(1.0, 31.0)}


def test_restart_keeps_everything_but_the_policys_optimiser() -> None:
    state = jax.jit(lambda key: learn.init(CONFIG, Spec(5, 3, 50), key))(jax.random.key(1))
    batch = steps(20, 1.0)
    worn, _ = jax.jit(lambda s: learn.update(CONFIG, s, batch, jax.random.key(2)))(state)
    again = refit.restart(CONFIG, worn)
    counts = [int(leaf) for leaf in jax.tree.leaves(again.policy_optimiser) if leaf.shape == ()]
    assert counts and not any(counts)  # the cosine counts from 0
    for name in set(learn.State._fields) - {"policy_optimiser"}:
        for kept, before in zip(
            jax.tree.leaves(getattr(again, name)), jax.tree.leaves(getattr(worn, name)), strict=True
        ):
            np.testing.assert_array_equal(kept, before)
