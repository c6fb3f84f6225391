"""The page: complete, the same bytes for the same run, whole with parts missing, safe, readable."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from ipd.report import headline, page, read, sections, tables
from ipd.report.tables import Row

SECTIONS = ("result", "training", "world", "augmentation", "truth", "evaluations", "run")
TITLES = [
    *(
        "Loss of V",
        "Loss of Q",
        "Loss of the dynamics",
        "Best held-out error",
        "Q gained over the logged action",
    ),
    *("Return along training", "One step ahead", "Deeper and deeper", "Does it know its error?"),
    *("In and out of distribution", "When in an episode", "Promised gain", "Before and after"),
    *("Imagined and true return, chosen states", "Imagined and true return, random states"),
    *("Return by depth, chosen states", "Return by depth, random states", "Error of the state by depth"),
    "Inside and outside the reliable set",
]


class Outline(HTMLParser):
    """Checks that tags close in order, and keeps what the tests ask about."""

    VOID = ("meta", "link", "br", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))


def text_of(run: Path) -> str:
    return page.write(run).read_text(encoding="utf-8")


def test_a_complete_run_has_every_section_and_figure(synthetic_run: Path) -> None:
    text = text_of(synthetic_run)
    anchors = {values.get("id") for _, values in Outline(text).attributes}
    assert anchors >= set(SECTIONS)
    assert not [title for title in TITLES if f"<h3>{title}</h3>" not in text]
    assert "Not yet" not in text and ">nan<" not in text.lower()
    assert text.count("<figure") == text.count("<figcaption>")
    for word in ("5f0c2a9be1d34c77", "expectile: 0.7", "mujoco", "Can I believe it?", "primal, max"):
        assert word in text


def test_equal_runs_give_equal_bytes_wherever_they_lie(synthetic_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "another"
    shutil.copytree(synthetic_run, other)
    first = page.write(synthetic_run).read_bytes()
    assert page.write(other).read_bytes() == first == page.write(synthetic_run).read_bytes()
    assert not list(synthetic_run.glob("*.part"))


@pytest.mark.parametrize(
    ("gone", "command"),
    [
        ("evaluations.csv", "ipd evaluate RUN"),
        ("stages/audit/summary.json", "ipd audit RUN"),
        ("stages/world/summary.json", sections.TRAIN_AGAIN),
        ("stages/augment/summary.json", sections.TRAIN_AGAIN),
        ("stages/data/summary.json", sections.TRAIN),
        ("metrics.jsonl", sections.TRAIN_AGAIN),
        ("config.yaml", sections.TRAIN),
        ("manifest.json", sections.TRAIN),
    ],
)
def test_a_missing_part_is_named_with_its_command(synthetic_run: Path, gone: str, command: str) -> None:
    (synthetic_run / gone).unlink()
    text = text_of(synthetic_run)
    notes = re.findall(r'<p class="missing">.*?</p>', text)
    assert notes and all(f"<code>{command}</code>" in note for note in notes)
    Outline(text)


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"task": "Hopper-v4"}')
    text = text_of(tmp_path)
    assert "<h1>Not evaluated yet</h1>" in text and text.count('class="missing"') >= 8


def test_a_run_without_a_task_names_no_command_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"task": null}')
    text = text_of(tmp_path)
    assert "ipd judge RUN" in text and "ipd evaluate" not in text and "ipd audit" not in text
    Outline(text)


def test_a_summary_with_holes_loses_only_their_figures(synthetic_run: Path) -> None:
    path = synthetic_run / "stages/world/summary.json"
    summary = json.loads(path.read_text())
    for seed in summary["seeds"]:
        seed["coverage"], seed["uncertainty"]["shuffled"] = None, []
    summary["seeds"][0]["model_error"][3] = None
    path.write_text(json.dumps(summary))
    audit = synthetic_run / "stages/audit/summary.json"
    checked = json.loads(audit.read_text())
    for row in checked["seeds"][0]["rows"]:
        row |= {"rank_correlation": None, "error_unreliable": None}
    audit.write_text(json.dumps({"seeds": checked["seeds"][:1]}))
    text = text_of(synthetic_run)
    assert "Does it know its error?" not in text and "Inside and outside" not in text
    assert "In and out of distribution" in text and "Deeper and deeper" in text
    assert not re.search(r'd="[^"]*nan', text)


def test_names_from_the_run_cannot_become_markup(synthetic_run: Path) -> None:
    hostile = '<script>alert("x")</script>&\'"><img src=x onerror=y>'
    for name in ("manifest.json", "stages/data/summary.json"):
        found = json.loads((synthetic_run / name).read_text())
        (synthetic_run / name).write_text(json.dumps({**found, "task": hostile, hostile: hostile}))
    (synthetic_run / "config.yaml").write_text(f"preset: {hostile}</pre>")
    for name, old in (("metrics.jsonl", "q_gain"), ("evaluations.csv", "cloning")):
        path = synthetic_run / name
        swap = json.dumps(hostile)[1:-1] if name.endswith("l") else '"' + hostile.replace('"', '""') + '"'
        path.write_text(path.read_text().replace(old, swap))
    world = synthetic_run / "stages/world/summary.json"
    world.write_text(world.read_text().replace("primal_mean", json.dumps(hostile)[1:-1]))
    tags = Outline(text_of(synthetic_run)).attributes
    assert not [tag for tag, _ in tags if tag in ("script", "img")]
    assert not [name for _, values in tags for name in values if name.startswith("on")]


def test_nothing_is_fetched(synthetic_run: Path) -> None:
    text = text_of(synthetic_run)
    assert not re.search(r"https?:|@import|url\(|<script", text)
    for tag, values in Outline(text).attributes:
        assert not {"src", "srcset", "action", "data"} & set(values), tag
        assert (values.get("href") or "#").startswith(("#", "data:,"))


def test_every_drawing_speaks(synthetic_run: Path) -> None:
    for tag, values in Outline(text_of(synthetic_run)).attributes:
        if tag == "svg":
            spoken = values.get("role") == "img" and len(values.get("aria-label") or "") > 20
            assert spoken or values.get("aria-hidden") == "true"


def test_file_stays_small(synthetic_run: Path) -> None:
    assert page.write(synthetic_run).stat().st_size < 400_000


@pytest.mark.parametrize(
    ("data", "ours", "words"),
    [
        (Row("data_mean", 100, 90, 110, 0, 0, 9), Row("ipd", 250, 200, 300, 0, 2, 9), "2.5 times"),
        (Row("data_mean", -50, -60, -40, 0, 0, 9), Row("ipd", 25, 0, 50, 0, 2, 9), "75 above"),
        (Row("data_mean", 100, 90, 110, 0, 0, 9), Row("ipd", 110, 80, 140, 0, 2, 9), "No better"),
        (Row("data_mean", 100, 90, 110, 0, 0, 9), Row("ipd", 40, 20, 60, 0, 2, 9), "Worse"),
    ],
)
def test_the_headline_follows_the_interval(data: Row, ours: Row, words: str) -> None:
    assert words in headline.verdict([data, ours], "ipd")


def test_a_baseline_has_a_page_of_its_own(synthetic_run: Path) -> None:
    for path in synthetic_run.glob("stages/*"):
        if path.name != "data":
            shutil.rmtree(path)
    config = synthetic_run / "config.yaml"
    config.write_text("algo: cql\n" + config.read_text())
    metrics = (synthetic_run / "metrics.jsonl").read_text().splitlines()
    kept = [line.replace('"value"', '"cql"') for line in metrics if '"value"' in line]
    (synthetic_run / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    table = (synthetic_run / "evaluations.csv").read_text().splitlines()
    kept = [line.replace("ipd,", "cql,", 1) for line in table if line.startswith(("policy,", "ipd,"))]
    (synthetic_run / "evaluations.csv").write_text("\n".join(kept) + "\n")

    text = text_of(synthetic_run)
    shown = [values.get("id") for tag, values in Outline(text).attributes if tag in ("header", "section")]
    assert shown == ["result", "training", "evaluations", "run"]
    assert "Not yet" not in text and "IPD" not in text and "Imaginary" not in text
    assert "<h1>Better than its data" in text and "<h3>CQL</h3>" in text
    assert "Return along training" in text and "3 of 3 seeds are above the data" in text


def test_the_checks_can_say_no(synthetic_run: Path) -> None:
    path = synthetic_run / "evaluations.csv"
    lines = path.read_text().splitlines()
    swap = {"ipd": "cloning", "cloning": "ipd"}
    path.write_text(
        "\n".join(
            [lines[0], *(",".join([swap.get(p := x.split(",")[0], p), *x.split(",")[1:]]) for x in lines[1:])]
        )
    )
    run = read.load(synthetic_run)
    states = {text: state for state, text in headline.checks(run, tables.final_table(run))}
    below = [state for text, state in states.items() if "below" in text]
    assert below == ["no", "no"] and "yes" in states.values()


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_aa_in_light_and_dark() -> None:
    css = resources.files("ipd.report").joinpath("page.css").read_text()
    blocks = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.S)
    ]
    assert len(blocks) == 2
    for colours in blocks:
        for name in ("ink", "muted", "blue", "orange", "green", "purple", "gold"):
            for ground in ("paper", "wash"):
                pair = sorted((luminance(colours[name]), luminance(colours[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (name, ground)


def test_report_needs_no_jax() -> None:
    code = (
        "import sys, ipd.report.page; assert not {'jax', 'equinox', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_versions_are_shown_as_written() -> None:
    found = {"versions": {"numpy": "2.0"}, "seeds": [0, 1], "remarks": [], "mean": 1234.5, "on": True}
    shown = ["2.0", "0, 1", "none", "1,234", "True"]
    assert [text for _, text in sections.flat(found)] == shown
    assert sections.flat(found)[0][0] == "versions.numpy"
