"""What a finished run is good for: its files, loading it, another look, re-use, refusing another config."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ipd
from ipd.cli import main
from ipd.evaluation.scores import read_rows
from ipd.runs import checkpoint, examples, files, learning, made_of, modelling, trials
from ipd.runs.augmented import Writer, read_segments
from ipd.runs.errors import InputError
from ipd.runs.metrics import GLOSSARY
from ipd.runs.opened import open_run
from ipd.runs.rundir import read_job, write_job
from ipd.types import Segment

from .conftest import OPTIONS


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A run of one's own to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_metrics_are_whole_and_explained(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    names = {name for record in records for name in record} - {"stage", "step", "seed"}
    assert names <= GLOSSARY.keys(), names - GLOSSARY.keys()
    places = [(record["stage"], record["seed"], record["step"]) for record in records]
    assert len(set(places)) == len(places)
    for stage in ("value", "world", "cloning", "refit", "policy"):
        steps = sorted(step for name, seed, step in places if (name, seed) == (stage, 0))
        assert np.all(np.diff(steps) == 10) and steps[0] == 10, stage
    assert not any("time" in name or "second" in name for name in names)


def test_evaluations_are_whole(finished: Path) -> None:
    rows = read_rows(finished / "evaluations.csv")
    assert len({row[:4] for row in rows}) == len(rows) == 2 * (4 * 2 + 1)
    assert {row.policy for row in rows} == {"ipd", "quasi_optimal", "quasi_optimal_refitted", "cloning"}
    assert {row.step for row in rows if row.policy == "ipd"} == {150, 300}


def test_augmented_file_is_in_logged_units(finished: Path, small: Path) -> None:
    with h5py.File(finished / "augmented.hdf5") as file, h5py.File(small) as logged:
        group = file["seed-1"]
        lengths, rows = group["provenance/length"][()], group["provenance/row"][()]
        assert len(lengths) > 10 and lengths.sum() == len(group["rewards"])
        first = np.cumsum(lengths) - lengths
        np.testing.assert_allclose(
            group["observations"][()][first], logged["observations"][()][rows], rtol=1e-4, atol=1e-4
        )
        assert np.abs(group["actions"]).max() <= 1.0
        assert (
            group["provenance/max_uncertainty"][()] >= group["provenance/mean_uncertainty"][()] - 1e-6
        ).all()


def test_segments_written_in_pieces_are_those_written_at_once(finished: Path, tmp_path: Path) -> None:
    run = open_run(finished, task=False)
    segments, rows = read_segments(run, 1)
    expected = np.arange(2.0 * len(rows), dtype=np.float32).reshape(2, -1)
    columns: dict[int, dict[str, np.ndarray]] = {}
    for size in (len(rows), 7):
        with h5py.File(tmp_path / f"{size}.hdf5", "w") as file:
            writer = Writer(run, file, 1)
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                some = Segment(*(leaf[part] for leaf in segments))
                writer.add(rows[part], np.arange(len(rows))[part], some, *expected[:, part])
            none = Segment(*(leaf[:0] for leaf in segments))
            writer.add(rows[:0], np.arange(0), none, *expected[:, :0])
            names: list[str] = []
            file["seed-1"].visit(names.append)
            columns[size] = {name: file["seed-1"][name][()] for name in names if name != "provenance"}
    whole, pieces = columns.values()
    assert len(whole) == 16 and len(whole["rewards"]) > 2 * len(rows) > 50
    for name, column in whole.items():
        np.testing.assert_array_equal(pieces[name], column, err_msg=name)
    with h5py.File(finished / "augmented.hdf5") as file:
        for name in ("observations", "rewards", "terminals", "timeouts", "provenance/max_uncertainty"):
            np.testing.assert_allclose(
                whole[name], file["seed-1"][name][()], rtol=1e-4, atol=1e-5, err_msg=name
            )


def test_penalty_lowers_imagined_rewards_where_they_are_read(finished: Path) -> None:
    run = open_run(finished, task=False)
    with h5py.File(finished / "augmented.hdf5") as file:
        rewards, uncertainty = file["seed-1/rewards"][()], file["seed-1/uncertainty"][()]
    assert uncertainty.min() >= 0 and uncertainty.max() > 0
    plain, _ = read_segments(run, 1)
    np.testing.assert_allclose(plain.rewards[plain.valid], run.normaliser.reward_scale * rewards, rtol=1e-6)
    augment = dataclasses.replace(run.config.augment, uncertainty_penalty=0.5)
    job = dataclasses.replace(run.job, config=dataclasses.replace(run.config, augment=augment))
    careful, _ = read_segments(dataclasses.replace(run, job=job), 1)
    lost = np.asarray(plain.rewards - careful.rewards)
    np.testing.assert_allclose(lost[plain.valid], 0.5 * uncertainty, rtol=1e-3, atol=1e-6)
    assert not lost[~plain.valid].any()


def test_loaded_policy_acts_on_one_and_on_many(finished: Path) -> None:
    policy = ipd.load(finished, seed=1)
    observation = np.linspace(-0.5, 1.2, 11)
    policy.reset()
    one = policy.act(observation)
    policy.reset(3)
    many = policy.act(np.stack([observation, observation + 0.1, observation]))
    assert one.shape == (3,) and many.shape == (3, 3)
    np.testing.assert_allclose(many[0], one, atol=1e-6)
    np.testing.assert_allclose(many[2], many[0], atol=1e-6)
    assert np.abs(many[1] - many[0]).max() > 0
    with pytest.raises(InputError, match="no seed 5"):
        ipd.load(finished, seed=5)


def test_report_and_evaluate_again(copy: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (copy / "evaluations.csv").read_bytes()
    assert main(["evaluate", str(copy)]) == 0
    assert (copy / "evaluations.csv").read_bytes() == before
    assert main(["evaluate", str(copy), "--episodes", "1"]) == 0
    assert len(read_rows(copy / "evaluations.csv")) == 2 * (4 * 1 + 1)
    (copy / "report.html").unlink()
    assert main(["report", str(copy)]) == 0
    assert (copy / "report.html").exists() and "Behaviour cloning" in capsys.readouterr().out
    (copy / "evaluations.csv").unlink()  # a power cut may keep the name of one file and not of another
    assert main(["train", "--data", str(small), "--out", str(copy), *OPTIONS]) == 0
    assert (copy / "evaluations.csv").read_bytes() == before


def test_a_seed_that_fails_when_it_is_tried_again_ends_the_command_with_1(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = trials.Early.results
    told = np.array([False, True])
    monkeypatch.setattr(trials.Early, "results", lambda *given: plain(*given)._replace(failed=told))
    assert main(["evaluate", str(copy), "--episodes", "1"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "seed 1: stage evaluate: what" in last and "all other seeds are done" in last
    assert {row.seed for row in read_rows(copy / "evaluations.csv")} == {0}


@pytest.mark.parametrize("command", ["judge", "audit", "view"])
def test_other_data_under_the_old_name_are_refused(
    command: str, copy: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "small.hdf5"
    shutil.copyfile(small, other)
    with h5py.File(other, "a") as file:
        file["rewards"][...] = -3 * file["rewards"][()]
    job = read_job(copy)
    write_job(copy, dataclasses.replace(job, data=str(other)))
    shutil.rmtree(copy / "stages" / "audit")
    assert main([command, str(copy)]) == 2
    assert re.search(r"learned from data of digest \w+, .* has \w+; restore", capsys.readouterr().err)


def test_stages_that_are_not_made_of_each_other_are_not_taken_for_a_run(
    copy: Path, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = copy / "stages" / "judge" / "summary.json"
    files.write_json(judge, {"policies": {}})
    changed = made_of.sources() | {"value/learn.py": b"another version"}
    monkeypatch.setattr(made_of, "sources", lambda: changed)
    assert main(["train", "--data", str(small), "--out", str(copy), *OPTIONS, "--until", "value"]) == 0
    assert main(["evaluate", str(copy)]) == 2
    assert "stage augment is not finished; run the same `ipd train` again" in capsys.readouterr().err
    assert not judge.exists()


def test_stages_of_other_units_are_not_taken_for_a_run(
    copy: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "normaliser.json"
    files.write_json(path, files.read_object(path) | {"reward_scale": 7.0})
    assert main(["train", "--data", str(small), "--out", str(copy), *OPTIONS, "--until", "value"]) == 0
    assert main(["evaluate", str(copy)]) == 2
    assert "stage world is not finished" in capsys.readouterr().err


def test_the_page_refuses_a_damaged_summary(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "stages" / "world" / "summary.json"
    path.write_text(path.read_text().replace('"kappa": ', '"kappa": 1'))
    assert main(["report", str(copy)]) == 2
    assert f"{path}: damaged, its sha256" in capsys.readouterr().err


def test_audit_again(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = (copy / "stages" / "audit" / "summary.json").read_bytes()
    shutil.rmtree(copy / "stages" / "audit")
    assert main(["audit", str(copy)]) == 0
    assert (copy / "stages" / "audit" / "summary.json").read_bytes() == told
    assert "better in" in capsys.readouterr().out
    shutil.rmtree(copy / "stages" / "audit")
    (copy / "augmented.hdf5").unlink()  # to save room, perhaps
    assert main(["audit", str(copy)]) == 2
    assert "augmented.hdf5: damaged" in capsys.readouterr().err
    assert (copy / "stages" / "policy" / "done.json").exists()


def test_other_config_is_refused_by_name(copy: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "--data", str(small), "--out", str(copy), *OPTIONS, "--policy.q-weight", "7.5"]
    assert main(given) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(copy) in last and "policy.q_weight" in last and "7.5" in last


def test_other_data_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "--data", "bundled:hopper-medium-replay", "--out", str(copy), *OPTIONS]
    assert main([*given, "--policy.q-weight", "1"]) == 2  # its name asks for another weight
    assert "digest" in capsys.readouterr().err.strip().splitlines()[-1]


def test_an_ablation_of_the_policy_costs_a_policy(
    finished: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ablation"
    given = ["train", "--data", str(small), "--out", str(out), *OPTIONS, "--policy.q-weight", "0"]
    assert main([*given, "--reuse", str(finished)]) == 0
    said = capsys.readouterr().err
    for stage in ("value", "world", "cloning", "augment", "refit"):
        assert f"{stage}: taken from" in said
    assert "policy: 300 updates" in said
    assert (out / "augmented.hdf5").read_bytes() == (finished / "augmented.hdf5").read_bytes()

    def of(folder: Path, stage: str) -> list[str]:
        return [line for line in (folder / "metrics.jsonl").read_text().splitlines() if f'"{stage}"' in line]

    assert of(out, "world") == of(finished, "world") and of(out, "policy") != of(finished, "policy")


def test_a_stage_is_taken_over_with_what_it_leaves_outside_its_folder_or_not_at_all(
    copy: Path, tmp_path: Path
) -> None:
    made = open_run(copy).made("augment")
    assert made is not None

    def take(name: str) -> bool:
        """Whether it had to be made."""
        run = dataclasses.replace(open_run(copy), folder=tmp_path / name, reuse=(copy,), trusted=False)
        run.keep_normaliser()
        worked: list[bool] = []

        def work() -> dict[str, Any]:
            (run.folder / "augmented.hdf5").write_bytes(b"made here")
            worked.append(True)
            return {"seeds": []}

        run.finish("augment", made, work)
        return bool(worked)

    assert not take("whole")
    assert (tmp_path / "whole" / "augmented.hdf5").read_bytes() == (copy / "augmented.hdf5").read_bytes()
    (copy / "augmented.hdf5").unlink()  # to save room, perhaps
    assert take("without")
    assert (tmp_path / "without" / "augmented.hdf5").read_bytes() == b"made here"


def test_stages_are_of_the_sources_that_the_process_began_with(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(shutil.copytree(Path(ipd.__file__).parent, tmp_path / "ipd"))
    monkeypatch.setattr(ipd, "__file__", str(package / "__init__.py"))
    made_of.sources.cache_clear()
    try:
        open_run(finished)
        losses = package / "maths" / "losses.py"
        losses.write_text(losses.read_text() + "\n# installed while the run goes\n")
        began = made_of.code_digest("value")
        made_of.sources.cache_clear()
        assert began != made_of.code_digest("value"), "another process would tell them apart"
        monkeypatch.undo()
        made_of.sources.cache_clear()
        assert began == made_of.code_digest("value")
    finally:
        made_of.sources.cache_clear()


def test_damaged_checkpoint_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "stages" / "policy" / "step-300.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    assert main(["evaluate", str(copy), "--episodes", "1"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(path) in last and "sha256" in last


def test_a_stopped_seed_is_no_result(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint.CheckpointStore(copy / "stages" / "world", "f").fail({0: "tensor w is not finite at update 9"})
    with pytest.raises(InputError, match=r"seed 0 was stopped \(stage world: tensor w .*; there are 1"):
        ipd.load(copy, seed=0)
    assert np.isfinite(ipd.load(copy).act(np.zeros(11))).all()  # the first seed that ended
    assert main(["judge", str(copy)]) == 2
    assert "a seed was stopped" in capsys.readouterr().err
    (copy / "stages" / "audit" / "done.json").unlink()
    assert main(["audit", str(copy)]) == 0
    told = json.loads((copy / "stages" / "audit" / "summary.json").read_text())["seeds"]
    assert [len(each["rows"]) for each in told] == [0, 4]
    page = tmp_path / "view.html"
    assert main(["view", str(copy), "--count", "1", "--to", str(page)]) == 0
    assert "segments of seed 1" in capsys.readouterr().out
    assert main(["view", str(copy), "--count", "1", "--to", str(page), "--seed", "0"]) == 2
    (copy / "stages" / "view" / "done.json").unlink()
    run = dataclasses.replace(open_run(copy), trusted=False)
    trained = open_run(copy)
    examples.view(run, learning.value(trained), *modelling.world(trained), run.made("augment") or "")
    assert run.summary("view")["seed"] == 1


def test_failed_save_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = checkpoint.CheckpointStore(tmp_path, "f")
    store.save(1, {"weight": np.arange(3.0)})
    real = files.write_bytes

    def fail_on_sidecar(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(files, "write_bytes", fail_on_sidecar)
    with pytest.raises(OSError, match="No space"):
        store.save(2, {"weight": np.ones(3)})
    monkeypatch.undo()
    assert store.steps() == [1]
    np.testing.assert_array_equal(store.load(1, {"weight": np.zeros(3)})["weight"], np.arange(3.0))
    store.clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1.json", "step-1.safetensors"]


def test_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    store = checkpoint.CheckpointStore(tmp_path, "f")
    store.save(1, {"weight": np.arange(3, dtype=np.float32)})
    with pytest.raises(InputError, match=r"weight is float32\[3\], expected float32\[4\]"):
        store.load(1, {"weight": np.zeros(4, np.float32)})
    with pytest.raises(InputError, match="first bias"):
        store.load(1, {"weight": np.zeros(3, np.float32), "bias": np.zeros(1)})
