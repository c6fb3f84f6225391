"""Copy what is committed of finished runs: `python results/keep.py RUNS results/table1`.

RUNS is the folder of a sweep. Every finished run becomes ``results/table1/SET/VARIANT`` with its
evaluations.csv (every episode), config.yaml and manifest.json, which is all that `ipd report` reads,
and timing.json: seconds of each stage.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

FILES = ("config.yaml", "manifest.json", "evaluations.csv")


def seconds(run: Path) -> dict[str, int]:
    """Stage -> seconds that it took in this run; stages that were taken over are not in it."""
    found: dict[str, float] = defaultdict(float)
    for line in (run / "timing.jsonl").read_text().splitlines():
        told = json.loads(line)
        found[told["stage"]] += told["seconds"]
    return {stage: round(each) for stage, each in found.items()}


def main(runs: Path, out: Path) -> None:
    """One folder a run; runs that have not ended are left."""
    for run in sorted(path.parent.parent.parent for path in runs.glob("*/*/*/stages/evaluate/done.json")):
        folder = out / run.parent.parent.name / run.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(run / name, folder / name)
        (folder / "timing.json").write_text(json.dumps(seconds(run), indent=1) + "\n")
        print(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
