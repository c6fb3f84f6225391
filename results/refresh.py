"""Write the tables of the committed runs into the documents: `python results/refresh.py`.

The scores of every folder go into results/README.md, the shares of the best logged episode into
docs/baselines.md, each between two marks. A printed score belongs to D4RL's file and ours to a
regenerated set of the same kind, which is smaller and was left earlier; what of both can be compared is
how near a method comes to the best episode of the data that it learned from.
"""

from __future__ import annotations

import re
from pathlib import Path

from table import table as rows_of

from ipd.data.sources import load
from ipd.evaluation.scores import normalized_score
from ipd.evaluation.tasks import task
from ipd.report import compare
from ipd.report.compare import Comparison
from ipd.report.compare_read import Dataset
from ipd.report.compare_tables import DASH, bounds, digits, estimate
from ipd.report.published import lookup
from ipd.report.tables import METHODS

ROOT = Path(__file__).parent.parent
BEST = {"hopper": 3192.93, "halfcheetah": 4985.14, "walker2d": 4132.00}
"""Best return of D4RL's medium-replay-v2 files, as commonly quoted; not looked up again."""
OTHERS = {
    "bc": {"hopper": 29.81, "halfcheetah": 35.66, "walker2d": 21.80},
    "rebrac": {"hopper": 94.98, "halfcheetah": 51.18, "walker2d": 84.25},
    "mobile": {"hopper": 105.1, "halfcheetah": 71.9, "walker2d": 90.5},
}
"""Methods that the paper does not print: CORL's last evaluations, OfflineRL-Kit's for MOBILE."""


TUNED = ("halfcheetah-medium-replay", "hopper-medium-replay")
"""The sets on which settings were chosen."""


def scores(comparison: Comparison, tuned: Comparison) -> str:
    """One line a method: its score on every set with its interval, and what is said over them.

    ``tuned`` are the runs on the sets of `TUNED` alone.
    """
    sets = comparison.datasets
    head = ["", *(each.name.removesuffix("-medium-replay") for each in sets)]
    head += ["IQM of two", "P(IPD better)", "IQM of all", "P(IPD better)"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    overall = [(part, compare.standings(part)) for part in (tuned, comparison)]
    # "" is a method's main runs; it sorts before the names of variants
    rows = {(cell.algo, cell.label) for cell in comparison.cells}
    for algo, label in sorted(rows, key=lambda row: (comparison.found.index(row[0]), row[1])):
        cells = [_cell(comparison, each, algo, label) for each in sets]
        for part, mains in overall:
            found = compare.standings(_as_main(part, algo, label)) if label else mains
            standing = next((each for each in found if each.algo == algo), None)
            cells += [estimate(standing.iqm), estimate(standing.improvement, 2)] if standing else [DASH, DASH]
        lines.append(f"| {compare.name_of(algo, label)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _as_main(comparison: Comparison, algo: str, label: str) -> Comparison:
    """The comparison with a method's variant in the place of its main runs."""
    cells = [cell for cell in comparison.cells if cell.algo != algo or cell.label == label]
    return comparison._replace(cells=[c._replace(label="") if c.algo == algo else c for c in cells])


def _cell(comparison: Comparison, dataset: Dataset, algo: str, label: str) -> str:
    found = [cell for cell in comparison.of(dataset, algo) if cell.label == label]
    if not found:
        return DASH
    score = compare.score(found[0].last)
    return f"{digits(score.mean)} {bounds(score.low, score.high)}"


def shares(comparison: Comparison) -> str:
    """One line a method: its printed score and ours on every set, over that of the best logged episode."""
    columns = {}
    for dataset in comparison.datasets:
        robot, episodes = dataset.name.split("-")[0], load(f"bundled:{dataset.name}")
        living = task(episodes.task or "")
        ours, theirs = (normalized_score(living, best) for best in (episodes.returns.max(), BEST[robot]))
        columns[robot] = {}
        for method in METHODS:
            printed, cell = lookup(dataset.name, method), comparison.main(dataset, method)
            score = printed.score if printed else OTHERS[method][robot]
            own = f"{compare.score(cell.last).mean / ours:.2f}" if cell else "–"
            columns[robot][method] = f"{score / theirs:.2f} | {own}"
    head = "".join(f" {robot}: printed | here |" for robot in columns)
    lines = ["| |" + head, "|---|" + "---|---|" * len(columns)]
    for method, name in METHODS.items():
        lines.append(f"| {name} | " + " | ".join(column[method] for column in columns.values()) + " |")
    return "\n".join(lines)


def put(path: Path, tables: dict[str, str]) -> str:
    """The document with each table between its two marks."""
    document = path.read_text()
    for mark, text in tables.items():
        pattern = rf"(<!-- {mark} -->\n).*?(\n<!-- /{mark} -->)"
        document, count = re.subn(
            pattern, lambda found, text=text: found[1] + text + found[2], document, flags=re.S
        )
        if count != 1:
            raise SystemExit(f"{path}: has {count} places marked {mark}")
    return document


def documents() -> dict[Path, str]:
    """Each document as it should be."""
    table = ROOT / "results" / "table1"
    found = compare.load([table], table)
    tuned = compare.load([table / each for each in TUNED], table)
    readme, baselines = ROOT / "results" / "README.md", ROOT / "docs" / "baselines.md"
    places = {
        "fig2": ("fig2/*/*", "ipd"),
        "fig3": ("fig3/*/*", "ipd"),
        "study": ("hopper-medium-replay/*", ""),
    }
    figures = {
        mark: rows_of(sorted((ROOT / "results").glob(pattern)), policies)
        for mark, (pattern, policies) in places.items()
    }
    hopper = "hopper-medium-replay"
    pairs = [(f"table1/{hopper}/{algo}", f"peers/{hopper}/d3rlpy-{algo}") for algo in ("iql", "cql")]
    peers = rows_of(ROOT / "results" / folder for pair in pairs for folder in pair)
    return {
        readme: put(readme, {"table1": scores(found, tuned)} | figures),
        baselines: put(baselines, {"shares": shares(found), "peers": peers}),
    }


if __name__ == "__main__":
    for document, content in documents().items():
        document.write_text(content)
