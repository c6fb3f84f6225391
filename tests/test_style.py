"""What the code promises about itself, read from its syntax trees and from the tracked files."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safety_rules import OLD, PICKLES, imports

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PYTHON = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]

# The package itself keeps stricter rules: test_safety.py.
FORBIDDEN_MODULES = PICKLES | OLD
FORBIDDEN_CALLS = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system"}
UNFINISHED = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"]
# Split so that this file does not find itself.
MACHINE_PATHS = [*("/" + name + "/" for name in ("work", "root", "home", "farm", "Users")), "/opt" + "/pypi"]
REGISTRY_HOSTS = [
    "pypi" + ".org",
    "python" + "hosted",
    "conda" + ".anaconda",
    "index" + "-url",
    "proxy" + ".golang",
]
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".yml",
    ".yaml",
    ".json",
    ".jsonl",
    ".csv",
    ".html",
    ".css",
    ".cfg",
    "",
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def tracked_files() -> list[Path]:
    """Files of the project: git's list, or everything but caches where git is not at hand."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        hidden = {".venv", ".git", "__pycache__"}
        return [path for path in ROOT.rglob("*") if path.is_file() and not hidden & set(path.parts)]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_short_finished_and_safe(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 350, "longer than 350 lines"
    assert not [word for word in UNFINISHED if word in text], "unfinished"
    module = tree(path)
    imported = {name.split(".")[0] for name, _ in imports(module)}
    assert not imported & FORBIDDEN_MODULES
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS, f"line {node.lineno}"
            allowed = [keyword.value for keyword in node.keywords if keyword.arg == "allow_" + "pickle"]
            assert all(isinstance(value, ast.Constant) and value.value is False for value in allowed)


def public_functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Module-level functions and methods of public classes whose name has no leading underscore."""
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            methods = (child for child in node.body if isinstance(child, ast.FunctionDef))
            yield from (method for method in methods if not method.name.startswith("_"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_say_what_they_do(path: Path) -> None:
    silent = [function.name for function in public_functions(path) if not ast.get_docstring(function)]
    assert not silent, f"no docstring: {silent}"
    assert ast.get_docstring(tree(path)) or not path.read_text().strip(), "the module has no docstring"


def test_tracked_files_name_no_machine_and_no_registry() -> None:
    words = re.compile("|".join(map(re.escape, MACHINE_PATHS + REGISTRY_HOSTS)))
    found = []
    for path in tracked_files():
        if path.suffix in TEXT:
            lines = enumerate(path.read_text(errors="replace").splitlines(), 1)
            found += [f"{path.relative_to(ROOT)}:{number}" for number, line in lines if words.search(line)]
    assert not found


def test_constraints_are_plain_pins() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", pin) for pin in pins)
