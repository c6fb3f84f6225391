"""``report.html``: one self-contained page of a run, readable without a network and without scripts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from ipd.report import headline, read, sections, tables
from ipd.report.parts import Section


def write(run: Path) -> Path:
    """Writes RUN/report.html from the files of RUN and returns its path.

    Equal runs give equal bytes wherever they lie. Parts that the run has not made yet are named
    with the command that makes them. Raises ReportError for a directory that is no run, or whose
    files are damaged.
    """
    return put(run / "report.html", render(read.load(run)))


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


def document(title: str, header: str, parts: Sequence[Section]) -> str:
    """A self-contained page: `title` is text, `header` the HTML of the first screen."""
    style = resources.files("ipd.report").joinpath("page.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{part.anchor}">{escape(part.title)}</a>' for part in parts)
    body = "".join(
        f'<section id="{part.anchor}"><h2>{escape(part.title)}</h2><p class="lead">{escape(part.lead)}</p>'
        f"{part.body}</section>"
        for part in parts
    )
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f'{header}\n<nav aria-label="Sections">{links}</nav>\n{body}\n'
        "</main>\n</body>\n</html>\n"
    )
    return text.replace("95 %", "95\u00a0%")
