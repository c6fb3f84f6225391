"""Every alarm rings at what it is for, says a cure, and is silent otherwise."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.conftest import synthetic_run

from ipd.config import sections
from ipd.data.episodes import Episodes
from ipd.data.findings import Finding
from ipd.data.probes import linear_quadratic
from ipd.presets import preset, with_task
from ipd.report import headline, read
from ipd.runs import alarms, dashboards, stages
from ipd.runs.alarms import Alarm
from ipd.runs.metrics import MetricsLog
from ipd.runs.progress import Progress
from ipd.types import Steps

__all__ = ["synthetic_run"]

CONFIG = preset("tiny")
REACH = 2.0 / (1 - CONFIG.value.discount)
"""The largest reward below is 2."""


def rings(stage: str, last: dict[str, float], entry: dict[str, Any], small_steps: Steps) -> list[Alarm]:
    rewards = np.clip(np.asarray(small_steps.rewards), -2, 2)
    rewards[0] = -2.0
    steps = small_steps._replace(rewards=rewards)  # type: ignore[arg-type]
    return alarms.of(stage, CONFIG, (4, 7), {7: last}, {"seeds": [{}, entry]}, lambda: steps)


@pytest.mark.parametrize(
    ("stage", "last", "entry", "what", "cure"),
    [
        ("value", {"q_mean": 1.01 * REACH}, {}, "Q has blown up: 202", "--value.learning-rate"),
        ("refit", {"q_mean": 1.01 * REACH}, {}, "Q has blown up: 202", "--value.learning-rate"),
        ("cloning", {"action_error": 9.0}, {}, "has left the data's actions", "more --cloning.steps"),
        (
            "rebrac",
            {"q_policy": -1.1 * REACH},
            {},
            "no policy can reach more than 200",
            "--rebrac.critic-learning-rate",
        ),
        ("world", {"log_variance": 0.0}, {}, "upper bound, 0.00 of 0.2", "--world.steps"),
        ("world", {"log_variance": -9.8}, {}, "lower bound, -9.80 of -10", "ipd data check"),
        ("world", {}, {"member_error": [0.1, 0.4, 0.11]}, "member 1 of the world model is dead", "--world"),
        ("world", {}, {"member_error": [0.1, None, 0.1]}, "member 1 of the world model is dead", "--world"),
        (
            "augment",
            {},
            {"accepted_first": 0.04, "selected": 9},
            "kappa rejects nearly",
            "threshold-quantile",
        ),
        ("value", {"value_loss": 1.0, "huber_delta": 0.01}, {}, "weights are all alike", "--value.inverse-"),
        ("policy", {"action_error": 9.0}, {}, "has left the data's actions", "--policy.q-weight"),
    ],
)
def test_alarm_rings_with_a_cure(
    stage: str, last: dict[str, float], entry: dict[str, Any], what: str, cure: str, small_steps: Steps
) -> None:
    (alarm,) = rings(stage, last, entry, small_steps)
    assert alarm.seed == 7 and what in alarm.what and cure in alarm.cure
    algo: Any = stage if stage == "rebrac" else "ipd"
    named = dict.fromkeys(sections(algo), ())
    for section, name in re.findall(r"--(\w+)\.([\w-]+)", alarm.cure):
        assert section in named and hasattr(getattr(CONFIG, section), name.replace("-", "_")), alarm.cure


def test_alarms_are_silent_where_all_is_well(small_steps: Steps) -> None:
    fine = {"q_mean": 0.9 * REACH, "q_policy": -0.9 * REACH, "log_variance": -4.0, "action_error": 0.01}
    fine |= {"value_loss": 1e-9, "huber_delta": 0.2}  # a threshold tells more than a loss
    entry = {"member_error": [0.1, 0.2, 0.11], "accepted_first": 0.9, "selected": 9}
    assert rings("value", fine, entry, small_steps) == []
    assert rings("augment", {}, {"accepted_first": 0.0, "selected": 0}, small_steps) == []


@pytest.mark.parametrize(("algo", "told"), [("ipd", "huber_delta"), ("iql", "value_loss")])
def test_rewards_in_tiny_units_ring_an_alarm(algo: Any, told: str, small_steps: Steps) -> None:
    config, rewards = with_task("tiny", None, algo=algo), np.asarray(small_steps.rewards)
    assert (config.value.huber_quantile < 1) == (algo == "ipd")  # what tells the size of the advantages

    def alarms_at(unit: float) -> list[Alarm]:
        last = {"value_loss": 1e6, "huber_delta": 1e6, told: 0.1 * unit**2 if algo == "iql" else 0.5 * unit}
        steps = small_steps._replace(rewards=unit * rewards)  # type: ignore[arg-type]
        return alarms.of("value", config, (4,), {4: last}, {}, lambda: steps)

    assert alarms_at(1.0) == alarms_at(1000.0) == []
    (alarm,) = alarms_at(0.001)
    assert "weights are all alike" in alarm.what and "multiplying the rewards" in alarm.cure


def test_alarms_are_noted_once_and_shown(synthetic_run: Path) -> None:
    path = synthetic_run / "metrics.jsonl"
    before, log = path.read_text(), MetricsLog(path, (0, 1, 2))
    for _ in range(2):
        log.warn("value", [Alarm(1, "Q has blown up", "less of it")])
    told = [json.loads(line) for line in path.read_text().splitlines() if "warning" in line]
    assert told == [{"stage": "value", "seed": 1, "warning": "Q has blown up", "cure": "less of it"}]
    assert log.last("value")[1]["q_mean"] and "warning" not in log.last("value")[1]
    assert all("warning" not in point.values for point in dashboards.points(synthetic_run))
    log.resume("world", 100)
    assert "less of it" in path.read_text()
    log.resume("value", 10**6)  # a stage that begins again forgets its warnings
    assert "less of it" not in path.read_text() and before.startswith(path.read_text()[:200])
    summary = synthetic_run / "stages" / "value" / "summary.json"
    summary.write_text(
        json.dumps({"warnings": [{"seed": 1, "what": "Q has blown up", "cure": "less of it"}]})
    )
    told = stages._doubts(doubtful(), None, Progress(quiet=True))
    data = synthetic_run / "stages" / "data" / "summary.json"
    data.write_text(json.dumps(json.loads(data.read_text()) | told))
    (summary.parent / "failed.json").write_text(json.dumps({"seeds": {"2": "tensor w is not finite"}}))
    run = read.load(synthetic_run)
    assert headline.wrong(run) == [
        ("no", "seed 2 was stopped in the stage value: tensor w is not finite; its results are left out"),
        ("no", f"data, {told['warnings'][0]['what']}; {told['warnings'][0]['cure']}"),
        ("no", "value, seed 1: Q has blown up. Try less of it"),
    ]


def test_q_of_data_without_rewards_rings_no_alarm(small_steps: Steps) -> None:
    steps = small_steps._replace(rewards=np.zeros(len(small_steps.rewards), np.float32))  # type: ignore[arg-type]
    assert not alarms.of("value", CONFIG, (4,), {4: {"q_mean": 1e-4}}, {}, lambda: steps)


def doubtful() -> Episodes:
    """One value is in another unit than the others."""
    episodes = linear_quadratic(20, 20, 0)
    observations = episodes.observations.copy()
    observations[25, 1] = 1e30
    return dataclasses.replace(episodes, observations=observations)


def test_what_the_data_check_finds_is_told_when_a_run_begins(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    assert stages._doubts(linear_quadratic(20, 20, 0), None, progress) == {}
    assert not capsys.readouterr().err
    (told,) = stages._doubts(doubtful(), None, progress)["warnings"]
    assert told["what"].startswith("observations, row 2") and told["cure"]
    said = capsys.readouterr().err
    assert said == f"data: warning, {told['what']}; {told['cure']}\n"
    doubt = Finding("ends", "warning", "terminals, row 4", "the flag stays up", "mark one")
    large = dataclasses.replace(doubtful(), doubts=(doubt,), disk=Path())  # not looked through
    (told,) = stages._doubts(large, None, progress)["warnings"]
    assert told == {"what": "terminals, row 4: the flag stays up", "cure": "mark one"}


def test_the_columns_of_a_table_are_said_when_a_run_begins(capsys: pytest.CaptureFixture[str]) -> None:
    episodes = linear_quadratic(3, 5, 0)
    stages._say_columns(episodes, Progress())
    columns = {"observations": ["obs_x", "obs_y"], "reward": "r", "unused": ["a_z"]}
    stages._say_columns(dataclasses.replace(episodes, columns=columns), Progress())
    assert capsys.readouterr().err == "data: columns as observations: obs_x, obs_y; reward: r; unused: a_z\n"
