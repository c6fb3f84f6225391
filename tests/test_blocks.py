"""Code in the documents works: guides are carried out, small; other commands are parsed."""

from __future__ import annotations

import dataclasses
import os
import re
import runpy
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest

from ipd.cli import COMMANDS, main
from ipd.cli.options import parse, value_of
from ipd.data.sources import load
from ipd.presets import with_task

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = ("index.md", "own-logs.md")
"""Pages whose blocks are one story, from top to bottom."""
SMALL = {"cpu": "tiny", "demo": "tiny", "default": "tiny"}
MORE = {"judge": ["--steps", "60", "--members", "2", "--horizon", "20"]}
"""Command -> options that make it quick."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The `ipd` commands of a block, as words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.strip().startswith("ipd ")]


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_parsed(page: Path) -> None:
    for language, text in blocks(page):
        if language in ("", "sh", "bash"):
            for words in commands(text):
                parse_only(words)
        if language == "python":
            compile(text, page.name, "exec")


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


@pytest.mark.parametrize("name", GUIDES)
def test_guide_is_true_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Path(__file__).resolve().parents[1] / ".pytest_cache" / "xdg"
    before = jax.config.values["jax_compilation_cache_dir"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_log(tmp_path / "log.csv")
    known: dict[str, Any] = {}
    try:
        for language, text in blocks(ROOT / "docs" / name):
            if language == "python":
                (tmp_path / "block.py").write_text(text)
                known |= runpy.run_path(str(tmp_path / "block.py"), known)
            for words in commands(text) if language in ("", "sh", "bash") else []:
                small = [SMALL.get(word, word) for word in words] + MORE.get(words[0], [])
                assert main(small) == 0, f"ipd {shlex.join(words)}"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert os.listdir(tmp_path)
