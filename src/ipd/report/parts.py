"""What pages are put together from: sections, tables, figures side by side, notes on what is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple


class Section(NamedTuple):
    anchor: str
    title: str
    lead: str
    """One or two sentences, plain text."""
    body: str
    """HTML."""


def missing(what: str, command: str) -> str:
    """The note that stands where a part of the run is not made yet."""
    return f'<p class="missing"><b>Not yet:</b> {escape(what)}. <code>{escape(command)}</code> makes it.</p>'


def grid(*parts: str) -> str:
    """Figures side by side where there is room; "" without any."""
    shown = [part for part in parts if part]
    columns = "two" if len(shown) in (2, 4) else "three"
    return f'<div class="grid {columns}">{"".join(shown)}</div>' if shown else ""


def html_table(
    caption: str,
    header: Sequence[str],
    lines: Iterable[Sequence[str]],
    words: int = 1,
    heads: Sequence[int] = (),
    bold: Mapping[int, int] = MappingProxyType({}),
) -> str:
    """A table in a box that scrolls by itself; the first `words` columns are text, the rest numbers.

    Each line of `heads` begins a block: it stands out, the others step back. `bold` names a column to
    set in bold for some lines.
    """

    def row(cells: Sequence[str], tag: str, style: str = "", best: int | None = None) -> str:
        styles = [' class="word"' if index < words else "" for index in range(len(cells))]
        if best is not None:
            styles[best] = ' class="best"'
        return (
            f"<tr{style}>"
            + "".join(f"<{tag}{s}>{escape(c)}</{tag}>" for s, c in zip(styles, cells, strict=True))
            + "</tr>"
        )

    kinds = (' class="head"', ' class="more"') if heads else ("", "")
    body = "".join(
        row(line, "td", kinds[index not in heads], bold.get(index)) for index, line in enumerate(lines)
    )
    name = f'aria-label="{escape(caption)}"'
    table = f"<table {name}><thead>{row(header, 'th')}</thead><tbody>{body}</tbody></table>"
    box = f'<div class="scroll" tabindex="0" role="region" {name}>{table}</div>'
    return f'<div class="table"><p class="caption">{escape(caption)}</p>{box}</div>'


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
