"""Acting is float64 inside: alone or side by side an episode is the same; learning never sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.baselines import dt
from ipd.export.portable import Portable
from ipd.policy.act import Controller, widened
from ipd.runs.algorithms import ALGORITHMS

from .conftest import NORMALISER, SPEC, acting, baseline, sequence

ROWS, STEPS = 20, 6


@pytest.mark.parametrize("make", [sequence, lambda: baseline("dt")], ids=["ipd", "dt"])
def test_an_episode_among_twenty_is_the_same_alone(make: Callable[[], Portable]) -> None:
    controller, random = make().controller, np.random.default_rng(0)
    seen = NORMALISER.observation_mean + 2 * random.normal(size=(STEPS, ROWS, 5)).astype(np.float32)
    rewards = random.normal(size=(STEPS, ROWS)).astype(np.float32)
    controller.reset(ROWS)
    together = np.stack([controller.act(*now) for now in zip(seen, rewards, strict=True)])
    assert together.dtype == np.float32 and np.ptp(together, axis=(0, 1)).min() > 0.02
    for row in range(ROWS):
        controller.reset()
        alone = [controller.act(*now) for now in zip(seen[:, row], rewards[:, row], strict=True)]
        np.testing.assert_array_equal(alone, together[:, row])


def results(jaxpr: Any) -> Iterator[Any]:
    """(operation, type of its result) of all that a program computes, programs within it too."""
    for line in jaxpr.eqns:
        yield from ((line.primitive.name, out.aval.dtype) for out in line.outvars)
        for inner in jax.tree.leaves(
            list(line.params.values()),
            is_leaf=lambda leaf: isinstance(leaf, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr),
        ):
            if isinstance(inner, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr):
                yield from results(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("name", ["ipd", *ALGORITHMS])
def test_nothing_is_rounded_to_float32_on_the_way_to_the_action(name: str) -> None:
    made = sequence() if name == "ipd" else baseline(name, layers=1)
    with jax.enable_x64(True):
        program = jax.make_jaxpr(made.step)(jnp.zeros(5, jnp.float32), made.blank)
    found = list(results(program.jaxpr))
    assert ("dot_general", jnp.float64) in found
    rounded = [each for each in found if each[1] == jnp.float32]
    # the action at the end, and that no reward is left over
    assert [each for each in rounded if each[0] != "broadcast_in_dim"] == [
        ("convert_element_type", jnp.float32)
    ]


def test_learning_beside_acting_is_float32() -> None:
    """Another thread sees nothing of the 64 bits, nor does this one afterwards."""
    types: list[Any] = []

    def act(_: Any, memory: Any, observation: jax.Array, *now: Any) -> tuple[jax.Array, Any]:
        with ThreadPoolExecutor(1) as other:
            types.append(other.submit(lambda: jnp.zeros(()).dtype).result())
        types.append(jnp.zeros(()).dtype)
        return observation[:3], memory

    Controller(act, (), (), 1, NORMALISER).act(np.zeros(5))
    assert types[:2] == [jnp.float32, jnp.float64] and jnp.zeros(()).dtype == jnp.float32
    _, config, state, _, _ = acting("dt")
    rows = [jnp.zeros((7, *shape)) for shape in ((5,), (3,), (), (5,), (), ())]
    logged = dt.Logged(*rows, jnp.arange(7, dtype=jnp.int32), jnp.zeros(7, jnp.int32))
    key = jax.random.key(0)
    after = jax.eval_shape(lambda: dt.update(config, state, dt.draw(config, logged, key), key))
    wide = [leaf.dtype for leaf in jax.tree.leaves((after, dt.begin(config, SPEC, {"target": jnp.ones(())})))]
    assert not {np.dtype(float), np.dtype(int)} & set(wide)


def test_whole_numbers_are_not_widened() -> None:
    with jax.enable_x64(True):
        kept = widened((jnp.zeros(2, jnp.int32), jnp.zeros(2, bool), jnp.zeros(2, jnp.float32)))
    assert [leaf.dtype for leaf in kept] == [jnp.int32, jnp.bool_, jnp.float64]
