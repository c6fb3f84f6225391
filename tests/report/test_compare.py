"""Many runs as methods on data sets: what counts, what is put together, and the measures over all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from report.small_runs import write_small_run

from ipd.report import compare, compare_ablations, compare_page, compare_read, compare_tables
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
        ("hopper_medium_replay-v2.hdf5", 402_000 - 5_000, "hopper-medium-replay", False),
        ("hopper_medium-v0.hdf5", 1_000_000, "hopper-medium-v0", False),
        ("hopper_expert-v2.hdf5", 500, "hopper-expert-v2", False),
    ],
)
def test_only_a_file_that_looks_like_d4rls_in_every_way_is_called_so(
    source: str, rows: int, name: str, official: bool
) -> None:
    assert dataset_of(source, {"digest": "d", "steps": rows}) == (name, official, "d")
    assert not dataset_of(source, {}).official, "nothing vouches for it"
    made = {"digest": "d", "steps": rows, "made": {"recipe": "medium"}}
    assert not dataset_of(source, made).official, "it says that it was collected"


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


def test_a_copy_is_left_out_and_the_same_seeds_again_are_another_row(tmp_path: Path) -> None:
    write_small_run(tmp_path / "ipd", FLAT)
    write_small_run(tmp_path / "copy", FLAT)
    write_small_run(tmp_path / "old", {0: [1.0], 1: [2.0]})
    write_small_run(tmp_path / "more", {2: [50.0], 3: [50.0]}, evaluate={"episodes": 9})
    found = compare.load([tmp_path], tmp_path)
    assert [left.reason for left in found.left_out] == ["the same episodes as copy"]
    assert [(cell.label, cell.folders) for cell in found.cells] == [
        ("", ("copy", "more")),
        ("again in old", ("old",)),
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
    write_small_run(tmp_path / "plain", {**FLAT, 2: [1.0, 1.0]})
    assert {name: cell.folders for name, cell in cells_of(tmp_path).items()} == {
        "IPD": ("ipd",),
        "IPD, q_weight 1": ("plain",),
    }
    assert {cell.folders[0] for cell in cells_of(tmp_path / "plain").values()} == {"plain"}


def test_a_variant_alone_is_no_main_run(tmp_path: Path) -> None:
    write_small_run(tmp_path / "no-refit" / "seeds-0-1", FLAT, preset="cpu+no-refit")
    run = write_small_run(tmp_path / "half", {0: [3.0]}, augment={"augment_ratio": 0.5})
    told = {"data": {"digest": "0a1b2c3d", "steps": 115_200}}
    told["overrides"] = ["augment.augment_ratio", "evaluate.prompts"]
    (run / "manifest.json").write_text(json.dumps(told))
    write_small_run(tmp_path / "walker" / "mpc-2" / "seeds-0-1", FLAT, data=WALKER)  # of an older version
    write_small_run(tmp_path / "bc" / "seeds-0-1", FLAT, "bc", preset="cpu+no-q-term")
    found = compare.load([tmp_path], tmp_path)
    assert {(cell.dataset.name, cell.label) for cell in found.cells if cell.algo == "ipd"} == {
        ("hopper-medium-replay", "no-refit"),
        ("hopper-medium-replay", "augment_ratio 0.5"),
        ("walker2d-medium-replay", "mpc-2"),
    }
    assert found.algos == ["bc"] and found.found == ["bc", "ipd"]
    assert [standing.algo for standing in compare.standings(found)] == ["bc"]
    assert compare_page.verdict(found) == "1 method on 2 data sets, 4 runs"
    only = compare.load([tmp_path / "walker"], tmp_path)
    assert compare_page.verdict(only) == "Variants only, on 1 data set: nothing to rank"
    said = "Variants only, in no measure over data sets: IPD on walker2d-medium-replay (regenerated)."
    for text in (compare_page.render(only), compare_tables.markdown(only), compare_tables.terminal(only)):
        assert said in text and "IPD, mpc-2" in text
    write_small_run(tmp_path / "plain", {0: [1.0], 1: [2.0]})
    assert cells_of(tmp_path)["IPD"].folders == ("plain",)


def test_larger_groups_of_seeds_are_put_together_first(tmp_path: Path) -> None:
    for seeds in (range(3), range(5), range(5, 10)):
        scores = {seed: [10.0 * len(seeds) + seed] for seed in seeds}
        write_small_run(tmp_path / "ipd" / f"seeds-{seeds[0]}-{seeds[-1]}", scores)
    found = cells_of(tmp_path)
    assert found["IPD"].folders == ("ipd/seeds-0-4", "ipd/seeds-5-9")
    assert list(found["IPD"].last) == list(range(10))
    assert found["IPD, again in ipd/seeds-0-2"].folders == ("ipd/seeds-0-2",)


def test_a_run_from_before_a_setting_is_the_same_experiment(tmp_path: Path) -> None:
    write_small_run(tmp_path / "old", FLAT)
    write_small_run(tmp_path / "new", {2: [30.0], 3: [31.0]}, policy={"trace": 0.0})
    write_small_run(tmp_path / "traced", {2: [30.0], 3: [31.0]}, policy={"trace": 0.8})
    found = cells_of(tmp_path)
    assert list(found["IPD"].last) == [0, 1, 2, 3] and list(found) == ["IPD", "IPD, trace 0.8"]


def test_presets_that_are_mixed_are_told(tmp_path: Path) -> None:
    write_small_run(tmp_path / "ipd", FLAT)
    write_small_run(tmp_path / "dt", FLAT, "dt")
    write_small_run(tmp_path / "greedy", FLAT, preset="demo+greedy", augment={"num_plans": 1})
    found = compare.load([tmp_path], tmp_path)
    assert compare_tables.mixed(found) == [], "a variant of another preset is named as one"
    write_small_run(tmp_path / "walker", FLAT, data=WALKER, preset="demo")
    found = compare.load([tmp_path], tmp_path)
    (said,) = compare_tables.mixed(found)
    assert "demo: IPD on walker2d-medium-replay (regenerated); cpu: the other 2" in said
    assert said in compare_tables.markdown(found) and said in compare_tables.terminal(found)
    assert ("no", said) in compare_page.checks(found)


def test_runs_behind_links_are_found_once(tmp_path: Path) -> None:
    write_small_run(tmp_path / "elsewhere" / "ipd", FLAT)
    write_small_run(tmp_path / "here" / "dt", FLAT, "dt")
    (tmp_path / "here" / "ipd").symlink_to(tmp_path / "elsewhere" / "ipd")
    (tmp_path / "here" / "round").symlink_to(tmp_path / "here")
    (tmp_path / "here" / "twice").symlink_to(tmp_path / "elsewhere")
    found = compare.load([tmp_path / "here"], tmp_path / "here")
    assert [entry.algo for entry in found.entries] == ["dt", "ipd"] and not found.left_out


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


def test_few_seeds_have_no_interval_over_runs(tmp_path: Path) -> None:
    for algo, shift in (("ipd", 50.0), ("dt", 0.0)):
        write_small_run(tmp_path / "two" / algo, {seed: [shift + seed] for seed in range(2)}, algo)
        write_small_run(tmp_path / "three" / algo, {seed: [shift + seed] for seed in range(3)}, algo)
    two, three = (compare.load([tmp_path / name], tmp_path) for name in ("two", "three"))
    for standing in compare.standings(two):
        assert standing.iqm is not None and math.isnan(standing.iqm.low)
    assert compare_page.verdict(two).startswith("IPD is number 1 of 2 methods, with too few seeds to tell")
    (doubt,) = (
        state
        for state, text in compare_page.checks(two)
        if "DT (1); each from at least 1 data set, 2" in text
    )
    assert doubt == "open"
    assert compare_page.verdict(three) == "IPD leads 1 other method: 51.0, before DT's 1.0"
    assert compare_page.checks(three)[0] == (
        "yes",
        "a run of IPD is better with a probability of at least 0.75: than DT (1); "
        "each from at least 1 data set, 3 seeds a side",
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
