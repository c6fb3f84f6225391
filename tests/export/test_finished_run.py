"""`ipd export` of a real run: the same episodes in the task, the contract, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ipd
from ipd.cli import main
from ipd.data.sources import load
from ipd.evaluation.rollouts import rollout
from ipd.evaluation.tasks import task as find_task
from ipd.export.runner import Runner
from ipd.export.write import Limits, export
from ipd.runs import judging
from ipd.runs.errors import InputError


class OneByOne:
    """A runner for each row, as `rollout` asks for it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def reset(self, rows: int) -> None:
        self.runners = [Runner(self.folder) for _ in range(rows)]

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        return np.stack([runner.act(row) for runner, row in zip(self.runners, observations, strict=True)])


@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_whole_episodes_in_the_task_are_the_same(format: str, finished: Path, tmp_path: Path) -> None:
    folder, difference = export(finished, format, seed=1, to=tmp_path / "out", margin=1e3)
    assert difference < 1e-5
    task, first = find_task("Hopper-v4"), judging.FIRST_EPISODE_SEED
    wanted = rollout(task, ipd.load(finished, seed=1), 2, first)
    told = rollout(task, OneByOne(folder), 2, first)
    np.testing.assert_array_equal(told.lengths, wanted.lengths)
    np.testing.assert_allclose(told.returns, wanted.returns, rtol=1e-4)


def test_the_command_writes_a_contract_that_says_it_all(
    finished: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out"
    limits = ["--limit-low", "-0.5", "--limit-high", "0.5", "0.4", "2", "--rate-limit", "0.1"]
    words = ["export", str(finished), "--seed", "1", "--to", str(to), *limits]
    assert main([*words, "--on-bad-observation", "clip"]) == 0
    assert f"{to}: policy.onnx, contract.json, runner.py; actions at most " in capsys.readouterr().out
    told: dict[str, Any] = json.loads((to / "contract.json").read_text())
    data = load(str(small))
    manifest = json.loads((finished / "manifest.json").read_text())
    assert (told["task"], told["algorithm"], told["seed"]) == ("Hopper-v4", "ipd", 1)
    assert told["data"]["digest"] == data.digest
    seen = told["observation"]
    np.testing.assert_array_equal(np.float32(seen["data_low"]), data.observations.min(0))
    np.testing.assert_array_equal(np.float32(seen["data_high"]), data.observations.max(0))
    assert seen["names"] == (manifest["data"]["observation_names"] or [f"observation_{i}" for i in range(11)])
    assert (
        told["limits"]["low"] == [-0.5] * 3 and told["limits"]["high"] == np.float32([0.5, 0.4, 1]).tolist()
    )
    assert told["limits"]["rate"] == np.float32([0.1] * 3).tolist()
    assert told["on_bad_observation"]["do"] == "clip" and told["parity"]["largest_difference"] < 1e-5
    assert told["prompt_scale"] > 0 and told["context"] == told["memory"]["prompts"]["shape"][0]
    assert main([*words]) == 2
    assert f"{to}: exists; choose another --to" in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["quasi_optimal", "quasi_optimal_refitted", "cloning"])
def test_yardsticks_are_exported_too(policy: str, finished: Path, tmp_path: Path) -> None:
    folder, difference = export(finished, "safetensors", policy=policy, to=tmp_path / "out")
    assert difference < 1e-5
    assert json.loads((folder / "contract.json").read_text())["policy"]["name"] == policy


def test_what_cannot_be_exported_is_refused(finished: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    with pytest.raises(InputError, match="policy cql of a run of ipd cannot be exported; export one of ipd"):
        export(finished, "safetensors", policy="cql", to=to)
    with pytest.raises(InputError, match="has no seed 7; there are 0, 1"):
        export(finished, "safetensors", seed=7, to=to)
    with pytest.raises(InputError, match="--limit-low: 2 numbers; give one, or 3"):
        export(finished, "safetensors", to=to, limits=Limits(low=(0.0, 0.0)))
    with pytest.raises(InputError, match=r"dimension 1: no action between 0 and -0\.5"):
        export(finished, "safetensors", to=to, limits=Limits((0.0,), (0.5, -0.5, 0.5)))
    with pytest.raises(InputError, match="--rate-limit: must be above 0"):
        export(finished, "safetensors", to=to, limits=Limits(rate=(0.0,)))
    with pytest.raises(InputError, match="--margin -1"):
        export(finished, "safetensors", to=to, margin=-1.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_cure(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"needs {package}, .*pip install 'ipd\[export\]'"):
        export(tmp_path, "onnx")
