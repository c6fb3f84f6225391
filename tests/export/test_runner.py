"""The runner: damaged files, wrong observations, limits, and what it imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ipd.export.runner import Runner, digest_of

from .conftest import NORMALISER, SEEN, Exported, plain, sequence

MEAN = NORMALISER.observation_mean
MIDDLE = [1.0, 0.0, 0.25]
"""Of the action bounds."""


def observations(steps: int) -> np.ndarray:
    return MEAN + 2 * np.random.default_rng(2).normal(size=(steps, 5)).astype(np.float32)


@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_a_flipped_bit_is_refused(format: str, exported: Exported, tmp_path: Path) -> None:
    exported(sequence(), format)
    path = tmp_path / f"out-{format}" / f"policy.{format}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"policy.{format}: damaged, its sha256 is not the one"):
        Runner(path.parent)


def test_a_contract_of_something_else_is_refused(exported: Exported, tmp_path: Path) -> None:
    exported(sequence(), "onnx")
    path = tmp_path / "out-onnx" / "contract.json"
    written = json.loads(path.read_text())

    def refused(contract: dict, match: str) -> None:
        path.write_text(json.dumps(contract | {"sha256": digest_of(contract)}))
        with pytest.raises(ValueError, match=match):
            Runner(path.parent)

    refused(written | {"format": 1}, "format 1, this runner reads 3")
    memory = written["memory"] | {"prompts": {"shape": [5], "dtype": "float64", "first": 0}}
    refused(written | {"memory": memory}, r"policy.onnx has .*'prompts': \(4,\).* says .*'prompts': \(5,\)")
    action = written["action"] | {"names": ["a", "b"]}
    refused(written | {"action": action}, r"action.low has shape \(3,\), expected \(2,\)")
    bad = {"do": "ignore", "means": ""}
    refused(written | {"on_bad_observation": bad}, "'ignore': not refuse, hold or clip")
    refused(
        {key: each for key, each in written.items() if key != "limits"},
        "out-onnx: KeyError: 'limits'; export",
    )
    refused(written | {"limits": written["limits"] | {"low": [np.nan, 0, 0]}}, "limits.low is .* be finite")
    refused(written | {"policy": written["policy"] | {"format": "torch"}}, "'torch', known are onnx")
    long = {"action": written["action"] | {"low": "x\n" * 9_000}}
    refused(written | long, r"^.{1,1000}$")  # on one line
    for text, match in (
        ("{", "out-onnx: JSONDecodeError"),
        (json.dumps(written | {"task": "other"}), "edited, its sha256"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=match):
            Runner(path.parent)
    path.write_text(json.dumps(written))
    code = path.with_name("runner.py")
    code.write_bytes(code.read_bytes().replace(b"\n", b"\r\n"))  # git does so on some systems
    Runner(path.parent)
    code.write_text(code.read_text() + " ")
    with pytest.raises(ValueError, match=r"runner.py: damaged or edited"):
        Runner(path.parent)


def test_names_and_shapes_are_checked(exported: Exported) -> None:
    runner = exported(plain())
    assert runner.observation_names == tuple(f"observation_{i}" for i in range(5))
    assert runner.action_names == ("action_0", "action_1", "action_2")
    row = observations(1)[0]
    named = dict(zip(runner.observation_names, row.tolist(), strict=True))
    turned = dict(reversed(named.items()))
    np.testing.assert_array_equal(runner.act(turned), runner.act(row))
    with pytest.raises(ValueError, match=r"observation has shape \(4,\), expected \(5,\)"):
        runner.act(row[:4])
    with pytest.raises(ValueError, match="'observation_3' is missing"):
        runner.act({name: each for name, each in named.items() if name != "observation_3"})
    with pytest.raises(ValueError, match="'speed' is no dimension of the policy"):
        runner.act(named | {"speed": 0.0})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 12.01, -8.01])
def test_refuse_names_the_dimension_and_leaves_the_episode_as_it_was(
    value: float, exported: Exported
) -> None:
    """Dimension 2 was between -8 and 12 in the data."""
    runner, other = exported(sequence(), margin=0.0), exported(sequence(), "onnx")
    rows = observations(4)
    for row in rows:
        bad = row.copy()
        bad[2] = value
        with pytest.raises(ValueError, match=r"dimension 2 \(observation_2\) is .*, accepted are -8 to 12;"):
            runner.act(bad)
        np.testing.assert_allclose(runner.act(row), other.act(row), atol=1e-5)


def test_the_range_of_the_data_belongs_to_it_and_a_margin_widens_it(exported: Exported) -> None:
    low, high = SEEN
    exported(plain(), margin=0.0).act(low)
    wide = exported(plain(), "onnx", margin=0.1)
    wide.act(high + 1.99)
    with pytest.raises(ValueError, match=r"dimension 0 .* is 12.01, accepted are -12 to 12 \(and 4 more\)"):
        wide.act(high + 2.01)
    clips = exported(plain(), "stablehlo", margin=0.1, on_bad_observation="clip")
    odd = high + np.float32([1.0, 0.0, 0.0, 0.0, 9.0])  # only the last is out of range
    free = clips.step(high + np.float32([1.0, 0.0, 0.0, 0.0, 0.0]), {})[0]
    np.testing.assert_array_equal(clips.act(odd), free)


def test_an_ordinary_step_outside_the_data_does_not_stop_an_episode_and_an_absurd_one_does(
    exported: Exported,
) -> None:
    """Half the width of the range is added on both sides unless another margin is asked for."""
    low, high = SEEN
    runner = exported(plain())
    assert runner.contract["observation"]["margin"] == 0.5
    for near in (high + 9.9, low - 9.9):
        runner.act(near)
    for far in (high + 10.1, low - 10.1, np.full(5, 1e6), np.full(5, np.nan)):
        with pytest.raises(ValueError, match=r"observation dimension 0 .*accepted are -20 to 20 "):
            runner.act(far)


def test_a_dimension_that_never_changed_may_differ_by_rounding(exported: Exported) -> None:
    """Without a width the standard deviation counts, which is 2 here and 0.001 at least."""
    runner = exported(plain(), seen=(MEAN, MEAN))
    runner.act(MEAN + 0.9)
    with pytest.raises(ValueError, match="accepted are -1 to 1 "):
        runner.act(MEAN + 1.1)


def test_hold_repeats_the_last_action_and_time_goes_on(exported: Exported) -> None:
    made = sequence()
    runner = exported(made, on_bad_observation="hold")
    nothing = np.full(5, np.nan)
    np.testing.assert_array_equal(runner.act(nothing), MIDDLE)
    memory = runner.blank() | {"time": np.asarray(1, np.int32)}
    for row in observations(6):
        action, memory = runner.step(row, memory)
        np.testing.assert_array_equal(runner.act(row), action)
        np.testing.assert_array_equal(runner.act(nothing), action)
        memory["time"] = memory["time"] + np.int32(1)
    runner.reset()
    np.testing.assert_array_equal(runner.act(nothing), MIDDLE)
    runner.reset([0.5, 0.5, 0.5])
    np.testing.assert_array_equal(runner.act(nothing), [0.5, 0.5, 0.5])


def test_clip_takes_the_nearest_value_in_the_data_and_its_mean_for_nan(exported: Exported) -> None:
    runner, plain = exported(sequence(), on_bad_observation="clip"), exported(sequence(), "onnx")
    row = observations(1)[0]
    bad, mended = row.copy(), row.copy()
    bad[1:] = [np.nan, np.inf, -np.inf, 99.0]
    mended[1:] = [MEAN[1], SEEN[1][2], SEEN[0][3], SEEN[1][4]]
    for _ in range(6):
        np.testing.assert_allclose(runner.act(bad), plain.act(mended), atol=1e-5)
        np.testing.assert_allclose(runner.act(row), plain.act(row), atol=1e-5)


def test_limits_come_last_and_the_memory_sees_what_was_done(exported: Exported) -> None:
    made = sequence()
    free = exported(made, "onnx")
    bounds = {"low": (-0.5, -0.4, 0.1), "high": (0.9, 0.4, 0.3)}
    runner = exported(made, **bounds)
    memory, changed = free.blank(), 0
    for row in observations(12):
        wanted, memory = free.step(row, memory)
        limited = np.clip(wanted, *(np.float32(each) for each in bounds.values()))
        changed += int((limited != wanted).any())
        np.testing.assert_allclose(runner.act(row), limited, atol=1e-5)
        memory["actions"][-1] = NORMALISER.actions(limited)
    assert changed > 6


def test_actions_never_change_faster_than_the_rate(exported: Exported) -> None:
    runner = exported(sequence(), rate=(0.02,), low=(-0.5,), high=(0.4,))
    free = exported(sequence(), "onnx", low=(-0.5,), high=(0.4,))
    rows = observations(30)
    np.testing.assert_allclose(runner.act(rows[0]), free.act(rows[0]), atol=1e-5)  # nothing came before
    runner.reset()
    taken = np.stack([runner.act(row) for row in rows])
    steps = np.abs(np.diff(taken, axis=0))
    assert steps.max() <= 0.02 + 1e-6 and (steps > 0.0199).any(0).any()
    runner.reset([0.4, 0.0, 0.0])
    assert np.abs(runner.act(rows[0]) - np.float32([0.4, 0.0, 0.0])).max() <= 0.02 + 1e-6
    runner.reset([0.6, 0.0, 0.0])
    assert runner.act(rows[0])[0] == np.float32(0.4)  # the limit is kept where the rate cannot be too


def test_limits_hold_for_a_held_action(exported: Exported) -> None:
    runner = exported(plain(), high=(0.5, 0.5, 0.1), on_bad_observation="hold")
    np.testing.assert_allclose(runner.act(np.full(5, np.nan)), [0.5, 0.0, 0.1])


def test_an_action_that_is_not_finite_is_never_given(exported: Exported) -> None:
    runner = exported(plain())
    runner.step = lambda observation, memory: (np.full(3, np.nan, np.float32), memory)
    with pytest.raises(FloatingPointError, match="the policy gave"):
        runner.act(observations(1)[0])


@pytest.mark.parametrize(("format", "needs"), [("onnx", {"onnxruntime"}), ("safetensors", set())])
def test_a_copied_runner_needs_neither_jax_nor_the_package(
    format: str, needs: set[str], exported: Exported, tmp_path: Path
) -> None:
    runner = exported(sequence(), format)
    folder = shutil.copytree(tmp_path / f"out-{format}", tmp_path / "elsewhere")
    row = observations(1)[0]
    heavy = {"jax", "jaxlib", "ipd", "equinox", "onnx", "onnxruntime", "safetensors", "scipy"}
    program = (
        "import sys, json; from runner import Runner; p = Runner('.'); p.reset();"
        f"action = p.act({row.tolist()}).tolist(); found = {heavy} & {{*sys.modules}};"
        "print(json.dumps([action, sorted(found)]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    action, modules = json.loads(told.stdout)
    np.testing.assert_allclose(action, runner.act(row), atol=1e-6)
    assert set(modules) == needs
