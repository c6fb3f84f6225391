"""QT against plain loops: the critics' target, both losses, the averages, and how an action is drawn."""

from __future__ import annotations

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import Adam, Arrays, filled, leaves, member, mlp

from ipd.baseline_config import QTConfig
from ipd.baselines import qt, sequences
from ipd.baselines.material import Constants, Material
from ipd.baselines.qt import Batch, Policy, State
from ipd.baselines.sequences import Context, Logged, Window
from ipd.types import Spec, Steps

CONFIG = QTConfig(
    batch_size=40,
    learning_rate=1e-2,
    critic_learning_rate=1e-2,
    clip_norm=0.05,
    layers=1,
    heads=2,
    width=6,
    context_len=4,
    dropout=0.0,
    hidden=(7,),
    discount=0.8,
    polyak=0.3,
    q_weight=0.7,
    target_average=0.75,
    target_average_every=2,
    target_average_start=3,
    candidates=9,
)
SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=50)
STARTS = np.array([0, 6, 14])
"""Two episodes: the first ends in a termination, the second in a truncation."""


@pytest.fixture(scope="module")
def prepared() -> tuple[Logged, Constants]:
    random = np.random.default_rng(0)
    terminated = np.zeros(14, np.float32)
    terminated[5] = 1.0

    def numbers(*shape: int) -> Any:
        return random.normal(size=shape).astype(np.float32)

    observations, following = numbers(14, 5), numbers(14, 5)
    # observations follow one another inside an episode
    for first, end in itertools.pairwise(STARTS):
        following[first : end - 1] = observations[first + 1 : end]
    steps = Steps(observations, np.tanh(numbers(14, 3)), 1 + 0.3 * numbers(14), following, terminated)
    return qt.prepare(CONFIG, Material(steps, STARTS, SPEC, reward_scale=0.5))


def fresh() -> State:
    """Every network of the state differs from every other; actions depend strongly on the return."""
    blank = filled(lambda key: qt.init(CONFIG, SPEC, key), 0, 0.0)
    nets = [filled(lambda key: qt.init(CONFIG, SPEC, key), seed) for seed in (1, 2, 3)]
    weight = lambda policy: policy.trunk.embed[0].weight  # noqa: E731
    policy, average, acting = (
        eqx.tree_at(weight, net.target_policy, 30 * weight(net.target_policy)) for net in nets
    )
    return blank._replace(
        policy=blank.policy._replace(model=policy, acting=acting),
        target_policy=average,
        critics=nets[0].critics,
        target_critics=nets[1].critics,
    )


def drawn(data: Logged) -> tuple[Batch, np.ndarray]:
    key = jax.random.key(4)
    rows = np.asarray(sequences.draw_rows(CONFIG, data, key))
    return jax.jit(lambda k: qt.draw(CONFIG, data, k))(key), rows


def plain_q(critics: Any, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    pair = np.concatenate([observation, action])[None]
    return np.array([mlp(member(critics, i), pair, 2)[0][0, 0] for i in range(2)])


newest_actions = jax.jit(jax.vmap(lambda policy, context: policy(context)[0][-1], in_axes=(None, 0)))


def contexts_behind(data: Logged, constants: Constants) -> Context:
    """For every logged step the context that acting would have at the step after it, walked to by hand."""
    d, length = jax.tree.map(np.asarray, data), CONFIG.context_len
    blank = Context(*(np.zeros((14, length, *tail), kind) for tail, kind in (
        ((5,), "f4"), ((3,), "f4"), ((), "f4"), ((), "i4"), ((), "?"))))  # fmt: skip
    for row in range(14):
        first, end = (0, 6) if row < 6 else (6, 14)
        for place, at in enumerate(range(row + 2 - length, row + 2)):
            if at >= first:
                blank.present[row, place], blank.timesteps[row, place] = True, at - first
                blank.returns[row, place] = d.rewards[at:end].sum() / constants["return_scale"]
                newest = at == row + 1
                blank.observations[row, place] = d.next_observations[row] if newest else d.observations[at]
                blank.actions[row, place] = 0 if newest else d.actions[at]
    return blank


def plain_targets(state: State, data: Logged, behind: Context) -> np.ndarray:
    """y of every place of the window that ends at each logged step; what is not there is 0."""
    rewards, length = np.asarray(data.rewards, float), CONFIG.context_len
    actions = np.asarray(newest_actions(state.target_policy, behind))
    targets = np.zeros((14, length))
    for end in range(14):
        value = plain_q(state.target_critics, behind.observations[end, -1], actions[end]).min()
        for place, row in enumerate(range(end - length + 1, end + 1)):
            if row >= (0 if end < 6 else 6):
                y, gamma = 0.0, 1.0
                for k in range(row, end + 1):
                    y, gamma = y + gamma * rewards[k], gamma * CONFIG.discount
                targets[end, place] = y if end == 5 else y + gamma * value
    return targets


def flat(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Pairs and weights of the present steps."""
    pairs = np.concatenate([window.observations, window.actions], axis=-1)
    present = np.asarray(window.present)
    return pairs[present], present


def test_updates_are_those_of_a_plain_loop(prepared: tuple[Logged, Constants]) -> None:
    data, constants = prepared
    batch, rows = drawn(data)
    assert {5, 13, 0, 6} <= set(rows.tolist())  # both ends and both beginnings
    state, behind = fresh(), contexts_behind(data, constants)
    update = jax.jit(lambda s, b: qt.update(CONFIG, s, b, jax.random.key(2)))
    pairs, present = flat(batch.window)
    adams = [member(state.critics, i) for i in range(2)]
    adam = Adam(adams[0] + adams[1], lambda k: CONFIG.critic_learning_rate)
    average = leaves(state.target_policy)
    for step in range(1, 7):
        before = state
        targets = plain_targets(state, data, behind)[rows][present]
        if step == 1:
            ours = jax.jit(lambda *of: qt.critic_targets(CONFIG, *of))(
                state.target_policy, state.target_critics, batch
            )
            np.testing.assert_allclose(np.asarray(ours)[present], targets, rtol=1e-4, atol=1e-5)
        state, metrics = update(before, batch)

        # the critics' loss, and one clipped step on it and on nothing else
        nets, grads, loss = [member(before.critics, i) for i in range(2)], [], 0.0
        for net in nets:
            q, back = mlp(net, pairs, 2)
            loss += ((q[:, 0] - targets) ** 2).mean()
            grads += back(2 * (q - targets[:, None]) / len(targets))
        np.testing.assert_allclose(float(metrics["critic_loss"]), loss, rtol=1e-4)
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        assert norm > CONFIG.clip_norm and float(metrics["gradient_norm"]) > CONFIG.clip_norm
        expected = adam.step(nets[0] + nets[1], [g * CONFIG.clip_norm / norm for g in grads])
        close(member(state.critics, 0) + member(state.critics, 1), expected, 2e-4)
        close(
            leaves(state.target_critics),
            mix(CONFIG.polyak, leaves(state.critics), leaves(before.target_critics)),
        )
        # the running average: the policy itself up to step 3, then every other step
        if step % 2 == 0:
            share = 1.0 if step < 3 else 1 - CONFIG.target_average
            average = mix(share, leaves(state.policy.model), average)
        close(leaves(state.target_policy), average)
        close(leaves(state.policy.acting), leaves(state.policy.model))  # acts without an average
    assert int(state.policy.step) == 6


def mix(share: float, new: Arrays, old: Arrays) -> Arrays:
    return [share * a + (1 - share) * b for a, b in zip(new, old, strict=True)]


def close(ours: Arrays, theirs: Arrays, tolerance: float = 1e-6) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_policy_loss_and_gradient_for_both_sides_of_the_coin(prepared: tuple[Logged, Constants]) -> None:
    with jax.enable_x64(True):
        data = jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, prepared[0])
        window, state = drawn(data)[0].window, fresh()
        forward = jax.jit(lambda p: jax.vmap(lambda w: p(w))(window))
        present = np.asarray(window.present)

        def plain(policy: Policy, i: int, scale: float | None) -> tuple[float, float]:
            actions, following = (np.asarray(x) for x in forward(policy))
            observations = np.asarray(window.observations)
            q = np.stack([plain_q(state.critics, observations[at], actions[at])
                          for at in zip(*np.nonzero(present), strict=True)])  # fmt: skip
            cloning = ((actions - np.asarray(window.actions)) ** 2).mean(-1)[present].mean()
            dynamics = ((following - np.asarray(window.next_observations)) ** 2).mean(-1)[present].mean()
            scale = np.abs(q[:, 1 - i]).mean() if scale is None else scale
            return float(cloning + dynamics - CONFIG.q_weight * q[:, i].mean() / scale), float(scale)

        policy = state.policy.model
        expected = [plain(policy, i, None) for i in range(2)]
        grad = jax.jit(
            jax.value_and_grad(lambda p, k: qt.policy_loss(CONFIG, p, state.critics, window, k)[0])
        )
        keys = jax.random.split(jax.random.key(0), 40)
        found: dict[int, list[Any]] = {0: [], 1: []}
        for key in keys:
            loss, grads = grad(policy, key)
            side = int(np.argmin([abs(float(loss) - e) for e, _ in expected]))
            np.testing.assert_allclose(float(loss), expected[side][0], rtol=1e-5)
            found[side].append(grads)
        assert min(len(found[0]), len(found[1])) >= 10  # a fair coin gives fewer once in a thousand times

        # the gradient by central differences; the divisor stays where it is
        random = np.random.default_rng(1)
        for side in range(2):
            way = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), policy)
            ends = [jax.tree.map(lambda p, d, h=h: p + h * d, policy, way) for h in (1e-5, -1e-5)]
            up, down = (plain(end, side, expected[side][1])[0] for end in ends)
            along = sum((g * d).sum() for g, d in zip(leaves(found[side][0]), leaves(way), strict=True))
            np.testing.assert_allclose(along, (up - down) / 2e-5, rtol=1e-4)


@pytest.mark.parametrize("changed", ["returns", "observations", "actions"])
def test_what_action_and_next_observation_are_read_from(
    prepared: tuple[Logged, Constants], changed: str
) -> None:
    """The action has seen R_t and s_t, the next observation a_t too; neither has seen what comes later."""
    window = drawn(prepared[0])[0].window._replace(present=jnp.ones((40, 4), bool))
    forward = jax.jit(jax.vmap(lambda policy, w: policy(w), in_axes=(None, 0)))
    policy, t = fresh().policy.model, 2
    other = window._replace(**{changed: getattr(window, changed).at[:, t].add(1.0)})
    before, after = forward(policy, window), forward(policy, other)
    moved = [np.abs(a - b).max(-1) > 1e-4 for a, b in zip(before, after, strict=True)]
    for each, sees_now in zip(moved, (changed != "actions", True), strict=True):
        assert not each[:, :t].any() and each[:, t].any() == sees_now
        assert each[:, t + 1].any()


def test_types_of_the_state_do_not_change(prepared: tuple[Logged, Constants]) -> None:
    batch = jax.eval_shape(lambda k: qt.draw(CONFIG, prepared[0], k), jax.random.key(0))
    before = jax.eval_shape(lambda k: qt.init(CONFIG, SPEC, k), jax.random.key(0))
    before = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), before
    )  # as the loop does
    after, _ = jax.eval_shape(lambda s, b: qt.update(CONFIG, s, b, jax.random.key(0)), before, batch)
    kinds = lambda tree: [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]  # noqa: E731
    assert kinds(before) == kinds(after)


@jax.jit
def acted(
    state: State, constants: Constants, memory: Context, observation: Any, reward: Any, keys: Any
) -> tuple[Any, Context]:
    """Actions and memories for each of many keys."""
    return jax.vmap(lambda k: qt.act(CONFIG, state, constants, memory, observation, reward, k))(keys)


KEYS = jax.random.split(jax.random.key(5), 4_000)


def test_returns_in_use_are_those_of_training(prepared: tuple[Logged, Constants]) -> None:
    """An episode that earns exactly what was asked for is asked at every step for its logged return-to-go."""
    data, constants = prepared
    state, reward = fresh(), jnp.zeros(())
    constants = constants | {"target": float(data.returns[6])}
    memory = qt.begin(CONFIG, SPEC, constants)
    windows = jax.jit(lambda rows: sequences.windows(data, rows, CONFIG.context_len))(jnp.arange(14))
    for row in range(6, 14):
        actions, memories = acted(state, constants, memory, data.observations[row], reward, KEYS)
        memory, reward = jax.tree.map(lambda leaf: leaf[0], memories), data.rewards[row]
        window = jax.tree.map(lambda leaf, row=row: np.asarray(leaf[row]), windows)
        seen = window.present
        np.testing.assert_array_equal(memory.present, seen)
        np.testing.assert_array_equal(memory.observations[seen], window.observations[seen])
        np.testing.assert_array_equal(memory.timesteps[seen], window.timesteps[seen])
        np.testing.assert_allclose(memory.returns[seen], window.returns[seen], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(memory.actions[-1], actions[0])


@pytest.mark.parametrize("first_step", [True, False])
def test_candidates_are_drawn_in_proportion_to_exp_q(
    prepared: tuple[Logged, Constants], first_step: bool
) -> None:
    data, constants = prepared
    here, before = np.asarray(data.observations[7]), data.observations[6]
    state = fresh()
    reward = 0.0 if first_step else 0.6
    memory = qt.begin(CONFIG, SPEC, constants)
    if not first_step:
        memory = sequences.chosen(sequences.push(memory, before, memory.returns[-1]), data.actions[6])
    scale, target = constants["return_scale"], constants["target"]

    full = sequences.push(memory, jnp.asarray(here), jnp.asarray(target - reward / scale, jnp.float32))
    half = full._replace(returns=full.returns - target / 2)
    promised = half
    if not first_step:
        q = plain_q(state.target_critics, np.asarray(before), np.asarray(data.actions[6])).min()
        promised = half._replace(returns=half.returns.at[-1].set((q - reward) / scale))
    asked = jax.tree.map(lambda *leaves: jnp.stack(leaves), full, half, promised)
    actions = np.asarray(newest_actions(state.policy.acting, asked))
    qs = np.array([plain_q(state.target_critics, here, action).min() for action in actions])
    copies = np.array([5, 3, 1])  # of nine
    if first_step:  # nothing was promised yet
        actions, qs, copies = actions[:2], qs[:2], np.array([5, 4])

    for reward_scale in (np.ptp(qs) / 0.1, np.ptp(qs) / 1.5, np.ptp(qs) / 1e3):
        used = constants | {"reward_scale": float(reward_scale)}
        chosen = np.asarray(acted(state, used, memory, jnp.asarray(here), jnp.float32(reward), KEYS)[0])
        distance = np.abs(chosen[:, None] - actions[None]).max(-1)
        np.testing.assert_allclose(distance.min(1), 0.0, atol=1e-5)
        share = np.bincount(distance.argmin(1), minlength=len(qs)) / len(chosen)
        weight = copies * np.exp((qs - qs.max()) / reward_scale)
        np.testing.assert_allclose(share, weight / weight.sum(), atol=0.03)
    assert share[qs.argmax()] == 1.0  # a strongly peaked Q leaves no choice
