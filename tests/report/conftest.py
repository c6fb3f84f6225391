"""A made-up run directory with every file the report reads, by the contract of docs/architecture.md."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.small_runs import OURS, WORSE, write_small_run

SEEDS = (0, 1, 2)
OBSERVATIONS = 11
DEPTH = 10
CURVES: dict[str, dict[str, tuple[float, float]]] = {
    "value": {
        "value_loss": (1e-1, 2e-3),
        "critic_loss": (3.0, 4e-2),
        "actor_loss": (4.0, -1.5),
        "q_mean": (0, 40),
    },
    "world": {"dynamics_loss": (12.0, -18.0), "reward_loss": (2.0, 3e-3), "best_error": (0.3, 0.015)},
    "cloning": {"loss": (0.4, 0.12)},
    "policy": {"cloning_loss": (0.4, 0.09), "q_gain": (-0.2, 0.05)},
}
"""Stage, metric: value at the start and at the end of training."""


def write_run(run: Path, task: str = "Hopper-v4") -> Path:
    """Fills the folder `run`; every number comes from one fixed random stream."""
    rng = np.random.default_rng(3)
    returns = np.sort(rng.lognormal(5.2, 0.9, 400)).clip(10, 2800)
    summaries = {
        "data": _data(rng, returns, task),
        "value": {},
        "world": {"seeds": [_world(rng) for _ in SEEDS]},
        "augment": {"seeds": [_augment(rng) for _ in SEEDS]},
        "audit": {"seeds": [_audit(rng) for _ in SEEDS]},
    }
    for stage, summary in summaries.items():
        _write_json(run / "stages" / stage / "summary.json", summary)
    _write_json(
        run / "manifest.json",
        {
            "task": {"id": task, "horizon": 1000},
            "data": {"source": "bundled:hopper-medium-replay", "digest": "5f0c2a9be1d34c77"},
            "seeds": list(SEEDS),
            "versions": {"ipd": "0.1.0", "jax": "0.8.0", "mujoco": "3.11.0", "python": "3.11.7"},
        },
    )
    (run / "config.yaml").write_text(
        "preset: cpu\nvalue:\n  steps: 40000\n  expectile: 0.7\nworld:\n  steps: 16000\n"
    )
    _write_metrics(run / "metrics.jsonl", rng)
    _write_evaluations(run / "evaluations.csv", rng)
    return run


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _round(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


def _data(rng: np.random.Generator, returns: np.ndarray, task: str) -> dict[str, Any]:
    lengths = (returns / 2.4 + 12).astype(int)
    quantiles = {str(q): float(np.percentile(returns, q)) for q in (5, 25, 50, 75, 95)}
    spread = {"mean": returns.mean(), "std": returns.std(), "min": returns.min(), "max": returns.max()}
    return {
        "source": "bundled:hopper-medium-replay", "task": task, "digest": "5f0c2a9be1d34c77",
        "episodes": len(returns), "steps": int(lengths.sum()), "observation_size": OBSERVATIONS,
        "action_size": 3,
        "return": {**spread, "quantiles": quantiles, "best_decile": float(returns[-40:].mean())},
        "returns": _round(rng.permutation(returns)), "lengths": lengths.tolist(),
        "terminated": 380, "truncated": 20,
    }  # fmt: skip


def _world(rng: np.random.Generator) -> dict[str, Any]:
    depth = np.arange(1, DEPTH + 1)
    nominal = np.linspace(0.1, 0.95, 10)
    ranking = {
        f"{kind}_{reduction}": {str(d): float(rng.uniform(0.1, 0.45)) for d in (1, 5, 10)}
        for kind in ("primal", "dual", "disagreement")
        for reduction in ("mean", "max")
    }
    return {
        "kappa": float(rng.uniform(3, 4)), "accepted_held_out": 0.95, "reward_r2": 0.993,
        "one_step_r2": _round(1 - rng.exponential(0.015, OBSERVATIONS)),
        "depth": depth.tolist(),
        "model_error": _round(0.012 * depth**1.4 * rng.uniform(0.9, 1.1, DEPTH)),
        "no_change_error": _round(0.35 * depth**0.7),
        "coverage": {"nominal": _round(nominal), "1": _round(nominal**0.9), "5": _round(nominal**1.15),
                     "10": _round(nominal**1.3 * rng.uniform(0.95, 1, 10))},
        "uncertainty": {"held_out": _round(rng.lognormal(-0.2, 0.85, 800)),
                        "random_actions": _round(rng.lognormal(1.2, 1.1, 800)),
                        "shuffled": _round(rng.lognormal(3.5, 1.0, 800))},
        "ranking": ranking,
    }  # fmt: skip


def _augment(rng: np.random.Generator) -> dict[str, Any]:
    gap = rng.normal(1, 6, 3000)
    chosen = np.sort(gap)[-700:]
    edges = np.linspace(0, 1000, 21)
    real = rng.gamma(6, 2.5, 1500)
    weights = np.exp(-edges[:-1] / 180)
    return {
        "candidates": 29_000, "selected": 3_600, "kept_segments": 3_420, "kept_steps": 31_800,
        "accepted_first": 0.95, "mean_length": 9.3, "gap": _round(gap), "chosen_gap": _round(chosen),
        "timestep_candidates": (weights * 5000).astype(int).tolist(),
        "timestep_chosen": (weights[::-1] * 200 + weights * 300).astype(int).tolist(),
        "timestep_edges": edges.tolist(), "real_return": _round(real),
        "imagined_return": _round(real + rng.gamma(3, 3, 1500)),
    }  # fmt: skip


def _audit(rng: np.random.Generator) -> dict[str, Any]:
    depth = np.arange(1, DEPTH + 1)
    rows = []
    for states, gain in (("chosen", 12.0), ("random", 2.0)):
        for planner, extra in (("greedy", 0.0), ("mpc", 0.4)):
            true = rng.normal(20 + gain, 8, 300)
            rows.append(
                {
                    "states": states, "planner": planner, "count": 400, "gain": gain + extra,
                    "better": 0.99 if states == "chosen" else 0.78, "imagined_gain": gain * 1.05 + extra,
                    "rank_correlation": 0.985, "reliable_share": 0.93, "depth": depth.tolist(),
                    "true_return": _round(depth * (1.2 + gain / 10)),
                    "imagined_return": _round(depth * (1.25 + gain / 10)),
                    "observation_error": _round((0.01 + gain / 2000) * depth**1.3),
                    "error_reliable": 0.11, "error_unreliable": 0.19,
                    "pairs": {"imagined": _round(true + rng.normal(0.5, 1.2, 300)), "true": _round(true)},
                }
            )  # fmt: skip
    return {"replay_error": 0.0, "rows": rows}


def _write_metrics(path: Path, rng: np.random.Generator) -> None:
    lines = []
    for stage, metrics in CURVES.items():
        for step in range(500, 40_001, 500):
            for seed in SEEDS:
                fade = np.exp(-step / 6000)
                record: dict[str, Any] = {"stage": stage, "step": step, "seed": seed}
                for name, (start, end) in metrics.items():
                    if start > 0 and end > 0:
                        value = np.exp(
                            np.log(end) + (np.log(start) - np.log(end)) * fade + rng.normal(0, 0.05)
                        )
                    else:
                        value = end + (start - end) * fade + rng.normal(0, 0.02 * abs(end - start))
                    record[name] = float(f"{value:.7g}")
                lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n")


def _write_evaluations(path: Path, rng: np.random.Generator) -> None:
    levels = {"ipd": (400.0, 2200.0), "quasi_optimal": (1800.0, 1800.0), "cloning": (280.0, 280.0)}
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("policy", "seed", "step", "episode", "return", "length", "normalized"))
        for policy, (first, final) in levels.items():
            for step in range(8_000, 40_001, 8_000) if policy == "ipd" else (40_000,):
                for seed in SEEDS:
                    centre = first + (final - first) * step / 40_000 + 120 * (seed - 1)
                    for episode in range(20 if step == 40_000 else 10):
                        value = float(np.clip(rng.normal(centre, 0.25 * centre), 20, 3300))
                        score = 100 * (value + 20.272305) / (3234.3 + 20.272305)
                        writer.writerow(
                            (policy, seed, step, episode, f"{value:.3f}", int(value / 2.4), f"{score:.4f}")
                        )


@pytest.fixture
def synthetic_run(tmp_path: Path) -> Path:
    """A complete run: three seeds, every stage done, evaluated and audited."""
    run = tmp_path / "run"
    run.mkdir()
    return write_run(run)


@pytest.fixture
def many_runs(tmp_path: Path) -> Path:
    """Two sets, four methods, ablations, fixed returns and a run that failed; one set is D4RL's."""
    place = tmp_path / "all"
    for data, rows in (("walker2d_medium_replay-v2.hdf5", 302_000), ("bundled:hopper-medium-replay", 999)):
        at = place / data[-20:-6].strip(":_")
        for algo, scores in {"ipd": OURS, "dt": WORSE, "qt": WORSE, "bc": WORSE}.items():
            if algo != "bc" or rows == 999:
                fixed = {"ipd@0.5": WORSE} if algo == "ipd" else None
                write_small_run(at / algo, scores, algo, data, (100, 200), rows=rows, policies=fixed)
    write_small_run(place / "greedy", WORSE, preset="cpu+greedy", augment={"num_plans": 1, "plan_noise": 0.0})
    write_small_run(place / "none", WORSE, preset="cpu+no-augmentation", augment={"enabled": False})
    failed = write_small_run(place / "fa_il&ed%", WORSE, algo="iql")
    (failed / "evaluations.csv").unlink()
    return place


def _judge() -> dict[str, Any]:
    """What `ipd judge` leaves, as far as the page reads it."""

    def by(mean: float, gain: float | None = None) -> dict[str, Any]:
        spread = {"mean": mean, "low": mean - 61.5, "high": mean + 72.25}
        more = {} if gain is None else {"gain": {"mean": gain, "low": gain - 50, "high": gain + 60}}
        return spread | more

    policies: dict[str, Any] = {"behaviour": {"fqe": by(512.3), "model": by(498.1), "apart": 0.2}}
    for number, name in enumerate(("cloning", "quasi_optimal", "quasi_optimal_refitted", "ipd")):
        policies[name] = {
            "fqe": by(520.0 + 100 * number, 8.0 + 100 * number),
            "model": by(505.0 + 110 * number, 7.0 + 110 * number) | {"reliable_share": 0.93 - 0.1 * number},
            "apart": 0.3 * number, "outside": 0.07 * number,
            "actions": {"distance": 0.1 + 0.2 * number, "relative": 0.2 + 0.3 * number},
        }  # fmt: skip
    verdict = [
        "Both estimates say that ipd is better than the data: by 308 [258, 368] and 337 [287, 397].",
        "21 % of its imagined pairs lie outside the data: believe the smaller estimate.",
    ]
    return {"verdict": verdict, "judged": "ipd", "policies": policies}


@pytest.fixture
def judged_run(synthetic_run: Path) -> Path:
    """The complete run, judged without a simulator too."""
    _write_json(synthetic_run / "stages" / "judge" / "summary.json", _judge())
    return synthetic_run
