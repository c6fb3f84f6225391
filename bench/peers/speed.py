"""The peers' side of the bench: `.venv-peers/bin/python bench/peers/speed.py iql` waits for rounds.

The same sizes, batches and kinds of data as bench/ours.py, each in the way that its own users would do it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))
from protocol import serve

OBS, ACT = 11, 3
EPISODES, LENGTH = 200, 500


def logged() -> Any:
    """d3rlpy's data set of random episodes, all cut by a time limit."""
    from d3rlpy.dataset import MDPDataset

    random, rows = np.random.default_rng(0), EPISODES * LENGTH
    ends = np.zeros(rows, np.float32)
    ends[LENGTH - 1 :: LENGTH] = 1.0
    return MDPDataset(
        random.normal(size=(rows, OBS)).astype(np.float32),
        random.uniform(-1.0, 1.0, (rows, ACT)).astype(np.float32),
        random.normal(size=(rows, 1)).astype(np.float32),
        np.zeros(rows, np.float32),
        ends,
    )


def iql(updates: int = 100) -> Callable[[], float]:
    from d3rlpy.algos import IQLConfig
    from d3rlpy.models import VectorEncoderFactory

    data, encoder = logged(), VectorEncoderFactory([256, 256])
    learner = IQLConfig(
        batch_size=256,
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        value_encoder_factory=encoder,
    ).create(device="cpu:0")
    learner.build_with_dataset(data)

    def go() -> float:
        for _ in range(updates):
            learner.update(data.sample_transition_batch(256))
        return updates

    return go


def decision_transformer(updates: int = 2) -> Callable[[], float]:
    from d3rlpy.algos import DecisionTransformerConfig
    from d3rlpy.models import VectorEncoderFactory

    data = logged()
    learner = DecisionTransformerConfig(
        batch_size=64,
        context_size=20,
        num_layers=4,
        num_heads=4,
        encoder_factory=VectorEncoderFactory([256], exclude_last_activation=True),
        attn_dropout=0.01,
        resid_dropout=0.01,
        embed_dropout=0.01,
        max_timestep=1000,
    ).create(device="cpu:0")
    learner.build_with_dataset(data)

    def go() -> float:
        for _ in range(updates):
            learner.update(data.sample_trajectory_batch(64, 20))
        return updates

    return go


def perceptron(inputs: int, hidden: list[int], outputs: int, normed: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip([inputs, *hidden[:-1]], hidden, strict=True):
        layers += [nn.Linear(a, b), *([nn.LayerNorm(b)] if normed else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))


def algorithm_1(states: int = 2) -> Callable[[], float]:
    """Algorithm 1 as it is printed: state by state, step by step, plan by plan."""
    members = [
        (perceptron(OBS + ACT, [400] * 4, 2 * OBS, True), perceptron(OBS + ACT, [400] * 4, 1, True))
        for _ in range(3)
    ]
    value, policy = perceptron(OBS, [256, 256], 1), perceptron(OBS, [256, 256], ACT)

    def predict(observation: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
        pair = torch.cat([observation, action])
        means = torch.stack([dynamics(pair)[:OBS] for dynamics, _ in members])
        reward = torch.stack([net(pair)[0] for _, net in members]).mean()
        pairs = ((0, 1), (0, 2), (1, 2))
        uncertainty = sum(float(((means[a] - means[b]) ** 2).mean()) for a, b in pairs)
        return observation + 0.01 * means.mean(0), reward, uncertainty

    starts = torch.as_tensor(np.random.default_rng(0).normal(size=(states, OBS)), dtype=torch.float32)

    @torch.no_grad()
    def go() -> float:
        for observation in starts:
            for _ in range(10):
                found: list[tuple[float, torch.Tensor]] = []
                for number in range(3):
                    imagined, total = observation, 0.0
                    for ahead in range(10):
                        action = torch.tanh(policy(imagined) + (torch.randn(ACT) if number else 0.0))
                        first = action if ahead == 0 else first
                        imagined, reward, uncertainty = predict(imagined, action)
                        if not uncertainty < float("inf"):
                            break
                        total += 0.99**ahead * float(reward)
                    found.append((total + 0.99**10 * float(value(imagined)), first))
                observation, _, _ = predict(observation, max(found, key=lambda each: each[0])[1])
        return states

    return go


def collect(steps: int = 600) -> Callable[[], float]:
    """Soft actor-critic in Hopper, one update for two steps."""
    import gymnasium
    from stable_baselines3 import SAC

    learner = SAC(
        "MlpPolicy",
        gymnasium.make("Hopper-v4"),
        batch_size=256,
        learning_starts=200,
        train_freq=2,
        gradient_steps=1,
        policy_kwargs={"net_arch": [256, 256]},
        device="cpu",
    )
    learner.learn(400)

    def go() -> float:
        learner.learn(steps, reset_num_timesteps=False)
        return steps

    return go


JOBS: dict[str, Callable[[], Callable[[], float]]] = {
    "iql": iql,
    "decision-transformer": decision_transformer,
    "algorithm-1": algorithm_1,
    "collect": collect,
}

if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    serve(JOBS[sys.argv[1]]())
