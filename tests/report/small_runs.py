"""Run directories with no more in them than a comparison reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

OURS = {0: [80.0, 82.0], 1: [90.0, 92.0]}
WORSE = {0: [10.0, 12.0], 1: [20.0, 22.0]}
"""Normalised scores, seed to one an episode."""


def write_small_run(
    run: Path,
    scores: dict[int, list[float]],
    algo: str = "ipd",
    data: str = "bundled:hopper-medium-replay",
    steps: tuple[int, ...] = (100,),
    preset: str = "cpu",
    rows: int = 115_200,
    policies: dict[str, dict[int, list[float]]] | None = None,
    **settings: dict[str, Any],
) -> Path:
    """Config, manifest and evaluations of a run.

    `scores` are normalised, seed to one an episode; they are those of the last of `steps`, and the
    steps before are worse. `policies` are evaluated besides, at the last step.
    """
    run.mkdir(parents=True)
    config = {
        "data": data, "task": "Hopper-v4", "seeds": sorted(scores), "preset": preset, "algo": algo,
        "augment": {"enabled": True, "augment_ratio": 1.0, "num_plans": 3, "plan_noise": 1.0},
        "policy": {"mix": 0.5, "q_weight": 1.0}, "cql": {"steps": 7}, "evaluate": {"episodes": 3},
    }  # fmt: skip
    for section, fields in settings.items():
        config[section] = {**config.get(section, {}), **fields}
    (run / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    manifest = {"data": {"digest": "0a1b2c3d", "steps": rows}, "task": "Hopper-v4"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    with (run / "evaluations.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("policy", "seed", "step", "episode", "return", "length", "normalized"))
        for policy, found in {algo: scores, **(policies or {})}.items():
            for behind, step in enumerate(reversed(steps if policy == algo else steps[-1:])):
                for seed, values in found.items():
                    for episode, value in enumerate(values):
                        score = value - 5 * behind
                        writer.writerow((policy, seed, step, episode, 32.5 * score - 20, 10, score))
    return run
