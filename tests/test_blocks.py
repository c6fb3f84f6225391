"""Code in the documents works: every block is carried out, small, or named with the reason why it is not."""

from __future__ import annotations

import dataclasses
import re
import runpy
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from faults.conftest import OPTIONS, finished, shared, small

from ipd.cli import COMMANDS, main
from ipd.cli.options import parse, value_of
from ipd.data.columnmap import read_map
from ipd.data.sources import load
from ipd.presets import with_task
from ipd.runs import enlarged
from ipd.runs.opened import open_run
from ipd.runs.rundir import read_job

__all__ = ["finished", "shared", "small"]

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = [page for page in PAGES if re.search(r"^ *```(?!text)\w", page.read_text(), re.MULTILINE)]
STORY = "own-logs.md"
"""Trained and judged from nothing; on other pages a finished run lies where `ipd train` puts one."""
NOT_RUN = {
    r"pip install ": "the network",
    r"tensorboard ": "a server; runs/test_dashboards.py reads what it would show",
    r"make (demo|test)\b": "an installation; test_docs.py looks for the targets",
    r"ray start ": "a cluster; runs/test_ray.py starts one",
    r"ipd sweep (?!.*--dry-run)": "hours; runs/test_sweep.py makes small ones",
    r"ipd collect .*--recipe medium": "hours; collect/test_collect.py makes small ones",
    r"ipd train --algo ": "minutes; runs/test_algorithms.py trains each",
    r"ipd demo ": "minutes; it is `ipd train` with other defaults",
    r"ipd augment ": "a minute of training; faults/test_parts.py carries it out",
    r"ipd judge ": f"a minute; {STORY} is judged",
    r"ipd render ": "a way to draw; evaluation/test_video.py films where there is one",
}
"""Commands that are only parsed, outside `STORY` -> why, and what stands in for them."""
SMALL = {"cpu": "tiny"}
QUICK = {"judge": ["--steps", "60", "--members", "2", "--horizon", "20"]}
"""Command -> options that make it quick."""
SMALL_PYTHON = {'config="cpu", seeds=3': "config=SMALL, seeds=2"}
"""In a block -> as it is carried out."""
KINDS = {"sh", "python", "csv", "yaml", "text"}
"""`text` is not code."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def lines_of(text: str) -> list[list[str]]:
    """The commands of a block, as words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def why_not(words: list[str]) -> str | None:
    """Which reason of `NOT_RUN` holds for a command."""
    return next((known for known in NOT_RUN if re.match(known, shlex.join([*words, ""]))), None)


def parse_only(words: list[str]) -> None:
    name, argv = words[0], words[1:]
    assert name in COMMANDS, f"no command {name}"
    module = import_module(f"ipd.cli.{'inspect' if name == 'data' else name}")
    if name == "train":
        config = with_task(
            value_of(argv, "preset") or "default", value_of(argv, "env"), value_of(argv, "data") or "",
            cast(Any, value_of(argv, "algo") or "ipd"),
        )  # fmt: skip
        parse(module._with_default(config), argv, name)
        return
    if name == "data":
        module = import_module("ipd.cli.data")
    own = [kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__]
    kinds = [kind for kind in own if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    if kinds:
        parse(kinds[0], argv, name)


def write_log(path: Path) -> None:
    """A table as someone's controller may have written it: some Hopper episodes, no word of a task."""
    whole = load("bundled:hopper-medium-replay")
    episodes = whole.select(range(0, whole.num_episodes, 25))
    names = (
        [f"obs_{i}" for i in range(11)] + [f"act_{i}" for i in range(3)] + ["reward", "terminated", "episode"]
    )
    ends = (episodes.rewards, episodes.terminated, episodes.episode_index)
    columns = [*episodes.observations.T, *episodes.actions.T, *ends]
    np.savetxt(path, np.stack(columns, axis=1), "%.9g", delimiter=",", header=",".join(names), comments="")


def test_every_block_says_what_it_is_and_every_reason_is_needed() -> None:
    found = [(page.name, *block) for page in PAGES for block in blocks(page)]
    assert {kind for _, kind, _ in found} <= KINDS
    assert not any(re.search(r"^    (ipd|python|pip) ", page.read_text(), re.MULTILINE) for page in PAGES)
    shell = [text for name, kind, text in found if kind == "sh" and name != STORY]
    given = [words for text in shell for words in lines_of(text)]
    assert {why_not(words) for words in given} - {None} == set(NOT_RUN)
    for words in given:
        assert words[0] == "ipd" or why_not(words), f"neither carried out nor excused: {shlex.join(words)}"


def smaller(words: list[str], finished: Path | None) -> list[str]:
    """The same command, quick; what `ipd train` would learn is taken from the finished run, if given."""
    if words[0] != "train" or finished is None:
        return [SMALL.get(word, word) for word in words] + QUICK.get(words[0], [])
    asked = dict(zip(words[1::2], words[2::2], strict=True))
    asked["--data"] = "my.hdf5"
    kept = [word for pair in asked.items() if pair[0] not in OPTIONS for word in pair]
    return ["train", *kept, *OPTIONS, "--reuse", str(finished)]


def lay_out(folder: Path, page: str, finished: Path, small: Path) -> dict[str, Any]:
    """The files that a page takes for granted, and the names in its blocks of Python."""
    if page == STORY:
        write_log(folder / "log.csv")
        return {}
    shutil.copyfile(small, folder / "my.hdf5")
    (folder / "data").mkdir()
    for name in ("mine", "hopper"):
        shutil.copytree(finished, folder / "runs" / name)
        config = folder / "runs" / name / "config.yaml"
        config.write_text(config.read_text().replace(str(small), "my.hdf5"))
    if page == "parts.md":
        enlarged.write(open_run(finished, needs=("augment",)), 0, folder / "hopper-more.hdf5")
    return {"SMALL": read_job(finished).config, "observation": np.zeros(11, np.float32)}


def read_table(folder: Path, kind: str, text: str) -> None:
    """A table, or a map of one with those columns, is read."""
    path = folder / f"block.{kind}"
    path.write_text(text)
    if kind == "yaml":
        names = read_map(path).used()
        rows = "\n".join([",".join(names), *[",".join("0" * len(names))] * 4])
        (folder / "mapped.csv").write_text(rows + "\n")
    read = load(str(path)) if kind == "csv" else load(str(folder / "mapped.csv"), columns=path)
    assert read.num_steps > 0


@pytest.mark.parametrize("page", CODE, ids=lambda page: page.name)
def test_page_is_true_from_top_to_bottom(
    page: Path, finished: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "runner", raising=False)
    story = page.name == STORY
    known = lay_out(tmp_path, page.name, finished, small)
    for kind, text in blocks(page):
        if kind == "python":
            for left, right in SMALL_PYTHON.items():
                text = text.replace(left, right)
            (tmp_path / "block.py").write_text(text)
            known |= runpy.run_path(str(tmp_path / "block.py"), known)
        if kind in ("csv", "yaml"):
            read_table(tmp_path, kind, text)
        for words in lines_of(text) if kind == "sh" else []:
            if words[0] == "ipd":
                parse_only(words[1:])
            if words[0] == "ipd" and (story or not why_not(words)):
                assert main(smaller(words[1:], None if story else finished)) == 0, shlex.join(words)
