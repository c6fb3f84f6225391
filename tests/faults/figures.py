"""`python tests/faults/figures.py REPORT.xml TABLE.csv`: what a run of the tests of faults counted.

REPORT.xml is pytest's own report (``--junitxml``). Figures of one name are summed; of what ends in "most"
the largest is taken. Where a test failed there is no table.
"""

from __future__ import annotations

import csv
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def table(report: Path) -> dict[str, float]:
    """Figure -> its value: passed tests of each file first, then by name."""
    passed: dict[str, float] = {}
    found: dict[str, float] = {}
    for test in ElementTree.parse(report).getroot().iter("testcase"):
        if test.find("failure") is not None or test.find("error") is not None:
            raise SystemExit(f"{report}: {test.get('name')} failed; no table")
        if test.find("skipped") is None:
            file = f"tests passed, {test.attrib['classname'].replace('.', '/')}.py"
            passed[file] = passed.get(file, 0.0) + 1
        for each in test.iter("property"):
            what, value = each.attrib["name"], float(each.attrib["value"])
            before = found.get(what, 0.0)
            found[what] = max(before, value) if what.endswith(", most") else before + value
    return dict(sorted(passed.items()) + sorted(found.items()))


def main(report: str, to: str) -> None:
    """Writes the table."""
    with Path(to).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "figure"])
        writer.writerows((what, f"{value:.4g}") for what, value in table(Path(report)).items())


if __name__ == "__main__":
    main(*sys.argv[1:])
