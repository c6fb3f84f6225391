"""Files from elsewhere are read as data: no code in them is run, no shell is started, nothing is fetched."""

from __future__ import annotations

import ast
import re
import shutil
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest
from network import offline
from safety_rules import unsafe

from ipd.cli import main

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

PLANTED = {
    "pickle": "import pickle",
    "pickle of the package": "from pickle import loads",
    "pickle in a function": "def read(path):\n    import cloudpickle as fast",
    "pickle by name": "from importlib import import_module as get\nget('pickle')",
    "dill": "import dill",
    "joblib": "from joblib import load",
    "marshal": "import marshal",
    "shelve": "import shelve",
    "torch": "import torch.nn as nn",
    "gym": "import gym",
    "pandas": "frame.to_pickle(path)",
    "eval": "eval(text)",
    "eval by another name": "run = eval",
    "exec": "exec(text)",
    "compile": "compile(text, 'x', 'exec')",
    "builtins": "import builtins\nbuiltins.exec(text)",
    "__import__": "__import__(name)",
    "import of what nobody sees": "import importlib\nimportlib.import_module(**what)",
    "yaml": "import yaml\nyaml.load(text, Loader=yaml.FullLoader)",
    "yaml by another name": "import yaml as y\ny.unsafe_load(text)",
    "yaml's function": "from yaml import load_all",
    "system": "import os\nos.system('ls')",
    "system's function": "from os import system as go\ngo('ls')",
    "popen": "import os\nos.popen('ls')",
    "exec of a program": "import os\nos.execvp('sh', words)",
    "getoutput": "import subprocess\nsubprocess.getoutput('ls')",
    "shell": "import subprocess\nsubprocess.run(['ls'], shell=True)",
    "shell by a variable": "import subprocess\nsubprocess.run(['ls'], shell=loud)",
    "string": "import subprocess\nsubprocess.Popen(f'ls {path}')",
    "something": "from subprocess import check_output\ncheck_output(command)",
    "options": "import subprocess\nsubprocess.run(['ls'], **options)",
    "async shell": "import asyncio\nasyncio.create_subprocess_shell('ls')",
    "allow_pickle": "import numpy as np\nnp.load(path, allow_pickle=True)",
    "allow_pickle by place": "import numpy as np\nnp.load(path, None, True)",
    "allow_pickle by a variable": "reader(path, allow_pickle=trusted)",
    "executables": "from jax.experimental import serialize_executable",
    "mktemp": "import tempfile\ntempfile.mktemp()",
    "archive": "archive.extractall(folder)",
    "urllib": "from urllib.request import urlopen",
    "http": "import http.client",
    "requests": "import requests",
    "socket": "import socket\nsocket.create_connection(place)",
    "socket's function": "from socket import create_connection",
}
HARMLESS = [
    "import re\nre.compile('a')\njax.jit(f).lower().compile()\nmodel.eval()",
    "import yaml\nyaml.safe_load(text)",
    "import subprocess, sys\nsubprocess.run([sys.executable, *words], text=True)",
    "import numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)",
    "import socket\nsocket.socketpair()",
    "from importlib import import_module\nimport_module('ray')",
    "from .pickle import nothing",
]


@pytest.mark.parametrize("code", PLANTED.values(), ids=PLANTED.keys())
def test_each_rule_finds_what_it_forbids(code: str) -> None:
    assert unsafe(ast.parse(code))


@pytest.mark.parametrize("code", HARMLESS)
def test_what_is_harmless_is_not_found(code: str) -> None:
    assert not unsafe(ast.parse(code))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_does_nothing_unsafe(path: Path) -> None:
    assert not unsafe(ast.parse(path.read_text()))


def test_no_command_on_data_connects_anywhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Training does not either: the run that tests/faults compare with is made offline."""
    with offline():
        assert main(["data", "check", "bundled:hopper-medium-replay"]) == 0
        assert main(["data", "check", "minari:mujoco/hopper/nowhere-v0"]) == 2
        assert main(["data", "check", "https://127.0.0.1/hopper.hdf5"]) == 2
        with pytest.raises(AssertionError, match=r"127\.0\.0\.1"):
            socket.create_connection(("127.0.0.1", 9))
    with pytest.raises(OSError):  # refused by the machine: nobody listens there
        socket.create_connection(("127.0.0.1", 9))
    assert "`minari download mujoco/hopper/nowhere-v0`" in capsys.readouterr().err


def names_of(requirements: list[str]) -> set[str]:
    """Names alone, without versions; the project's own extras are no dependency."""
    found = {re.split(r"[\[<>=!~; ]", requirement)[0] for requirement in requirements}
    return found - {"ipd"}


def test_the_page_of_dependencies_names_what_the_project_asks_for() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    told = {}
    for section in sections:
        rows = re.findall(r"^\| ([\w-]+) \| (.+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
        if rows[1:]:
            told[section.splitlines()[0].strip("`")] = {row[0] for row in rows[1:]}
            assert all(cell.strip() for row in rows for cell in row)
    extras = {f"ipd[{name}]": names_of(needs) for name, needs in PROJECT["optional-dependencies"].items()}
    assert told == {"ipd": names_of(PROJECT["dependencies"])} | extras


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("echo 'No known vulnerabilities found' >&2", 0, "no known vulnerability"),
        ("echo 'jax 0.1 CVE-1'; echo 'Found 1 known vulnerability' >&2; exit 1", 2, "Found 1 known"),
        ("echo 'Traceback' >&2; echo 'Name or service not known' >&2; exit 1", 2, "audit: not made"),
    ],
    ids=["clean", "found", "unreachable"],
)
def test_an_audit_that_was_not_made_is_not_passed(script: str, code: int, said: str, tmp_path: Path) -> None:
    """With a stand-in for pip-audit: the tests ask no one."""
    for name in ("Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    tool = tmp_path / ".venv-audit" / "bin" / "pip-audit"
    tool.parent.mkdir(parents=True)
    (tmp_path / ".venv-audit" / "audit.stamp").touch()
    tool.write_text(f"#!/bin/sh\ntest -f ../constraints.txt || exit 9\n{script}\n")
    tool.chmod(0o755)
    done = subprocess.run(["make", "audit"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr
    dry = subprocess.run(["make", "-n", "test"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert "pip-audit" not in dry
