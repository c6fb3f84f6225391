"""Whether judgement without a simulator ranks policies as the simulator does: `python bench/judgement.py`.

Policies of different quality on the bundled Hopper data: the sequence policy, values and cloning after few
and many updates, cloning of the best episodes, and actions with noise added. Each is judged off-policy
(fitted Q evaluation; return in the world model) and tried in the real task. Fitted Q is repeated with other
seeds, of which a second table has every row.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ipd.config import Config
from ipd.evaluation.agreement import rank_correlation
from ipd.evaluation.rollouts import rollout
from ipd.evaluation.tasks import task as find_task
from ipd.policy.act import Controller
from ipd.presets import override, with_task
from ipd.runs import judged, learning, modelling, off_policy, stages
from ipd.runs.context import Run
from ipd.runs.judged import Judged, Model
from ipd.runs.rundir import Job
from ipd.runs.trained import Trained, snapshot

HEADER = ("policy", "discounted", "undiscounted", "fqe", "fqe_low", "fqe_high", "model", "model_low",
          "model_high", "reliable_share", "action_distance", "outside", "apart", "uncut")  # fmt: skip
BY_SEED = ("fqe_seed", *HEADER[:6])
HERE = Path(__file__).parent
DATA, TASK = "bundled:hopper-medium-replay", "Hopper-v4"
LESS = {
    "value.steps": 6_000,
    "value.hidden": (64, 64),
    "value.batch_size": 128,
    "world.steps": 3_000,
    "world.hidden": (64, 64, 64),
    "world.batch_size": 128,
    "augment.augment_ratio": 0.1,
    "augment.num_plans": 1,
    "augment.plan_noise": 0.0,
    "refit.steps": 0,
    "policy.steps": 1_600,
    "policy.batch_size": 64,
    "policy.layers": 1,
    "policy.width": 32,
    "policy.average": 0.99,
    "cloning.steps": 2_000,
    "cloning.hidden": (64, 64),
    "cloning.batch_size": 128,
    "evaluate.episodes": 0,
    "evaluate.final_episodes": 1,
    "evaluate.snapshots": 8,
}
"""The preset for CPUs with small networks and few updates: policies of every quality are wanted.

The bench tries them itself, not the runs."""
RUNS: dict[str, dict[str, float]] = {"ipd": {}, "iql": {}, "bc-best": {"cloning.best_share": 0.1}}


def settings(name: str) -> Config:
    """Of one of `RUNS`."""
    algo = name.split("-")[0]
    base = with_task("cpu", TASK, DATA, algo)  # type: ignore[arg-type]
    return override(override(base, LESS), RUNS[name])


def train(folder: Path) -> None:
    """Every run, or what is missing of it."""
    for name in RUNS:
        stages.execute(folder / name, Job(DATA, TASK, (0,), settings(name)))


def noisy(policy: Judged, size: float) -> Judged:
    """The policy with Gaussian noise of that standard deviation added to its actions in [-1, 1]."""

    def act(actor: Any, memory: Any, observation: Any, reward: Any, key: Any) -> tuple[Any, Any]:
        action, memory = policy.act(actor, memory, observation, reward, key)
        return jnp.clip(action + size * jax.random.normal(key, action.shape), -1.0, 1.0), memory

    return policy._replace(name=f"{policy.name} + noise {size:g}", act=act)


def contenders(run: Run, values: Trained, folder: Path) -> list[Judged]:
    """Policies of every quality, from all `RUNS`; `values` are those of the run `ipd`."""
    found = [judged.of_baseline(run, "bc", learning.cloning(run).state, "cloning")]
    policy = learning.policy(run, values, "trusted")
    for step in (200, 800, 1_600):
        state = snapshot(run, policy, "policy", step)
        found.append(judged.of_method(run, values, state, f"ipd, {step} updates"))
    for name, algo, stage, steps in (("iql", "iql", "value", (750, 2_250, 6_000)),
                                     ("bc-best", "bc", "cloning", (250, 2_000))):  # fmt: skip
        other = opened.open_run(folder / name)
        trained = learning.baseline(other, algo)
        for step in steps:
            state = snapshot(other, trained, stage, step)
            found.append(judged.of_baseline(other, algo, state, f"{name}, {step} updates"))
        found.append(noisy(found[-1], 0.5))
    return found


class Discounting:
    """A controller that adds up the discounted rewards which it hears of."""

    def __init__(self, controller: Controller, discount: float) -> None:
        self._controller, self._discount = controller, discount

    def reset(self, rows: int) -> None:
        self.total, self._power = np.zeros(rows), 1.0 / self._discount
        self._controller.reset(rows)

    def act(self, observations: Any, rewards: Any) -> Any:
        self.total += self._power * rewards  # the last reward of the longest episode is not heard
        self._power *= self._discount
        return self._controller.act(observations, rewards)


def tried(run: Run, policy: Judged, episodes: int) -> tuple[float, float]:
    """Mean discounted and undiscounted return in the real task."""
    controller = Controller(policy.act, policy.actors, policy.blanks, 1, run.normaliser)
    acting = Discounting(controller, run.config.value.discount)
    found = rollout(find_task(TASK), acting, episodes, 10_000)
    return float(acting.total.mean()), float(found.returns.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, help="for the runs; a temporary one")
    parser.add_argument("--name", default="latest", help="of the file in bench/results")
    parser.add_argument("--steps", type=int, default=4_000, help="updates of fitted Q")
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5, help="of fitted Q")
    parser.add_argument("--starts", type=int, default=150)
    parser.add_argument("--episodes", type=int, default=30)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        judge(chosen.folder or Path(temporary), chosen)


def judge(folder: Path, chosen: argparse.Namespace) -> None:
    """Trains what is missing, judges, tries, writes the table and prints the rank correlations."""
    train(folder)
    run = opened.open_run(folder / "ipd")
    values = learning.value(run)
    model = Model(run, values, *modelling.world(run))
    policies = contenders(run, values, folder)
    truth = [tried(run, policy, chosen.episodes) for policy in policies]
    how = off_policy.Settings(chosen.members, chosen.steps, 200, chosen.starts)
    off_policy.judge_policies(run, policies, model, how, ("bench",))
    told = run.summary("judge")["policies"]
    # what the cut does to the model's ranking
    ground, whole_way = off_policy.ground_of(run, how.starts), dataclasses.replace(how, kappa=math.inf)
    for policy in policies:
        seen = off_policy.imagined(run, ground, policy, model, whole_way, 0)
        told[policy.name]["uncut"] = {"mean": float(off_policy.in_logged_units(run, seen.total).mean())}
    lines = []
    for policy, true in zip(policies, truth, strict=True):
        each = told[policy.name]
        estimates = [each[name][key] for name in ("fqe", "model") for key in ("mean", "low", "high")]
        about = [
            each["model"]["reliable_share"],
            each["actions"]["relative"],
            each["outside"],
            each["apart"],
            each["uncut"]["mean"],
        ]
        lines.append([policy.name, *rounded(*true, *estimates, *about)])
    write(f"judgement-{chosen.name}.csv", HEADER, lines)
    for estimate in ("model", "uncut"):
        compare(estimate, [told[policy.name][estimate]["mean"] for policy in policies], truth)
    lines = []
    for seed in range(chosen.seeds):
        again = dataclasses.replace(how, seed=seed)
        if seed:
            off_policy.judge_policies(run, policies, None, again, ("bench",))
        found = run.summary("judge")["policies"]
        fitted = [[found[policy.name]["fqe"][key] for key in ("mean", "low", "high")] for policy in policies]
        lines += [
            [str(seed), policy.name, *rounded(*true, *each)]
            for policy, true, each in zip(policies, truth, fitted, strict=True)
        ]
        compare(f"fqe, seed {seed}", [mean for mean, *_ in fitted], truth)
    write(f"judgement-{chosen.name}-seeds.csv", BY_SEED, lines)


def rounded(*numbers: float) -> list[str]:
    """Cells of a table."""
    return [f"{number:.4g}" for number in numbers]


def write(name: str, header: tuple[str, ...], lines: list[list[str]]) -> None:
    """A table of bench/results."""
    with (HERE / "results" / name).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def compare(name: str, said: list[float], truth: list[tuple[float, float]]) -> None:
    """Prints how an estimate ranks the policies."""
    ranks = [rank_correlation(said, each) for each in zip(*truth, strict=True)]
    error = np.abs(np.array(said) - np.array(truth)[:, 0]).mean()
    print(
        f"{name}: Spearman {ranks[0]:.2f} with the discounted return, {ranks[1]:.2f} undiscounted; "
        f"mean error {error:.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
