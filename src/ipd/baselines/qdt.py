"""Q-learning Decision Transformer (Yamagata et al., 2023): Decision Transformer on raised returns.

From the end of each episode to its start, R_t = r_t + max(R_{t+1}, V(s_{t+1})): where the learned value
promises more than the episode went on to earn, the promise is what later steps count for. Model, loss
and use are Decision Transformer's (``dt``).

Within one window returns must still fall by the rewards received, as they will in use. So the raised
return belongs to the window's last step, and those of the steps before follow by adding the logged
rewards: every return-to-go of a window is lifted by what relabelling added at its last step. A step has
therefore different returns in the windows in which it stands last, second to last, and so on. Nothing is
counted behind the last step of an episode, whether it terminated or was cut, as in the published code.

V and rewards are both in scaled rewards; ``return_scale`` divides only their sum. V is discounted while
returns are not, as published, so it is mostly episodes below the best, and ends of episodes, that rise.

Departures from the published code: V is that of IPD's value stage (implicit Q-learning with the
Huber-expectile loss) where the paper has conservative Q-learning and averages Q over ten sampled
actions; its reproduction offers that and implicit Q-learning. Those of ``dt`` hold as well.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ipd.baseline_config import QDTConfig
from ipd.baselines import dt, sequences
from ipd.baselines.dt import act, begin, init, update
from ipd.baselines.material import Constants, Material
from ipd.baselines.sequences import Logged, State, Window
from ipd.nn.mlp import PRNG

__all__ = ["DATA_AXES", "State", "act", "begin", "draw", "init", "prepare", "update"]


class Data(NamedTuple):
    """Logged steps, and what relabelling adds to the return of each, in units of ``return_scale``."""

    logged: Logged
    raised: Float[Array, "steps"]


DATA_AXES = Data(None, 0)  # type: ignore[arg-type]
"""Each seed has values of its own."""


def raised_returns(
    rewards: Float[Array, "steps"], last: Bool[Array, "steps"], values: Float[Array, "steps"]
) -> Float[Array, "steps"]:
    """R_t = r_t + max(R_{t+1}, V(s_{t+1})), and r_t at the ``last`` step of each episode.

    ``values`` are V(s_t) at the same rows and in the same unit as ``rewards``.
    """

    def back(behind: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        reward, is_last, value = step
        now = reward + jnp.where(is_last, 0.0, behind)
        return jnp.maximum(now, value), now

    return jax.lax.scan(back, jnp.zeros((), rewards.dtype), (rewards, last, values), reverse=True)[1]


def prepare(config: QDTConfig, material: Material) -> tuple[Data, Constants]:
    """Logged steps and the lift of their returns; constants as in ``dt``. Needs ``material.values``."""
    if material.values is None:
        raise ValueError("QDT relabels with values; material has none")
    logged, constants = dt.prepare(config, material)
    last = np.zeros(len(material.values), bool)
    last[material.starts[1:] - 1] = True
    returns = raised_returns(logged.rewards, jnp.asarray(last), jnp.asarray(material.values))
    return Data(logged, returns / constants["return_scale"] - logged.returns), constants


def draw(config: QDTConfig, data: Data, key: PRNG) -> Window:
    """Decision Transformer's windows, their returns lifted to the raised one of the last step."""
    rows = sequences.draw_rows(config, data.logged, key)
    window = sequences.windows(data.logged, rows, config.context_len)
    return window._replace(returns=window.returns + data.raised[rows][:, None])
