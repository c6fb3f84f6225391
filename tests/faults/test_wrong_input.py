"""Spoiled inputs of every kind, through every reader: accepted, or refused in one line; never anything else.

`make test` reads some hundred of them, `make faults` (IPD_FAULTS=long) thousands. A case is told by its
target and seed, so that it can be made again: `python -m faults.fuzz.worker SPECIMENS SCRATCH` in `tests`,
with `{"target": ..., "seed": ...}` on its input.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ipd
from ipd.data.episodes import DataError
from ipd.export.runner import Runner
from ipd.runs import augmented, opened
from ipd.runs.errors import InputError

from .conftest import Figure, alone
from .fuzz import specimens as made
from .fuzz.cases import BOMBS, SLOW, TARGETS
from .fuzz.driver import results
from .test_kills import LONG

GROUPS = {
    "tables": ("csv", "csv map", "parquet", "lerobot 2", "lerobot 3", "names", "arrays"),
    "arrays": ("hdf5", "npz", "minari", "sweep (data)"),
    "exports": tuple(name for name in TARGETS if name.startswith("runner")),
    "pages": ("report", "report (many)", "log", "sweep"),
    "loaded": ("load", "load_world", "load_values"),
    "commands": ("train", "evaluate", "audit", "judge", "view", "export"),
}
FOUND = [("arrays", 62), ("sweep (data)", 24), ("log", 67), ("runner (onnx)", 84)]
"""Target and seed of cases that once were faults, where no other test holds the mend."""
LIGHT = [name for name in TARGETS if name not in SLOW]
"""Of the short form, in one process."""
assert sorted(itertools.chain(*GROUPS.values())) == sorted(TARGETS)


@pytest.fixture(scope="session")
def specimens(shared: Path, finished: Path, small: Path) -> Path:
    folder = shared / "specimens"
    with alone(shared):
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            made.make(folder, finished, small)
            (folder / "made").touch()
    return folder


def cases(group: str) -> list[dict[str, Any]]:
    """In the long form every weight counts ten times, and what would unpack to gigabytes is there too."""
    names = GROUPS.get(group, LIGHT)
    found = [{"target": name, "seed": seed} for name in names
             for seed in range(TARGETS[name].weight * 10 if LONG else TARGETS[name].weight // 3)]  # fmt: skip
    found += [{"target": name, "seed": seed} for name, seed in FOUND if name in names]
    for name in names if LONG else ():
        bombs = BOMBS.get(Path(TARGETS[name].specimen).suffix, {}) if not TARGETS[name].only else {}
        found += [{"target": name, "seed": seed, "mutation": bomb} for bomb in bombs for seed in range(3)]
    return found


@pytest.mark.parametrize("group", GROUPS if LONG else ["light"])
def test_wrong_input_is_read_or_refused_in_one_line(
    group: str, specimens: Path, tmp_path: Path, figure: Figure
) -> None:
    ends = list(results(cases(group), specimens, tmp_path / "scratch"))
    counts = Counter((end["target"], end["mutation"], end["end"]) for end in ends if "mutation" in end)
    for (target, mutation, kind), count in sorted(counts.items()):
        print(f"{target},{mutation},{kind},{count}")
    slowest, largest = (max(ends, key=lambda end: end.get(key, 0)) for key in ("seconds", "peak"))
    print(f"slowest {slowest}\nlargest {largest}")
    figure(f"spoiled inputs, {group}", len(ends))
    for kind in ("refused", "accepted"):
        figure(f"spoiled inputs {kind}", sum(end["end"] == kind for end in ends))
    figure("seconds for a spoiled input beyond a whole one's, most", slowest["seconds"] - slowest["usual"])
    figure("GiB for a spoiled input, most", largest["peak"] / 2**30)
    faults = [end for end in ends if end["end"] not in ("accepted", "refused")]
    assert not faults, "\n".join(json.dumps(end) for end in faults[:20])
    kinds = Counter(end["end"] for end in ends)
    assert min(kinds["accepted"], kinds["refused"]) >= len(ends) // 50, kinds  # else nothing was tested


def _policy(folder: Path) -> Any:
    return ipd.load(folder)


def _imagined(folder: Path) -> Any:
    return augmented.read_steps(opened.open_run(folder, task=False), 0)


SEALED: list[tuple[str, str, Callable[[Path], Any]]] = [
    ("run", "stages/value/step-300.safetensors", ipd.load_values),
    ("run", "stages/value/step-300.json", ipd.load_values),
    ("run", "stages/world/step-*.safetensors", ipd.load_world),
    ("run", "stages/world/step-*.json", ipd.load_world),
    ("run", "stages/policy/step-300.safetensors", _policy),
    ("run", "stages/policy/summary.json", _policy),
    ("run", "augmented.hdf5", _imagined),
    *((f"export-{kind}", name, Runner) for kind in made.FORMATS
      for name in (f"policy.{kind}", "contract.json", "runner.py")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("specimen", "name", "load"), SEALED, ids=lambda value: str(getattr(value, "__name__", value))
)
def test_a_flipped_bit_is_noticed_when_it_is_loaded(
    specimen: str, name: str, load: Callable[[Path], Any], specimens: Path, tmp_path: Path, figure: Figure
) -> None:
    folder = Path(shutil.copytree(specimens / specimen, tmp_path / specimen))
    (path,), draw = folder.glob(name), random.Random(0)
    whole = path.read_bytes()
    for _ in range(200 if LONG else 5):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        with pytest.raises((InputError, DataError, ValueError)) as caught:
            load(folder)
        assert path.stem in str(caught.value) or path.parent.name in str(caught.value)
    path.write_bytes(whole)
    load(folder)
    figure("flipped bits noticed by a digest", 200 if LONG else 5)


@pytest.mark.parametrize("name", ["timing.jsonl", "evaluations.csv", "stages/policy", "lock"])
def test_a_run_that_leads_outside_is_refused(name: str, specimens: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(specimens / "run", tmp_path / "run"))
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"leads out of the run; copy"):
        ipd.load(folder)


def test_runs_of_older_versions_have_no_digests(specimens: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(specimens / "run", tmp_path / "run"))
    for done in folder.glob("stages/*/done.json"):
        told = json.loads(done.read_text())
        assert "summary.json" in told.pop("sha256")
        done.write_text(json.dumps(told))
    assert len(_imagined(folder).source) > 0
    assert np.isfinite(ipd.load_values(folder).v(np.zeros((1, 11), np.float32))).all()
