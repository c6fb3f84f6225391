"""The wheel: everything that the package reads, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_wheel_holds_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = project["build-system"]["requires"][0].partition(">=")[2]
    try:
        if int(version("setuptools").split(".")[0]) < int(needed):
            pytest.skip(f"setuptools is older than {needed}")
    except PackageNotFoundError:
        pytest.skip("no setuptools here to build a wheel with")
    # a copy, so that nothing left over from an older build gets in; large files by name only
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    files = [path for path in (ROOT / "src").rglob("*") if path.is_file()]
    names = {
        path.relative_to(ROOT / "src").as_posix()
        for path in files
        if path.suffix != ".pyc" and ".egg-info" not in str(path)
    }
    for name in names:
        target = tmp_path / "src" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"" if name.endswith(".hdf5") else (ROOT / "src" / name).read_bytes())
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        about = {name.partition("/")[2] for name in held if ".dist-info/" in name}
        (scripts,) = (archive.read(name).decode() for name in held if name.endswith("entry_points.txt"))
    assert {name for name in held if ".dist-info/" not in name} == names
    assert {"ipd/py.typed", "ipd/report/page.css"} < names
    assert sum(name.startswith("ipd/data/bundled/") for name in names) == 3
    assert "licenses/LICENSE" in about and "ipd = ipd.cli:main" in scripts
