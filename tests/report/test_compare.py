"""Many runs as methods on data sets: what counts, what is put together, and the measures over all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from report.small_runs import write_small_run

from ipd.report import compare, compare_ablations, compare_read
from ipd.report.compare import Cell, Comparison
from ipd.report.compare_read import dataset_of
from ipd.report.read import ReportError

FLAT = {0: [10.0, 10.0], 1: [30.0, 30.0]}
"""Two seeds that differ, without any spread within."""
HOPPER, WALKER = "bundled:hopper-medium-replay", "files/walker2d-medium-replay.hdf5"


def cells_of(root: Path) -> dict[str, Cell]:
    return {compare.name_of(cell.algo, cell.label): cell for cell in compare.load([root], root).cells}


def test_runs_are_found_at_any_depth_and_not_within_a_run(tmp_path: Path) -> None:
    runs = [write_small_run(tmp_path / name, FLAT) for name in ("b/deep/er", "a", "b/c")]
    write_small_run(runs[0] / "stages" / "copy", FLAT)
    write_small_run(tmp_path / ".cache" / "run", FLAT)
    (tmp_path / "config.yaml").write_text("site: docs")
    expected = sorted(runs)
    assert compare_read.find([tmp_path]) == expected
    assert compare_read.find([tmp_path / "a", tmp_path]) == expected, "each once"
    with pytest.raises(ReportError, match="neither a run nor a folder with runs"):
        compare_read.find([tmp_path / "b" / "none"])


@pytest.mark.parametrize(
    ("source", "rows", "name", "official"),
    [
        ("data/hopper_medium_replay-v2.hdf5", 402_000, "hopper-medium-replay-v2", True),
        ("data/hopper_medium_replay-v2.hdf5", 115_200, "hopper-medium-replay", False),
        ("hopper-medium-replay-v2.hdf5", 402_000, "hopper-medium-replay", False),
        ("bundled:hopper-medium-replay", 115_200, "hopper-medium-replay", False),
        ("bundled:hopper_medium_replay-v2", 402_000, "hopper-medium-replay", False),
        ("halfcheetah-medium-replay.hdf5", 202_000, "halfcheetah-medium-replay", False),
        ("pen-cloned-v1.hdf5", 500_000, "pen-cloned-v1", True),
        ("kitchen_microwave_kettle_light_slider-v0.hdf5", 136_950, "kitchen-partial-v0", True),
    ],
)
def test_only_a_file_that_looks_like_d4rls_in_every_way_is_called_so(
    source: str, rows: int, name: str, official: bool
) -> None:
    assert dataset_of(source, {"digest": "d", "steps": rows}) == (name, official, "d")
    assert not dataset_of(source, {}).official, "nothing vouches for it"


def test_a_data_set_is_never_printed_as_d4rls_unless_it_is(tmp_path: Path) -> None:
    write_small_run(tmp_path / "a", FLAT)
    write_small_run(tmp_path / "b", FLAT, data="hopper_medium_replay-v2.hdf5", rows=402_000)
    found = compare.load([tmp_path], tmp_path)
    titles = [compare.title(dataset, found.datasets) for dataset in found.datasets]
    assert titles == ["hopper-medium-replay (regenerated)", "hopper-medium-replay-v2 (D4RL)"]
    assert len(found.cells) == 2, "their runs are not put together"


def test_the_policy_named_as_the_method_is_judged(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "cql", FLAT, "cql", policies={"cloning": {0: [99.0], 1: [99.0]}})
    assert compare.score(compare_read.read_run(run, "cql").last).mean == 20.0
    old = write_small_run(tmp_path / "old", FLAT)
    text = (old / "config.yaml").read_text()
    (old / "config.yaml").write_text(text.replace('"algo": "ipd", ', ""))
    assert compare_read.read_run(old, "old").algo == "ipd", "older runs name no algorithm"


def test_last_and_best_stand_apart(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run", FLAT, steps=(100, 200))
    lines = (run / "evaluations.csv").read_text().replace("ipd,1,100,0,", "ipd,1,100,9,").splitlines()
    extra = ["ipd,1,100,0,0.0,10,95.0"]  # seed 1 was at (95 + 25 + 25) / 3 on the way
    (run / "evaluations.csv").write_text("\n".join([*lines, *extra]) + "\n")
    entry = compare_read.read_run(run, "run")
    assert entry.steps == (200, {0: 200, 1: 100}) and entry.snapshots == 2
    np.testing.assert_array_equal(entry.last[1], [30.0, 30.0])
    np.testing.assert_array_equal(sorted(entry.best[1]), [25.0, 25.0, 95.0])
    np.testing.assert_array_equal(entry.best[0], [10.0, 10.0])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("ipd,1,200,1,955.0,10,30.0", "ipd,1,200,1,nan,10,30.0", "seed 1, step 200, episode 1: the ret"),
        ("ipd,1,200,1,955.0,10,30.0", "ipd,1,200,1,955.0,10,nan", "seed 1, .* no normalised score"),
        ("ipd,1,200,1,955.0,10,30.0", "ipd,1,200,1,955.0,10,", "seed 1, .* no normalised score"),
        ("ipd,0,100,0,142.5,10,5.0", "ipd,0,100,0,inf,10,5.0", "seed 0, step 100, episode 0"),
        ("ipd,1,200,", "ipd,1,150,", "unfinished: ipd has no episode of seed 1 at step 200"),
        ("ipd,1,", "ipd,0,", "unfinished: ipd has no episode of seed 1"),
        ("ipd,", "cloning,", "no episode of the policy ipd"),
        ("955.0", "many", "line 4 is no evaluation"),
    ],
)  # fmt: skip
def test_a_bad_or_missing_seed_takes_its_run_out(tmp_path: Path, old: str, new: str, reason: str) -> None:
    write_small_run(tmp_path / "good", {0: [50.0], 1: [50.0]})
    bad = write_small_run(tmp_path / "bad", FLAT, steps=(100, 200))
    text = (bad / "evaluations.csv").read_text()
    assert old in text
    (bad / "evaluations.csv").write_text(text.replace(old, new))
    found = compare.load([tmp_path], tmp_path)
    assert [entry.name for entry in found.entries] == ["good"]
    assert [left.name for left in found.left_out] == ["bad"]
    with pytest.raises(ReportError, match=reason):
        compare_read.read_run(bad, "bad")


def test_a_run_at_work_is_not_counted(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run", FLAT)
    (run / "stages" / "evaluate").mkdir(parents=True)
    with pytest.raises(ReportError, match="unfinished"):
        compare.load([run], tmp_path)
    (run / "stages" / "evaluate" / "done.json").write_text("{}")
    assert len(compare.load([run], tmp_path).entries) == 1
    (run / "evaluations.csv").unlink()
    with pytest.raises(ReportError, match=r"run: failed or unfinished: no evaluations\.csv"):
        compare.load([run], tmp_path)
    (run / "config.yaml").write_text("data: kitchen.hdf5\ntask: null\n")
    with pytest.raises(ReportError, match="trained, not evaluated"):
        compare.load([run], tmp_path)


def test_what_a_sweep_says_of_its_runs_is_listed(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    at = {name: f"hopper/{name}/seeds-0-1" for name in ("ipd", "early", "late", "next")}
    write_small_run(sweep / at["ipd"], FLAT)
    unfinished = write_small_run(sweep / at["late"], FLAT, algo="dt")
    (unfinished / "evaluations.csv").unlink()
    (sweep / "hopper" / "early").mkdir()
    for name, line in (("early", "no such task"), ("late", "loss is nan"), ("ipd", "")):
        told = {"state": "failed" if line else "done", "line": line}
        (sweep / f"{at[name]}.json").write_text(json.dumps(told))
    plan = {
        "runs": [{"run": run} for run in at.values()],
        "skipped": [{"set": "pen-cloned", "why": "no file"}],
    }
    (sweep / "plan.json").write_text(json.dumps(plan))
    found = compare.load([sweep], tmp_path)
    assert [entry.name for entry in found.entries] == [f"sweep/{at['ipd']}"]
    assert found.left_out == [
        (f"sweep/{at['late']}", "failed: loss is nan"),
        (f"sweep/{at['early']}", "failed: no such task"),
        (f"sweep/{at['next']}", "planned, not run yet"),
        ("pen-cloned", "skipped: no file"),
    ]


def test_a_copy_is_left_out_and_the_same_seeds_again_are_another_row(tmp_path: Path) -> None:
    write_small_run(tmp_path / "ipd", FLAT)
    write_small_run(tmp_path / "copy", FLAT)
    write_small_run(tmp_path / "old", {0: [1.0], 1: [2.0]})
    write_small_run(tmp_path / "more", {2: [50.0], 3: [50.0]}, evaluate={"episodes": 9})
    found = compare.load([tmp_path], tmp_path)
    assert [left.reason for left in found.left_out] == ["the same episodes as copy"]
    assert [(cell.label, cell.folders) for cell in found.cells] == [
        ("", ("copy", "more")),
        ("old", ("old",)),
    ]
    assert compare.score(found.cells[0].last)[::3] == (35.0, 4), (
        "four seeds, how often they were tried is no setting"
    )


def test_variants_are_named_by_what_differs(tmp_path: Path) -> None:
    write_small_run(tmp_path / "ipd", FLAT)
    write_small_run(tmp_path / "a", {0: [1.0]}, preset="cpu+greedy", augment={"num_plans": 1})
    write_small_run(tmp_path / "b", {0: [2.0]}, preset="demo", policy={"width": 16})
    write_small_run(tmp_path / "c", {0: [3.0]}, augment={"augment_ratio": 0.25})
    write_small_run(tmp_path / "d", {0: [4.0]}, policy={"q_weight": 0.0, "mix": 0.1, "width": 8})
    write_small_run(
        tmp_path / "e", {0: [5.0]}, preset="cpu+greedy", augment={"num_plans": 1, "augment_ratio": 2.0}
    )
    write_small_run(tmp_path / "g" / "seeds-0", {0: [4.0]}, policy={"q_weight": 0.0, "mix": 0.2, "width": 8})
    write_small_run(tmp_path / "f", {2: [6.0]}, dt={"width": 999}, cql={"steps": 9})
    found = cells_of(tmp_path)
    assert {name: cell.folders for name, cell in found.items()} == {
        "IPD": ("f", "ipd"),  # another method's settings are none of IPD's
        "IPD, greedy, augment_ratio 1": ("a",),
        "IPD, greedy, augment_ratio 2": ("e",),
        "IPD, demo": ("b",),
        "IPD, augment_ratio 0.25": ("c",),
        "IPD, d": ("d",),
        "IPD, g": ("g/seeds-0",),
    }
    assert found["IPD, d"].differs == ("policy.mix 0.1", "policy.q_weight 0", "policy.width 8")


def test_the_folder_of_a_method_holds_its_main_runs(tmp_path: Path) -> None:
    write_small_run(tmp_path / "ipd", FLAT, preset="cpu+q-term", policy={"q_weight": 3.0})
    write_small_run(tmp_path / "plain", {**FLAT, 2: [1.0]})
    assert {name: cell.folders for name, cell in cells_of(tmp_path).items()} == {
        "IPD": ("ipd",),
        "IPD, q_weight 1": ("plain",),
    }
    assert {cell.folders[0] for cell in cells_of(tmp_path / "plain").values()} == {"plain"}


def test_intervals_draw_seeds_not_episodes(tmp_path: Path) -> None:
    """Fifty episodes at 10 and fifty at 30: as one pool the mean is 20 +- 2, as two seeds it is 10 to 30."""
    write_small_run(tmp_path / "ipd", {0: [10.0] * 50, 1: [30.0] * 50})
    found = compare.score(cells_of(tmp_path)["IPD"].last)
    assert found == (20.0, 10.0, 30.0, 2, 100)
    alone = compare.score({0: np.arange(50.0)})
    assert math.isnan(alone.low) and (alone.seeds, alone.episodes) == (1, 50)


def worked(tmp_path: Path) -> Comparison:
    """Two sets: IPD on both, IQL on both, DT on one."""
    for data, shift in ((HOPPER, 0.0), (WALKER, 100.0)):
        place = tmp_path / data[-6:-1].replace(".", "")
        for algo, levels in {
            "ipd": (40, 50, 60, 70),
            "iql": (30, 45, 55, 10),
            "dt": (80, 90, 85, 95),
        }.items():
            if algo != "dt" or data == HOPPER:
                scores = {seed: [level + shift, level + shift + 2] for seed, level in enumerate(levels)}
                write_small_run(place / algo, scores, algo, data)
    return compare.load([tmp_path], tmp_path)


def test_measures_over_all_sets(tmp_path: Path) -> None:
    found = {standing.algo: standing for standing in compare.standings(worked(tmp_path))}
    assert list(found) == ["iql", "dt", "ipd"], "a reader's order, ours last"
    # Eight runs 41..71 and 141..171: two go on each side, the rest is 61, 71, 141, 151.
    assert found["ipd"].iqm is not None and found["ipd"].iqm.point == 106.0
    assert found["ipd"].iqm.low < 106.0 < found["ipd"].iqm.high and found["ipd"].improvement is None
    # 40: beats 30, 10; 50: and 45; 60, 70: all four. 2 + 3 + 4 + 4 of 16 on either set.
    assert found["iql"].improvement is not None and found["iql"].improvement.point == 13 / 16
    assert found["iql"].improvement.low < 13 / 16 < found["iql"].improvement.high <= 1.0
    assert found["dt"] == ("dt", 1, None, (0.0, 0.0, 0.0)), (
        "no IQM over other sets, nothing won on the shared one"
    )


@pytest.mark.parametrize(
    ("augment", "planner", "volume"),
    [
        ({"enabled": True, "num_plans": 1, "plan_noise": 0.0, "augment_ratio": 0.5}, "greedy", 0.5),
        ({"enabled": True, "num_plans": 1, "plan_noise": 0.3, "augment_ratio": 2.0}, "MPC", 2.0),
        ({"enabled": True, "num_plans": 3, "plan_noise": 0.0, "augment_ratio": 1.0}, "MPC", 1.0),
        ({"enabled": False, "num_plans": 3, "plan_noise": 1.0, "augment_ratio": 1.0}, "MPC", 0.0),
    ],
)
def test_planner_and_volume_of_a_run(augment: dict[str, float], planner: str, volume: float) -> None:
    settings = {f"augment.{key}": value for key, value in augment.items()}
    assert compare_ablations.planner_of(settings) == planner
    assert compare_ablations.volume_of(settings) == volume


def test_score_against_volume_compares_only_runs_that_are_else_the_same(tmp_path: Path) -> None:
    greedy = {"num_plans": 1, "plan_noise": 0.0}
    write_small_run(tmp_path / "ipd", {0: [50.0]})
    write_small_run(tmp_path / "half", {0: [40.0]}, augment={"augment_ratio": 0.5})
    write_small_run(tmp_path / "greedy", {0: [20.0]}, augment=greedy)
    write_small_run(tmp_path / "more", {0: [45.0]}, augment={"num_plans": 9})
    write_small_run(tmp_path / "none", {0: [10.0]}, augment={"enabled": False}, policy={"mix": 0.0})
    write_small_run(tmp_path / "other", {0: [99.0]}, augment={"augment_ratio": 2.0}, policy={"q_weight": 9.0})
    found = compare.load([tmp_path], tmp_path)
    families = compare_ablations.volumes(found.of(found.datasets[0], "ipd"))
    assert [family.label for family in families] == [""]
    points = [{c.label: [(v, s.mean) for v, s, _ in c.points] for c in f.curves} for f in families]
    assert points == [
        {
            "MPC, 3 plans, noise 1.0": [(0.0, 10.0), (0.5, 40.0), (1.0, 50.0)],
            "MPC, 9 plans, noise 1.0": [(0.0, 10.0), (1.0, 45.0)],
            "greedy": [(0.0, 10.0), (1.0, 20.0)],
        }
    ]


def test_prompts_are_compared_by_mean_and_spread(tmp_path: Path) -> None:
    fixed = {"ipd@1.25": {0: [0.0, 4.0], 1: [20.0, 24.0]}, "ipd@0.5": {0: [5.0, 5.0], 1: [5.0, 5.0]}}
    write_small_run(tmp_path / "ipd", FLAT, policies=fixed)
    cell = cells_of(tmp_path)["IPD"]
    found = compare_ablations.prompts(cell)
    assert [prompt.name for prompt in found] == [
        "V of the state", "fixed, 0.5 of the best logged", "fixed, 1.25 of the best logged",
    ]  # fmt: skip
    assert [prompt.score.mean for prompt in found] == [20.0, 5.0, 12.0]
    assert [prompt.within for prompt in found] == [0.0, 0.0, 2.0]
    assert [prompt.between for prompt in found] == pytest.approx([np.sqrt(200), 0.0, np.sqrt(200)])
    assert compare_ablations.prompts(cell._replace(prompts={})) == []
