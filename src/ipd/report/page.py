"""``report.html``: one self-contained page of a run, readable without a network and without scripts."""

from __future__ import annotations

import os
from pathlib import Path

from ipd.report import headline, read, sections, tables
from ipd.report.parts import document


def write(run: Path) -> Path:
    """Writes RUN/report.html from the files of RUN and returns its path.

    Equal runs give equal bytes wherever they lie. Parts that the run has not made yet are named
    with the command that makes them. Raises ReportError for a directory that is no run, or whose
    files are damaged.
    """
    with read.understood(run):
        text = render(read.load(run))
    return put(run / "report.html", text)


def put(path: Path, text: str) -> Path:
    """Writes a file that is at every instant the old one or the new one; returns its path."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path


def render(run: read.Run) -> str:
    """The page as HTML."""
    rows = tables.final_table(run)
    parts = sections.all_sections(run, rows)
    return document(headline.verdict(rows, run.algo), headline.first_screen(run, rows), parts)
