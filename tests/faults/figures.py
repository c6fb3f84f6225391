"""`python tests/faults/figures.py REPORT.xml TABLE.csv`: what a run of the tests of faults counted.

REPORT.xml is pytest's own report (``--junitxml``). Counts of one kind are summed; of what ends in "most"
the largest is taken. A test that failed leaves no table.
"""

from __future__ import annotations

import csv
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def table(report: Path) -> dict[str, float]:
    """Figure -> its value, in the order of their names."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    wrong = sum(int(suite.get(kind, 0)) for suite in suites for kind in ("failures", "errors"))
    if wrong:
        raise SystemExit(f"{report}: {wrong} tests failed; no table")
    found: dict[str, float] = {}
    for each in (each for suite in suites for each in suite.iter("property")):
        what, value = each.attrib["name"], float(each.attrib["value"])
        found[what] = (
            max(found.get(what, 0.0), value) if what.endswith("most") else found.get(what, 0.0) + value
        )
    return dict(sorted(found.items()))


def main(report: str, to: str) -> None:
    """Writes the table."""
    with Path(to).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "figure"])
        writer.writerows((what, f"{value:.4g}") for what, value in table(Path(report)).items())


if __name__ == "__main__":
    main(*sys.argv[1:])
