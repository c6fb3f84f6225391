"""Copy what is committed of finished runs: `python results/keep.py RUNS results/table1`.

RUNS is the folder of a sweep. Every finished run becomes ``results/table1/SET/VARIANT``, or, where a
variant has more than one group of seeds, ``.../VARIANT/seeds-0-2``, with its evaluations.csv (every
episode), config.yaml and manifest.json, which is all that `ipd report` reads, and timing.json: seconds
of each stage. A run that the sweep calls failed is left, whatever an earlier one of it says.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

FILES = ("config.yaml", "manifest.json", "evaluations.csv")


def seconds(run: Path) -> dict[str, int]:
    """Stage -> seconds that it took in this run; stages that were taken over are not in it."""
    found: dict[str, float] = defaultdict(float)
    for line in (run / "timing.jsonl").read_text().splitlines():
        told = json.loads(line)
        found[told["stage"]] += told["seconds"]
    return {stage: round(each) for stage, each in found.items()}


def failed(run: Path) -> bool:
    """Whether the sweep wrote so beside the run."""
    told = run.parent / f"{run.name}.json"
    return told.exists() and json.loads(told.read_text())["state"] == "failed"


def main(runs: Path, out: Path) -> None:
    """One folder a run; runs that have not ended are left. Exits with 2 where there is none."""
    ended = sorted(path.parent.parent.parent for path in runs.glob("*/*/*/stages/evaluate/done.json"))
    ended = [run for run in ended if not failed(run)]
    if not ended:
        print(f"{runs}: no finished run (SET/VARIANT/seeds-0-2)", file=sys.stderr)
        raise SystemExit(2)
    groups = Counter(run.parent for run in ended)
    for run in ended:
        folder = out / run.parent.parent.name / run.parent.name
        folder = folder / run.name if groups[run.parent] > 1 else folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(run / name, folder / name)
        (folder / "timing.json").write_text(json.dumps(seconds(run), indent=1) + "\n")
        print(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
