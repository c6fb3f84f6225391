"""The comparison's tables and page: the paper's numbers beside ours, marks, escapes, files."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from report.small_runs import OURS, write_small_run
from report.test_page import Outline

from ipd.cli import main
from ipd.report import compare, compare_figures, compare_page, compare_tables, published
from ipd.report.compare import Comparison
from ipd.report.compare_read import Dataset

SECTIONS = ("result", "scores", "profiles", "variants", "volume", "prompts", "runs")


@pytest.fixture
def found(many_runs: Path) -> Comparison:
    return compare.load([many_runs], many_runs)


def test_printed_numbers_are_the_papers() -> None:
    assert len(published.TABLE) == 10 and {len(row) for row in published.TABLE.values()} == {9}
    # Sums of the columns as printed, the last with its spreads: a slip of one digit shows.
    columns = [sum(row[index] for row in published.TABLE.values()) for index in range(9)]
    assert columns == pytest.approx([552.3, 556.5, 567.6, 505.0, 585.8, 494.8, 723.0, 605.7, 740.0])
    assert sum(published.SPREADS.values()) == pytest.approx(31.9)
    assert published.lookup("hopper-medium", "reinformer") is not None
    assert published.lookup("halfcheetah-medium-v2", "ipd") == (51.2, 2.6, "")
    assert published.lookup("hopper-medium-replay", "rebrac") is None
    assert published.lookup("ant-medium", "ipd") is None
    right = ("pen-cloned-v1", "kitchen-partial-v0", "hopper-medium-v2", "hopper-medium")
    wrong = ("pen-cloned-v0", "kitchen-partial-v1", "hopper-medium-v0", "hopper-medium-v1")
    assert all(published.lookup(name, "iql") for name in right)
    assert not any(published.lookup(name, "iql") for name in wrong)


def test_doubtful_numbers_say_why() -> None:
    assert all(task in published.TABLE and algo in published.ALGORITHMS for task, algo in published.DOUBTS)
    assert all(10 < len(reason) < 110 for reason in published.DOUBTS.values())
    doubtful = published.lookup("walker2d-medium-replay-v2", "dt")
    assert doubtful is not None and "66.6" in doubtful.doubt
    assert compare_tables.printed_text(doubtful) == "79.4†"
    assert compare_tables.printed_text(published.lookup("hopper-medium", "ipd")) == "81.6 ± 4.8"
    assert compare_tables.printed_text(None) == "–"


def test_table_of_methods(found: Comparison) -> None:
    table = compare_tables.methods(found, "last")
    assert table.header == ("", "BC", "DT", "QT", "IPD")
    assert table.lines[:8] == [
        ("hopper-medium-replay (regenerated)", "16.0", "16.0", "16.0", "86.0"),
        ("95 % interval", "[10.5, 21.5]", "[10.5, 21.5]", "[10.5, 21.5]", "[80.5, 91.5]"),
        ("seeds / episodes", "2 / 4", "2 / 4", "2 / 4", "2 / 4"),
        ("printed, on D4RL's data", "–", "82.7", "102.1", "103.2 ± 3.7"),
        ("walker2d-medium-replay-v2 (D4RL)", "–", "16.0", "16.0", "86.0"),
        ("95 % interval", "–", "[10.5, 21.5]", "[10.5, 21.5]", "[80.5, 91.5]"),
        ("seeds / episodes", "–", "2 / 4", "2 / 4", "2 / 4"),
        ("printed", "–", "79.4†", "94.2†", "96.2 ± 2.1"),
    ]
    assert [line[0] for line in table.lines[8:]] == [
        "IQM over data sets", "95 % interval", "probability that IPD is better", "95 % interval",
    ]  # fmt: skip
    assert table.lines[8][1:] == ("–", "16.0", "16.0", "86.0") and table.lines[10][1:] == (
        *("1.00", "1.00", "1.00"),
        "–",
    )
    best = compare_tables.methods(found, "best").lines
    assert len(best) == 10 and best[3] == ("evaluations", "2", "2", "2", "2")
    assert best[8] == ("evaluations", "–", "2", "2", "2")
    assert table.heads == (0, 4, 8)
    assert table.best == {0: 4, 4: 4, 8: 4}, "IPD's column, names being column 0"


def test_places_data_set_by_data_set(found: Comparison, tmp_path: Path) -> None:
    table = compare_tables.places(found)
    assert table is not None and table.lines == [
        ("hopper-medium-replay (regenerated)", "86.0", "1 of 4", "BC 16.0"),
        ("walker2d-medium-replay-v2 (D4RL)", "86.0", "1 of 3", "DT 16.0"),
    ]
    for algo, score in {"ipd": 50.0, "dt": 60.0, "qt": 70.0, "bc": 40.0}.items():
        write_small_run(tmp_path / "behind" / algo, {0: [score]}, algo)
    behind = compare.load([tmp_path / "behind"], tmp_path)
    (line,) = compare_tables.places(behind).lines  # type: ignore[union-attr]
    assert line[1:] == ("50.0", "3 of 4", "QT 70.0")
    assert compare_tables.methods(behind, "last").best[0] == 3, "QT's column, not IPD's"
    alone = write_small_run(tmp_path / "alone", {0: [50.0]})
    assert compare_tables.places(compare.load([alone], tmp_path)) is None


def test_last_and_best_are_two_tables(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "ipd", OURS, steps=(100, 200))
    text = (run / "evaluations.csv").read_text()
    (run / "evaluations.csv").write_text(re.sub(r"(ipd,0,100,\d,[^,]*,10),.*", r"\1,99.0", text))
    found = compare.load([run], tmp_path)
    means = {moment: compare_tables.methods(found, moment).lines[0][1] for moment in ("last", "best")}
    assert means == {"last": "86.0", "best": "95.0"}  # (81 + 91) / 2 and (99 + 91) / 2


def test_variants_have_their_own_rows(found: Comparison) -> None:
    table = compare_tables.variants(found)
    assert table is not None
    assert [line[:3] for line in table.lines] == [
        ("IPD", "hopper-medium-replay (regenerated)", "–"),
        ("IPD, greedy", "hopper-medium-replay (regenerated)", "augment.num_plans 1; augment.plan_noise 0"),
        ("IPD, no-augmentation", "hopper-medium-replay (regenerated)", "augment.enabled False"),
    ]
    place = table.header.index("evaluations")
    assert [line[place] for line in table.lines] == ["2", "1", "1"]


def test_doubts_are_explained_and_regenerated_data_named(found: Comparison) -> None:
    for text in (compare_tables.markdown(found), compare_tables.latex(found), compare_tables.terminal(found)):
        assert compare_tables.REGENERATED in text and "12.8 above DT's own paper (66.6)" in text
    only = found._replace(cells=[cell for cell in found.cells if cell.dataset.official])
    assert compare_tables.notes(only) == [compare_tables.LEGEND]
    for name in ("table.md", "terminal"):
        text = compare_tables.markdown(found) if name == "table.md" else compare_tables.terminal(found)
        assert not [line for line in text.splitlines() if "hopper" in line and "(D4RL)" in line]


def test_latex_prints_names_as_they_stand(found: Comparison) -> None:
    escaped = compare_tables.escaped("a_b & 5% of {#1} ~ ^ \\x $ <1| −2 ± †")
    assert escaped == (
        r"a\_b \& 5\% of \{\#1\} \textasciitilde{} \textasciicircum{} \textbackslash{}x \$ \textless{}1"
        r"\textbar{} $-$2 $\pm$ $^{\dagger}$"
    )
    text = compare_tables.latex(found)
    assert text.isascii() and text.count(r"\begin{table}") == text.count(r"\end{tabular}}") == 3
    assert r"printed & -- & 79.4$^{\dagger}$ & 94.2$^{\dagger}$ & 96.2 $\pm$ 2.1 \\" in text
    assert not re.search(r"(?<!\\)[_#&%](?=\w)", text.split("\n", 1)[1])
    for block in re.findall(r"\\midrule(.*?)\\bottomrule", text, re.S):
        rows = [row for row in block.splitlines() if row.endswith(r"\\")]
        assert rows and len({row.count(" & ") for row in rows}) == 1


def test_csv_files_hold_every_number(found: Comparison) -> None:
    table = list(csv.DictReader(io.StringIO(compare_tables.csv_methods(found))))
    picked = {(r["data"], r["d4rl"], r["quantity"]): r for r in table if r["evaluation"] == "last"}
    walker = ("walker2d-medium-replay-v2", "true")
    assert picked[(*walker, "mean")]["ipd"] == "86" and picked[(*walker, "mean")]["bc"] == ""
    assert picked[(*walker, "printed")]["dt"] == "79.4"
    assert picked[(*walker, "printed_doubtful")]["dt"] == "true"
    assert picked[(*walker, "printed_doubtful")]["ipd"] == "false"
    seeds = list(csv.DictReader(io.StringIO(compare_tables.csv_seeds(found))))
    assert len(seeds) == 2 * len(found.entries) == 18
    mine = [row for row in seeds if (row["data"], row["algo"], row["variant"]) == (walker[0], "ipd", "")]
    assert [(row["seed"], row["last"], row["last_step"], row["evaluations"]) for row in mine] == [
        ("0", "81", "200", "2"), ("1", "91", "200", "2"),
    ]  # fmt: skip


def test_the_page_is_whole_and_fetches_nothing(found: Comparison) -> None:
    text = compare_page.render(found)
    outline = Outline(text)
    anchors = [values["id"] for _, values in outline.attributes if "id" in values]
    assert tuple(anchors) == SECTIONS
    assert not re.search(r"https?:|@import|url\(|<script", text) and "Not yet" not in text
    for tag, values in outline.attributes:
        assert not {"src", "srcset", "action", "data"} & set(values), tag
        assert (values.get("href") or "#").startswith(("#", "data:,"))
        if tag == "svg":
            spoken = values.get("role") == "img" and len(values.get("aria-label") or "") > 20
            assert spoken or values.get("aria-hidden") == "true"
    for shown in ("IPD is number 1 of 3 methods", "Against DT", "IPD on hopper-medium-replay (regenerated)",
                  "V of the state", "fixed, 0.5 of the best logged", "79.4†", "Printed numbers to doubt",
                  "no evaluations.csv", "fa_il&amp;ed%", "Regenerated data are not D4RL"):  # fmt: skip
        assert shown in text, shown
    assert not re.search(r'd="[^"]*nan', text)


def test_parts_without_runs_name_the_command(tmp_path: Path) -> None:
    write_small_run(tmp_path / "only", {0: [50.0]})
    text = compare_page.render(compare.load([tmp_path], tmp_path))
    Outline(text)
    for command in ("table1", "ablations", "fig2", "fig3"):
        assert f"ipd sweep {command}" in text
    assert "1 method on 1 data set" in text and "nan" not in text


def test_the_headline_minds_the_interval(tmp_path: Path) -> None:
    write_small_run(tmp_path / "ipd", {0: [40.0], 1: [60.0], 2: [50.0]})
    write_small_run(tmp_path / "dt", {0: [30.0], 1: [59.0], 2: [44.5]}, "dt")
    said = compare_page.verdict(compare.load([tmp_path], tmp_path))
    assert said == "IPD is number 1 of 2 methods, not told apart from DT: 50.0, then DT's 44.5"
    write_small_run(tmp_path / "cql", {0: [39.0], 1: [58.0], 2: [58.5]}, "cql")
    said = compare_page.verdict(compare.load([tmp_path], tmp_path))
    assert said == "IPD is number 2 of 3 methods, not told apart from CQL: 50.0 and 51.8"
    write_small_run(tmp_path / "iql", {0: [90.0], 1: [91.0], 2: [90.5]}, "iql")
    found = compare.load([tmp_path], tmp_path)
    assert compare_page.verdict(found) == "IPD is number 3 of 4 methods: 50.0, behind IQL's 90.5"
    states = dict(compare_page.checks(found)[:2])
    assert "than IQL (0); each from at least 1 data set, 3 seeds a side" in states["no"]
    assert "not told apart" in states["open"] and "DT (" in states["open"] and "CQL (" in states["open"]


def test_ipd_does_not_lead_while_a_method_that_lacks_a_set_is_its_equal(tmp_path: Path) -> None:
    both = ("bundled:hopper-medium-replay", "files/walker2d-medium-replay.hdf5")
    for algo, least, sets in (("ipd", 50.0, both), ("dt", 49.0, both[:1]), ("iql", 10.0, both)):
        for place, data in enumerate(sets):
            scores = {seed: [least + 2 * seed] for seed in range(3)}
            write_small_run(tmp_path / f"{algo}{place}", scores, algo, data)
    found = compare.load([tmp_path], tmp_path)
    said = compare_page.verdict(found)
    assert said == "IPD is number 1 of 2 methods, not told apart from DT: 52.0, then IQL's 12.0"
    chart = compare_figures.standings(found)
    assert "Not run on every set: DT." in chart and "orange IPD" in chart and "green" not in chart
    told = [text for state, text in compare_page.checks(found) if state == "open"]
    assert any("intervals over so few seeds are too narrow" in text for text in told)


def test_names_from_runs_cannot_become_markup(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=y>'\"&"
    write_small_run(tmp_path / "ipd", OURS)
    write_small_run(tmp_path / "<u>x", OURS, data=f"x:{hostile}")
    write_small_run(tmp_path / "<s>y", OURS, algo=hostile, preset=hostile)
    write_small_run(tmp_path / "<s>z", OURS, algo=hostile, preset=f"cpu+{hostile}", policy={hostile: hostile})
    text = compare_page.render(compare.load([tmp_path], tmp_path))
    assert not [
        tag for tag, values in Outline(text).attributes if tag in ("img", "u", "s") or "onerror" in values
    ]
    assert "Not run: &lt;img" in text


def test_the_command_compares_folders_and_keeps_to_itself_for_one_run(
    many_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"comparison.html", "table.md", "table.csv", "table.tex", "comparison.csv"}
    assert main(["report", str(many_runs), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    said = capsys.readouterr().out
    assert "IPD, greedy" in said and "79.4†" in said and "left out: fa_il&ed%: failed" in said
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert main(["report", str(many_runs)]) == 0
    assert {name: (many_runs / name).read_bytes() for name in files} == first, "equal runs, equal bytes"
    one = many_runs / "greedy"
    assert main(["report", str(one)]) == 0
    assert "Behaviour cloning" not in capsys.readouterr().out.splitlines()[-1]
    assert (one / "report.html").is_file() and not (one / "comparison.html").exists()
    assert main(["report", str(one), str(many_runs / "none")]) == 2
    assert "--out" in capsys.readouterr().err.splitlines()[-1]
    assert main(["report", str(one), str(many_runs / "none"), "--out", str(tmp_path / "two")]) == 0
    assert "IPD" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "out")]) == 2
    assert "not a run directory" in capsys.readouterr().err


def test_titles_tell_sets_of_one_name_apart() -> None:
    sets = [Dataset("hopper", False, "abcdef012"), Dataset("hopper", False, "123456789")]
    assert [compare.title(each, sets) for each in sets] == [
        "hopper (regenerated, abcdef)", "hopper (regenerated, 123456)",
    ]  # fmt: skip
