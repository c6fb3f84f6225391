"""Estimates of a policy's return from data and models alone, against answers known on paper."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.baseline_config import DTConfig
from ipd.baselines import dt
from ipd.baselines.sequences import chosen
from ipd.config import PolicyConfig
from ipd.data.episodes import Episodes, fit_normaliser, to_steps
from ipd.data.probes import LINEAR_A, LINEAR_B, LINEAR_Q, LINEAR_R, chain, linear_feedback, linear_quadratic
from ipd.evaluation import fqe, logged_actions
from ipd.evaluation.agreement import Estimate, apart, estimate, rank_correlation, verdict
from ipd.evaluation.coverage import Support, action_distance
from ipd.evaluation.logged_actions import layout, remembered_actions, sequence_actions
from ipd.evaluation.model_return import model_return, reliable_share
from ipd.policy.act import Driver, act, begin
from ipd.policy.model import SequencePolicy
from ipd.types import Prediction, Spec, Steps
from ipd.value.networks import Critics, Value

GAMMA = 0.9


def plain_steps(episodes: Episodes) -> Steps:
    """Logged units as they are."""
    still = fit_normaliser(episodes)
    zero = np.zeros_like(still.observation_mean)
    return to_steps(episodes, still._replace(observation_mean=zero, observation_std=zero + np.float32(1)))


def fit(
    config: fqe.FQEConfig, episodes: Episodes, next_actions: np.ndarray, members: int = 1
) -> tuple[fqe.State, fqe.Data]:
    """Networks of one policy, trained by a plain loop."""
    steps, axes = plain_steps(episodes), fqe.DATA_AXES
    parts: tuple[Any, ...] = (
        steps, next_actions[None], fqe.bootstrap(episodes.starts, members),
        fqe.limits(np.asarray(steps.rewards), config.discount), np.zeros(members, int), np.arange(members),
    )  # fmt: skip
    data = jax.tree.map(jnp.asarray, fqe.Data(*parts))
    spec = Spec(episodes.observation_size, episodes.action_size, 10)
    keys = jax.random.split(jax.random.key(0), members)

    def one(data: fqe.Data, key: jax.Array) -> fqe.State:
        def body(state: fqe.State, number: jax.Array) -> tuple[fqe.State, None]:
            batch = fqe.draw(config, data, jax.random.fold_in(key, number))
            return fqe.update(config, state, batch, key)[0], None

        return jax.lax.scan(body, fqe.init(config, spec, key), jnp.arange(config.steps))[0]

    return jax.jit(jax.vmap(one, in_axes=(axes, 0)))(data, keys), data


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_fitted_q_stops_at_terminations_and_goes_on_through_truncations(end: Any) -> None:
    episodes = chain(32, end)
    config = fqe.FQEConfig(3_000, (32, 32), GAMMA, 64, 3e-3, 0.02)
    state, data = fit(config, episodes, np.zeros_like(episodes.actions))
    first, second = np.eye(2, dtype=np.float32)
    said = fqe.estimates(state, data.policy, jnp.stack([first, second]), jnp.zeros((1, 2, 1)))[0]
    last = 1.0 if end == "terminated" else 1.0 / (1.0 - GAMMA)
    np.testing.assert_allclose(said, [GAMMA * last, last], rtol=0.05)


def linear_policy_cost(feedback: np.ndarray) -> np.ndarray:
    """P of V(s) = -s'P s under a = -K s."""
    cost, closed = np.zeros((3, 3)), LINEAR_A - LINEAR_B @ feedback
    for _ in range(2_000):
        cost = LINEAR_Q + feedback.T @ LINEAR_R @ feedback + GAMMA * closed.T @ cost @ closed
    return cost


def test_fitted_q_finds_the_value_of_a_linear_policy() -> None:
    episodes = linear_quadratic(400, 10, seed=0, behaviour_noise=0.5)
    feedback = 0.25 * linear_feedback(0.99)  # neither the behaviour nor the optimum
    pi = partial(_linear, feedback)
    config = fqe.FQEConfig(6_000, (64, 64), GAMMA, 128, 2e-3, 0.02)
    state, data = fit(config, episodes, pi(episodes.next_observations), members=2)
    starts = episodes.observations[episodes.starts[:-1]]
    said = np.asarray(fqe.estimates(state, data.policy, jnp.asarray(starts), jnp.asarray(pi(starts))[None]))
    true = -np.einsum("ni,ij,nj->n", starts, linear_policy_cost(feedback), starts)
    behaviour = -np.einsum("ni,ij,nj->n", starts, linear_policy_cost(0.5 * linear_feedback(0.99)), starts)
    off = 0.1 * abs(true.mean())
    assert abs(said.mean() - true.mean()) < off < abs(behaviour.mean() - true.mean())
    assert np.corrcoef(said.mean(0), true)[0, 1] > 0.97


def _linear(feedback: np.ndarray, states: np.ndarray) -> np.ndarray:
    return np.clip(-states @ feedback.T, -1, 1).astype(np.float32)


def test_bootstrap_draws_whole_episodes() -> None:
    starts = np.array([0, 2, 3, 7])
    rows = fqe.bootstrap(starts, 50)
    assert rows.shape == (50, 7)
    assert len({tuple(each) for each in rows}) > 10
    for each in rows[:, :2]:
        if each[0] == 0:  # the first episode is drawn with both of its rows
            assert each[1] == 1


def count_down(observation: jax.Array, action: jax.Array) -> Prediction:
    """s' = s - 1, reward 1; ends at 0, unsure where the second entry is small."""
    following = observation - 1.0
    ended = (following[:, 0] <= 0).astype(jnp.float32)
    return Prediction(following, jnp.ones(len(action)), ended, (observation[:, 1] < 1.5).astype(jnp.float32))


def test_return_in_a_model_is_cut_with_v_where_it_is_unsure() -> None:
    starts = jnp.array([[3.0, 100.0], [100.0, 4.0], [100.0, 100.0], [100.0, 0.0]])

    def still(memory: Any, observation: jax.Array, reward: jax.Array, key: jax.Array) -> Any:
        return jnp.zeros((len(observation), 1)), memory

    found = model_return(
        count_down, still, (), lambda s: 10.0 + s[:, 0], starts, 5, GAMMA, 0.5, jax.random.key(0)
    )
    three, five = 1 + GAMMA + GAMMA**2, sum(GAMMA**k for k in range(5))
    np.testing.assert_allclose(found.imagined, [three, three, five, 0], rtol=1e-5)
    # ended: nothing; cut after three steps: V of the state it stood in; horizon; never began
    np.testing.assert_allclose(found.bootstrapped, [0, GAMMA**3 * 107, GAMMA**5 * 105, 110], rtol=1e-5)
    assert found.length.tolist() == [3, 3, 5, 0]
    assert found.cut.tolist() == [False, True, False, True]
    assert found.valid.sum(1).tolist() == [3, 3, 5, 0]
    assert 0 < reliable_share(found) < 0.1


def test_a_policy_in_the_model_hears_its_own_rewards_and_remembers() -> None:
    def act(memory: jax.Array, observation: jax.Array, reward: jax.Array, key: jax.Array) -> Any:
        return memory[:, None] + reward[:, None], memory + 1

    start = jnp.array([[50.0, 50.0]])
    found = model_return(
        count_down, act, jnp.zeros(1), lambda s: s[:, 0], start, 3, 1.0, 0.5, jax.random.key(0)
    )
    assert found.actions[0, :, 0].tolist() == [0, 2, 3]


def test_actions_along_the_log_are_those_of_the_policy_in_use() -> None:
    config = PolicyConfig(width=8, heads=2, layers=1, context_len=3, time="episode")
    spec = Spec(2, 1, 4)  # episodes outlive the table of timesteps
    keys = jax.random.split(jax.random.key(1), 3)
    driver = Driver(
        SequencePolicy(config, spec, keys[0]), Value(2, (8,), keys[1]), Critics(2, 1, (8,), 1, keys[2]),
        jnp.asarray(2.0),
    )  # fmt: skip
    random = np.random.default_rng(0)
    lengths = (6, 2)
    states = [random.normal(size=(length + 1, 2)).astype(np.float32) for length in lengths]
    done = []
    for episode in states:
        memory, taken = begin(3, spec), []
        for state in episode:
            action, memory = act(driver, memory, jnp.asarray(state), jnp.zeros(()), keys[0])
            taken.append(np.asarray(action))
        done.append(np.stack(taken))
    steps: Any = Steps(
        np.concatenate([s[:-1] for s in states]), np.concatenate([a[:-1] for a in done]), np.zeros(8),
        np.concatenate([s[1:] for s in states]), np.zeros(8),
    )  # fmt: skip
    rows = layout(steps, np.array([0, 6, 8]))
    said = sequence_actions(driver, 3, rows)
    np.testing.assert_allclose(said, np.concatenate(done), atol=1e-5)
    np.testing.assert_allclose(said[rows.logged + 1], np.concatenate([a[1:] for a in done]), atol=1e-5)


@pytest.mark.parametrize("together", [256, 2])
def test_a_memory_along_the_log_has_what_was_logged(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_actions, "EPISODES", together)
    config, spec = DTConfig(width=8, heads=2, layers=1, context_len=3), Spec(2, 1, 4)
    state = dt.init(config, spec, jax.random.key(0))
    constants = {"return_scale": jnp.asarray(2.0), "target": jnp.asarray(1.5)}

    def act(actor: Any, memory: Any, *now: Any) -> Any:
        return dt.act(config, actor, constants, memory, *now)

    random, lengths = np.random.default_rng(0), (6, 2, 3)
    blank, parts, states = dt.begin(config, spec, constants), [], []
    for length in lengths:
        memory, heard = blank, jnp.zeros(())
        states.append(random.normal(size=(length + 1, 2)).astype(np.float32))
        for state_now in states[-1]:
            action, memory = act(state, memory, jnp.asarray(state_now), heard, jax.random.key(0))
            heard, taken = jnp.asarray(random.normal(), jnp.float32), jnp.asarray([random.uniform(-1, 1)])
            memory = chosen(memory, taken)  # somebody else acted
            parts.append((np.asarray(action), np.asarray(taken), float(heard)))
    actions, taken, rewards = (np.array(each, np.float32) for each in zip(*parts, strict=True))
    logged = np.setdiff1d(np.arange(14), np.cumsum([7, 3, 4]) - 1)
    steps: Any = Steps(
        np.concatenate([s[:-1] for s in states]), taken[logged], rewards[logged],
        np.concatenate([s[1:] for s in states]), np.zeros(11),
    )  # fmt: skip
    rows = layout(steps, np.array([0, 6, 8, 11]))
    np.testing.assert_allclose(remembered_actions(act, state, blank, rows), actions, atol=1e-5)


def test_coverage_tells_near_from_far() -> None:
    random = np.random.default_rng(0)
    states, actions = random.normal(size=(4_000, 2)), random.normal(size=(4_000, 1))
    again, far = random.normal(size=(4_000, 1)), actions + 20
    assert action_distance(states, actions, actions)["relative"] == 0
    near = action_distance(states, actions, again)["relative"]
    assert near is not None and 0.5 < near < 1.5
    assert (action_distance(states, actions, far)["relative"] or 0) > 5
    support = Support(np.concatenate([states, actions], 1), np.arange(0, 4_001, 100))
    fresh = support.outside(np.concatenate([random.normal(size=(4_000, 2)), again], 1))
    assert fresh is not None and fresh < 0.03
    assert support.outside(np.concatenate([states, far], 1)) == 1
    assert support.outside(np.zeros((0, 3))) is None


def test_intervals_cover_members_and_starts() -> None:
    random = np.random.default_rng(0)
    starts = estimate(random.normal(size=(1, 400)))
    assert starts.low < 0.1 and starts.high > -0.1 and 0.07 < starts.half < 0.13  # 1.96 / 20
    members = estimate(np.repeat(np.array([[0.0], [1.0]]), 50, 1))
    assert (members.mean, members.low, members.high) == (0.5, 0, 1)
    assert apart(starts, starts) == 0 and apart(members, members._replace(mean=2.0)) > 1
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 5.0, 9.0]) == 1
    assert rank_correlation([1.0, 2.0], [1.0, 2.0]) is None


def told(fitted: float, imagined: float | None = None, **more: Any) -> dict[str, Any]:
    """A summary in which gains are so large, each give or take 1."""
    width = more.get("width", 1.0)

    def around(mean: float) -> dict[str, float]:
        return {"mean": float(mean), "low": mean - width, "high": mean + width}

    own: dict[str, Any] = {"fqe": {"gain": around(fitted)}, "outside": more.get("outside", 0.02)}
    own["actions"] = {"relative": more.get("relative", 0.8), "distance": more.get("distance", 0.4)}
    own["apart"] = more.get("apart", 0.3)
    if imagined is not None:
        own["model"] = {"gain": around(imagined), "reliable_share": more.get("share", 0.9)}
    error = more.get("error", 0.1)
    data = {"fqe": around(100 + error), "logged": around(100), "behind_share": more.get("behind", 0.0)}
    return {"policies": {"behaviour": data, "ipd": own}, "rank_correlation": more.get("rank", 0.9),
            "calibration": around(error), "data": {"episodes": more.get("episodes", 50),
            "same_reward": more.get("reward"), "terminates": more.get("ends", True)}}  # fmt: skip


@pytest.mark.parametrize(
    "summary, said",
    [
        (told(5, 4), "Both estimates say that the policy is better than the data: +5 (+4 to +6) by fitted Q"),
        (told(-5, -4), "Both estimates say that the policy is worse than the data"),
        (told(5, -4), "contradict each other, do not trust"),
        (told(0.5, -0.5), "Neither estimate can tell"),
        (told(5, 0.5), "Fitted Q says that the policy is better than the data, the model leaves it open"),
        (told(0.5, -5), "The model says that the policy is worse than the data, fitted Q leaves it open"),
        (told(5, 4, apart=3.0), "differ by 3.0 times their intervals"),
        (told(5, 4, apart=np.inf), "The estimates differ: the size"),
        (told(5, 4, rank=-0.2), "rank the policies differently (rank correlation -0.20)"),
        (told(5, 4, share=0.2), "The model was left early: 80 % of its estimate is the word of V"),
        (told(5, 4, error=7.0), "data's own return at 107, and 100 was logged: a miss larger than"),
        (told(0, error=-60.0), "at 40, and 100 was logged: it has not learned it"),
        (told(5, 4, relative=3.5), "outside the data (3.5 times"),
        (told(5, 4, outside=0.5), "50 % of imagined pairs beyond"),
        (told(5, outside=None, relative=3.5), "outside the data (3.5 times the data's own spread)."),
        (told(5), "Fitted Q says that the policy is better than the data: +5 (+4 to +6). No second estimate"),
        (told(0.5), "Fitted Q cannot tell whether the policy is better or worse than the data"),
        (told(0, 0, width=0.0, relative=None, distance=0), "The policy does what the data did"),
        (told(0, relative=0.01), "The policy does what the data did"),
        (told(5, episodes=1), "One logged episode is too few"),
        (told(5, episodes=4), "4 logged episodes are too few"),
        (told(5, reward=2.0), "Every logged reward is 2: a return says how long episodes last"),
        (told(5, reward=2.0, ends=False), "nothing tells policies apart"),
        (told(5, reward=0.0), "nothing tells policies apart"),
        (told(5, relative=None), "always took the same action"),
        (told(5, 4, behind=0.8, error=7.0), "80 % of the data's return is what fitted Q expects"),
    ],
)
def test_verdicts(summary: dict[str, Any], said: str) -> None:
    assert said in " ".join(verdict("ipd", summary))


def test_a_verdict_without_reserve_has_none() -> None:
    assert len(verdict("ipd", told(5, 4))) == 2
    assert len(verdict("ipd", told(0, error=7.0))) == 3  # a small miss is no reserve where nothing is claimed


def test_what_is_certain_and_equal_is_not_apart() -> None:
    sure = Estimate(2.0, 2.0, 2.0)
    assert apart(sure, sure) == 0 and apart(sure, Estimate(3.0, 3.0, 3.0)) == np.inf
