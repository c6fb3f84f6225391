"""Run directories and metrics files, without training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ipd.config import ADDED, trimmed
from ipd.presets import override, preset, with_task
from ipd.runs import files, rundir, stages
from ipd.runs.errors import InputError
from ipd.runs.metrics import MetricsLog
from ipd.runs.progress import Progress
from ipd.runs.rundir import Job

JOB = Job("d.hdf5", "Hopper-v4", (0, 3), trimmed(preset("cpu+greedy")))


def manifest(digest: str = "ab") -> dict[str, Any]:
    return {"versions": {"jax": "1"}, "data": {"source": "d.hdf5", "digest": digest}}


def test_config_file_round_trip(tmp_path: Path) -> None:
    rundir.write_job(tmp_path, JOB)
    assert rundir.read_job(tmp_path) == JOB
    text = (tmp_path / "config.yaml").read_text()
    assert text.index("data:") < text.index("seeds:") < text.index("value:") < text.index("policy:")
    assert "!!" not in text


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("  expectile: 0.7", "  expectle: 0.7", "value.exp"),
        ("  batch_size: 256", "  batch_size: many", "value.batch_size"),
        ("seeds:", "sees:", "seeds"),
    ],
)
def test_config_that_cannot_be_read_is_named(tmp_path: Path, old: str, new: str, field: str) -> None:
    rundir.write_job(tmp_path, JOB)
    path = tmp_path / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=field) as caught:
        rundir.read_job(tmp_path)
    assert str(path) in str(caught.value)


def test_config_from_before_a_field_was_added_is_read(tmp_path: Path) -> None:
    rundir.write_job(tmp_path, JOB)
    path = tmp_path / "config.yaml"
    values = yaml.safe_load(path.read_text())
    for field in ADDED:
        section, name = field.split(".")
        del values[section][name]
        if not values[section]:
            del values[section]
    path.write_text(yaml.safe_dump(values))
    assert rundir.read_job(tmp_path) == dataclasses.replace(JOB, config=override(JOB.config, ADDED))
    values["policy"]["trece"] = 0.0
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"field policy\.trece is missing or unknown"):
        rundir.read_job(tmp_path)


def test_every_committed_run_of_a_table_or_figure_is_read() -> None:
    root = Path(__file__).resolve().parents[2] / "results"
    found = [path for name in ("table1", "fig2", "fig3") for path in root.glob(f"{name}/*/*/config.yaml")]
    assert len(found) > 30
    for path in found:
        rundir.read_job(path.parent)


def test_claim_again_and_with_another_config(tmp_path: Path) -> None:
    assert rundir.claim(tmp_path, JOB, manifest()) == []
    moved = Job("elsewhere/d.hdf5", *[JOB.task, JOB.seeds, JOB.config])
    newer = manifest() | {"versions": {"jax": "2"}}
    assert rundir.claim(tmp_path, moved, newer) == ["jax was 1, is 2"]
    with pytest.raises(InputError, match=r"digest ab.*cd"):
        rundir.claim(tmp_path, JOB, manifest("cd"))
    changed = Job("d.hdf5", "Hopper-v4", (0,), override(JOB.config, {"value.steps": 5}))
    with pytest.raises(InputError, match=r"seeds: \[0, 3\] -> \[0\]; value.steps: 40000 -> 5"):
        rundir.claim(tmp_path, changed, manifest())
    tried = dataclasses.replace(JOB, config=override(JOB.config, {"evaluate.final_episodes": 77}))
    assert rundir.claim(tmp_path, tried, manifest()) == [] and rundir.read_job(tmp_path) == tried
    path = tmp_path / "manifest.json"
    for text in ("{}", '{"data": {"digest": "ab"}}', "[]", ""):
        path.write_text(text)
        if not text:
            path.unlink()
        with pytest.raises(InputError, match=r"manifest\.json: .*restore") as caught:
            rundir.claim(tmp_path, JOB, manifest())
        assert "delete" not in str(caught.value)  # its folder is the whole run


def test_the_manifest_names_what_is_not_as_the_preset_has_it() -> None:
    config = with_task("cpu+greedy", "Hopper-v4", "d.hdf5")
    assert stages._overrides(Job("d.hdf5", "Hopper-v4", (0, 3), config)) == []
    changed = override(config, {"augment.augment_ratio": 0.3, "evaluate.prompts": (0.5,)})
    told = stages._overrides(Job("d.hdf5", "Hopper-v4", (0, 3), changed))
    assert told == ["augment.augment_ratio", "evaluate.prompts"]
    strange = dataclasses.replace(config, preset="mine")
    assert stages._overrides(Job("d.hdf5", None, (0,), strange)) == ["preset"]


def test_lock_is_exclusive_and_sweeps_up(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    left = tmp_path / "stages" / ("x.json" + files.PARTIAL)
    left.write_text("half")
    folder = tmp_path / "export" / ("onnx-seed-0" + files.PARTIAL)
    folder.mkdir(parents=True)
    (folder / ("contract.json" + files.PARTIAL)).write_text("half")
    with rundir.locked(tmp_path):
        assert not left.exists() and not folder.exists()
        with pytest.raises(InputError, match="another process"), rundir.locked(tmp_path):
            pass
    with rundir.locked(tmp_path):
        pass


def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"kept": 1})
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as partial:
        partial.write_text("{")
        raise KeyboardInterrupt
    assert files.read_json(path) == {"kept": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]
    path.write_text("{")
    with pytest.raises(InputError, match=r"a\.json"):
        files.read_json(path)


def test_metrics_resume_touches_only_the_stage(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl", (4, 7))
    one = {"q_mean": np.asarray([0.1, 1 / 3], np.float32)}
    for stage, step in (("value", 10), ("value", 20), ("world", 10), ("world", 20)):
        log.append(stage, step, one)
    whole = (tmp_path / "m.jsonl").read_text()
    log.resume("world", 10)
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [(r["stage"], r["step"], r["seed"]) for r in lines] == [
        *[("value", step, seed) for step in (10, 20) for seed in (4, 7)],
        *[("world", 10, seed) for seed in (4, 7)],
    ]
    assert lines[1]["q_mean"] == 0.3333333 and lines[0]["q_mean"] == 0.1
    log.append("world", 20, one)
    assert (tmp_path / "m.jsonl").read_text() == whole
    with pytest.raises(ValueError, match="JSON"):
        log.append("world", 30, {"q_mean": np.asarray([np.nan, 0.0])})


RECORD = b'{"stage": "world", "step": 1, "seed": 4, "q_mean": %s}'


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"\xff",
            b"{",
            b"[]",
            b"9" * 5_000,
            b'{"stage": "world", "seed": 4}',
            RECORD.replace(b'"world"', b"1"),
        ),
        *(RECORD % number for number in (b"NaN", b'"1"', b"1e999", b"[]")),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "m.jsonl"
    log = MetricsLog(path, (4, 7))
    log.append("world", 10, {"q_mean": np.zeros(2)})
    whole = path.read_bytes()
    path.write_bytes(whole + line)  # cut short by a kill
    assert log.last("world") == {4: {"q_mean": 0.0}, 7: {"q_mean": 0.0}}
    path.write_bytes(line + b"\n" + whole)
    for read in (
        lambda: log.last("world"),
        lambda: log.resume("world", 5),
        lambda: log.warn("world", []),
        lambda: MetricsLog(tmp_path / "other.jsonl", (4, 7)).take_over(path, "world"),
    ):
        with pytest.raises(InputError, match=r"m\.jsonl: line 1 is no metrics record"):
            read()
    assert path.read_bytes() == line + b"\n" + whole
    path.write_bytes(whole + line)
    log.resume("world", 10)
    assert path.read_bytes() == whole


def test_plain_progress_says_rate_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 100.0, 110.0, 110.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress(tmp_path / "timing.jsonl")
    progress.begin("value", 0, 100)
    progress.advance(10, {"value_loss": np.asarray([1.0, 3.0])})
    progress.advance(40, {"value_loss": np.asarray([1.0, 3.0])})
    progress.end()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "value: 100 updates"
    assert said[1] == "value: 40/100  3 updates/s  20 s left  value_loss 2"
    assert said[2] == "value: 40 updates done in 1 min 50 s"
    assert json.loads((tmp_path / "timing.jsonl").read_text())["to"] == 40


def test_a_map_of_columns_is_in_the_config_file_only_where_there_is_one(tmp_path: Path) -> None:
    rundir.write_job(tmp_path, JOB)
    assert "columns" not in yaml.safe_load((tmp_path / "config.yaml").read_text())
    mapped = dataclasses.replace(JOB, columns="log.columns.yaml")
    rundir.write_job(tmp_path, mapped)
    assert rundir.read_job(tmp_path) == mapped
    assert rundir.differences(JOB, mapped) == [] == rundir.differences(mapped, JOB)
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("columns: log.columns.yaml", "columns: [reward]"))
    with pytest.raises(InputError, match="field columns"):
        rundir.read_job(tmp_path)


def test_a_run_reads_its_data_through_its_map(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a,b,c,d\n" + "\n".join(f"{i},0.5,{i},{i // 3}" for i in range(9)))
    (tmp_path / "map.yaml").write_text("observations: [a]\nactions: [b]\nreward: c\nepisode: d\n")
    job = dataclasses.replace(
        JOB, data=str(tmp_path / "log.csv"), task=None, columns=str(tmp_path / "map.yaml")
    )
    assert stages.load_episodes(tmp_path, job).starts.tolist() == [0, 2, 4, 6]
