"""What the documents name exists: functions, settings, tests, files, commands."""

from __future__ import annotations

import ast
import csv
import dataclasses
import importlib
import re
from pathlib import Path

import pytest
from docs_site import build

from ipd import config

ROOT = Path(__file__).resolve().parent.parent
METHOD, DEVIATIONS, NOTATION = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("method", "deviations", "notation")
)


def resolve(dotted: str) -> object:
    """The module, or the attribute of a module or class, of a dotted name."""
    parts = dotted.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for name in parts[split:]:
            found = getattr(found, name)
        return found
    raise AssertionError(f"{dotted} does not exist")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(ipd\.[\w.]+)`", METHOD))))
def test_every_function_of_the_method_page_exists(name: str) -> None:
    assert resolve(name)


def test_the_method_page_covers_every_equation() -> None:
    covered: set[int] = set()
    for cell in re.findall(r"^\| ([\d, -]+)", METHOD, flags=re.MULTILINE):
        for part in filter(str.strip, cell.split(",")):
            ends = [int(number) for number in re.findall(r"\d+", part)]
            covered |= set(range(ends[0], ends[-1] + 1)) if ends else set()
    assert covered == set(range(1, 27))


def test_every_test_of_the_deviations_page_exists() -> None:
    tests = {path: ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("test_*.py")}
    functions = {
        (path.name, node.name)
        for path, tree in tests.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    named = re.findall(r"`(?:([\w/]+\.py)::)?(test_\w+)`", DEVIATIONS)
    assert len(named) > 20
    for file, name in named:
        assert any(name == found and (not file or Path(file).name == where) for where, found in functions), (
            name
        )
    # every ruling has a test
    rulings = re.split(r"\n\n(?=\*\*)", DEVIATIONS)[1:]
    assert all("`test_" in ruling or "::test_" in ruling for ruling in rulings)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w+Config\.\w+)`", NOTATION))))
def test_every_setting_of_the_notation_page_exists(name: str) -> None:
    section, field = name.split(".")
    assert field in {each.name for each in dataclasses.fields(getattr(config, section))}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_metrics_page_explains_every_metric() -> None:
    from ipd.runs.metrics import GLOSSARY

    rows = re.findall(
        r"^\| `(\w+)` \| (.+) \| (.+?) \|$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE
    )
    assert {name: (what.replace("\\|", "|"), unit) for name, what, unit in rows} == GLOSSARY


def test_figures_of_the_reliability_page_are_those_of_the_committed_table() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text().split("## The figures")[1]
    with (ROOT / "bench" / "results" / "faults.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) > 30
    assert re.findall(r"^\| (.+) \| (.+) \|$", text, re.MULTILINE) == [tuple(row) for row in rows]


def test_site_is_built_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the site needs mkdocs-material: pip install -e '.[docs]'")
    build(tmp_path / "site")
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").glob("*.md")))
    for page in pages:  # scripts, styles and pictures come from the site itself
        loads = re.findall(
            r"<(?:script|img|link rel=.stylesheet.)[^>]*(?:src|href)=.?(https?://[^ >]+)", page.read_text()
        )
        assert not loads, f"{page.name} loads {loads}"


def test_commands_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", text)) <= targets
    from ipd.cli import COMMANDS

    assert set(re.findall(r"^ipd ([a-z]+)", text, flags=re.MULTILINE)) <= set(COMMANDS)


def test_pages_of_commands_and_settings_say_what_the_options_say(capsys: pytest.CaptureFixture[str]) -> None:
    import option_tables

    from ipd.cli import COMMANDS, main

    assert option_tables.sections_of_commands() == list(COMMANDS)
    for path, text in option_tables.pages().items():
        assert path.read_text() == text, f"{path.name}: `python tests/option_tables.py` writes it anew"
    page, settings = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("commands", "settings"))
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        section = page.split(f"<!-- options {name} -->")[1].split("<!-- /options -->")[0]
        assert "|  |\n" not in section, f"ipd {name}: an option without a word on it"
        helped = set(re.findall(r"^. (--[a-z][\w.-]+)", capsys.readouterr().out, re.MULTILINE))
        both = section + (settings if name == "train" else "")
        told = set(re.findall(r"^\| `(--[\w.-]+)", both, re.MULTILINE))
        assert helped <= told and (name == "train" or helped == told), f"ipd {name}"


def test_tables_of_results_are_those_of_the_committed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    for path, text in importlib.import_module("refresh").documents().items():
        assert path.read_text() == text, f"{path.name}: `python results/refresh.py` writes its tables anew"
