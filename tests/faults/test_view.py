"""Imagined segments as they are shown: the plans are those that were weighed, the log is the log's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ipd.cli import main
from ipd.data.sources import load
from ipd.report import segments
from ipd.runs import examples, files, learning, modelling, opened


@pytest.mark.parametrize("seed", [0, 1])
def test_plans_made_again_are_those_that_augmentation_weighed(finished: Path, small: Path, seed: int) -> None:
    run = opened.open_run(finished)
    told, logged = examples.provenance(run, seed), load(str(small))
    picks = examples.spread(told, None, 9)
    world, split = modelling.world(run)
    shown = examples.examples(run, learning.value(run), world, split, run.row(seed), told, picks)
    with h5py.File(finished / "augmented.hdf5") as file:
        actions = file[f"seed-{seed}/actions"][()]
    better = 0
    for (at, _), segment in zip(picks, shown["segments"], strict=True):
        first, length, row = (int(told[name][at]) for name in ("first", "length", "row"))
        acts = [int(name.split()[1]) for name in segment["action_dimensions"]]
        for t, plan in enumerate(segment["plans"][:length]):
            taken = np.array(plan["actions"])[plan["best"]]
            np.testing.assert_allclose(taken, actions[first + t][acts], atol=2e-5)
            assert plan["score"][plan["best"]] == max(s for s in plan["score"] if s is not None)
            better += plan["best"] > 0
        assert len(segment["plans"]) == length + (segment["end"] == "unreliable")
        if segment["end"] == "unreliable":
            assert segment["plans"][-1]["usable"] == 0 and max(segment["plans"][-1]["length"]) == 0
        stretch = slice(row, row + segment["imagine_steps"])
        np.testing.assert_allclose(segment["log"]["rewards"], logged.rewards[stretch], rtol=1e-5, atol=1e-5)
        dimensions = [int(name.split()[1]) for name in segment["dimensions"]]
        wanted = logged.observations[stretch][:, dimensions]
        np.testing.assert_allclose(
            np.array(segment["log"]["observations"])[:-1], wanted, rtol=1e-4, atol=1e-4
        )
        # imagination starts in the logged state
        np.testing.assert_allclose(segment["model"]["observations"][0], wanted[0], rtol=1e-4, atol=1e-4)
        assert segment["log"]["value"][0] == pytest.approx(segment["model"]["value"][0], rel=1e-3, abs=1e-3)
    assert better, "no plan but the policy's own was ever taken: noise was not tested"


def test_nothing_is_drawn_behind_an_end(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = files.read_json(finished / "stages" / "view" / "summary.json")
    segment = view["segments"][0]
    drawn: list[Any] = []
    plan = segment["plans"][0]
    plan["length"][1], segment["end"], segment["log"]["ended"] = 1, "terminated", True

    def draw(*given: Any) -> segments.Panel:
        drawn.append(given)
        return segments.Panel(given[1], given[1])

    monkeypatch.setattr(segments, "_draw", draw)
    for ended, pairs in ((False, 2), (True, 1)):  # the pair that was refused, where one was
        plan["ended"][1] = ended
        segments._uncertainty(segment, float(view["kappa"]))
        assert len(drawn[-1][4][0][1]) == pairs
    segments._value(segment)
    _, _, log, model, plans = drawn[-1]
    assert log[-1] == model[-1] == plans[0][1][-1] == 0 and log[0] and model[0]


def test_returns_tell_the_best_plan_from_the_next_and_names_stay(finished: Path) -> None:
    assert segments._promised(np.array([-860.04, -860.01, np.nan])) == ["−860.04", "−860.01", "–"]
    assert segments._promised(np.array([-1.17])) == ["−1.17"]
    assert segments._promised(np.array([3.0, 3.0])) == ["3.0000", "3.0000"]
    segment = files.read_json(finished / "stages" / "view" / "summary.json")["segments"][0]
    segment["dimensions"][0] = "ω (rad/s)"  # a capital would be another unit
    assert "<h3>ω (rad/s)</h3>" in segments._dimension(segment, 0)


def test_page_of_segments(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = files.read_json(finished / "stages" / "view" / "summary.json")
    assert told["segments"][0]["why"] == "largest gain" and len(told["segments"]) >= 3
    assert "Segments, step by step" in (finished / "report.html").read_text(encoding="utf-8")
    page = tmp_path / "new" / "view.html"
    assert main(["view", str(finished), "--count", "2", "--to", str(page), "--seed", "1"]) == 0
    assert "2 of" in capsys.readouterr().out and page.read_text(encoding="utf-8").count("<details") == 2
    run = opened.open_run(finished)
    episode = int(examples.provenance(run, 0)["episode"][0])
    assert main(["view", str(finished), "--episode", str(episode), "--to", str(page)]) == 0
    assert f"episode {episode}, step" in page.read_text(encoding="utf-8")
    for wrong in (["--episode", "99999"], ["--seed", "7"], ["--count", "0"]):
        assert main(["view", str(finished), *wrong]) == 2
        assert capsys.readouterr().err.count("\n") <= 3
    assert not (finished / "view.html").exists()
