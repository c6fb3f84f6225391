"""`ipd export` of a real run: the same episodes in the task, the contract, what is refused."""

from __future__ import annotations

import csv
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipd.cli import main
from ipd.data.sources import load
from ipd.export.write import Limits, export
from ipd.runs.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_the_loop_of_the_page_ends_with_the_returns_of_the_run(
    format: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/export.md drives the task by runner.py alone; its returns are those in evaluations.csv."""
    to, difference = export(finished, format, seed=1, to=tmp_path / "controller")
    assert difference == 0
    lines = (finished / "evaluations.csv").read_text().splitlines()
    rows = [row for row in csv.DictReader(lines) if row["policy"] == "ipd"]
    last = max(int(row["step"]) for row in rows)
    wanted = [float(row["return"]) for row in rows if (row["seed"], int(row["step"])) == ("1", last)]
    page = (ROOT / "docs" / "export.md").read_text()
    (loop,) = [text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "gymnasium" in text]
    assert "range(10)" in loop
    (tmp_path / "loop.py").write_text(loop.replace("range(10)", f"range({len(wanted)})"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(to))
    monkeypatch.delitem(sys.modules, "runner", raising=False)
    told = runpy.run_path(str(tmp_path / "loop.py"))
    assert told["returns"] == wanted
    assert Path(sys.modules.pop("runner").__file__ or "").parent == to


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
    assert told["on_bad_observation"]["do"] == "clip" and told["parity"]["largest_difference"] == 0
    assert told["prompt_scale"] > 0 and told["context"] == told["memory"]["prompts"]["shape"][0]
    assert main([*words]) == 2
    assert f"{to}: exists; choose another --to" in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["quasi_optimal", "quasi_optimal_refitted", "cloning"])
def test_yardsticks_are_exported_too(policy: str, finished: Path, tmp_path: Path) -> None:
    folder, difference = export(finished, "safetensors", policy=policy, to=tmp_path / "out")
    assert difference == 0
    assert json.loads((folder / "contract.json").read_text())["policy"]["name"] == policy


def test_what_cannot_be_exported_is_refused(finished: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    with pytest.raises(InputError, match="a run of ipd has no policy 'cql'; export one of ipd, quasi"):
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
