"""`python tests/faults/figures.py REPORT.xml TABLE.csv PAGE.md`: what a run of the tests of faults counted.

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


def main(report: str, to: str, page: str) -> None:
    """Writes the table, and the one that ends the page."""
    rows = [("what", "figure")]
    for what, value in table(Path(report)).items():
        rows.append((what, f"{value:.0f}" if value % 1 == 0 else f"{value:.2g}"))
    with Path(to).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    lines = [f"| {what} | {value} |" for what, value in rows]
    before, mark, _ = Path(page).read_text().partition("\n| what | figure |\n")
    assert mark, f"{page} has no table of figures at its end"
    Path(page).write_text("\n".join([before, lines[0], "|---|---|", *lines[1:]]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
