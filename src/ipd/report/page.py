"""``report.html``: one self-contained page of a run."""

from __future__ import annotations

import html
from pathlib import Path

from ipd.report import read, tables


def write(run: Path) -> Path:
    """Writes RUN/report.html from the files of RUN and returns its path. Raises ReportError."""
    rows = tables.final_table(read.load(run))
    page = run / "report.html"
    page.write_text(f"<pre>{html.escape(tables.format_table(rows))}</pre>", encoding="utf-8")
    return page
