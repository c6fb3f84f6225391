"""CSV files as a table: a header, then a row a step; separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipd.data.columnmap import ColumnMap, map_for
from ipd.data.columns import Storage, column
from ipd.data.episodes import DataError, Episodes
from ipd.data.tables import DoubleArray, Table, found_in

BLOCK = 2**13
"""Rows that are read as text at once."""
WORDS = {"": np.nan, "true": 1.0, "false": 0.0, "null": np.nan, "none": np.nan, "na": np.nan}
DECIMAL_COMMA = re.compile(r"\s*[+-]?[\d.]*,\d+(e[+-]?\d+)?\s*", re.IGNORECASE)


def read_csv(
    path: Path, source: str, task: str | None, storage: Storage | None, columns: str | None
) -> Episodes:
    """One file; a map of its columns is given, beside it or inferred. Rows count from 0 below the header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = _lines(file)
        present = next(lines, [])
        rows = 0
        for rows, fields in enumerate(lines, 1):
            if len(fields) != len(present):
                message = f"has {len(fields)} fields, the header has {len(present)}"
                raise DataError(message, file=source, row=rows - 1, cure="mend the row, or quote its text")
        if not present:
            raise DataError("is empty", file=source, cure="give a file with a header and a row a step")
        chosen, names = map_for(path, columns, present, source)
        file.seek(0)
        table = _filled(_lines(file), present, chosen, rows, storage and storage.of(rows), source)
    return Episodes.from_found(found_in(table, chosen, names, source, task), storage)


def _lines(file: Any) -> Iterator[list[str]]:
    header = file.readline()
    separator = max(",;\t", key=header.count)
    file.seek(0)
    for fields in csv.reader(file, delimiter=separator):
        if fields:
            yield [field.strip() for field in fields]


def _filled(
    lines: Iterator[list[str]],
    present: Sequence[str],
    chosen: ColumnMap,
    rows: int,
    disk: Path | None,
    source: str,
) -> Table:
    """The columns in use as numbers; an episode's label becomes its number in order of appearance."""
    used = chosen.used()
    places = {name: number for number, name in enumerate(used)}
    columns = {name: number for number, name in enumerate(present)}
    values = column((rows, len(used)), np.float64, disk)
    known: dict[str, int] = {}
    next(lines)
    for start in range(0, rows, BLOCK):
        block = list(islice(lines, BLOCK))
        for name, place in places.items():
            at = columns[name]
            text = [fields[at] for fields in block]
            if name == chosen.episode:
                values[start : start + len(text), place] = [
                    np.nan if label == "" else known.setdefault(label, len(known)) for label in text
                ]
            else:
                dates = name == chosen.time
                values[start : start + len(text), place] = _floats(text, name, start, dates, source)

    def numbers(names: Sequence[str], piece: slice) -> DoubleArray:
        return values[piece][:, [places[name] for name in names]]

    def labels(name: str, piece: slice) -> npt.NDArray[Any]:
        numbers = np.nan_to_num(values[piece, places[name]], nan=-1).astype(np.int64)
        return np.array([*known, ""], object)[numbers]

    return Table(present, rows, {}, numbers, labels)


def _floats(text: list[str], name: str, start: int, dates: bool, source: str) -> DoubleArray:
    try:
        return np.array(text).astype(np.float64)
    except ValueError:
        pass
    found = np.empty(len(text))
    for number, word in enumerate(text):
        try:
            found[number] = WORDS[word.lower()] if word.lower() in WORDS else float(word)
        except ValueError:
            try:
                if not dates:
                    raise
                moment = datetime.fromisoformat(word)
                # Local time would jump with the zone's summer time, and differ from machine to machine.
                found[number] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            except ValueError as error:
                cure = "store numbers" + (" or ISO dates" if dates else ", or name another column")
                if DECIMAL_COMMA.fullmatch(word):
                    cure = "write numbers with a point, not with a decimal comma"
                raise DataError(
                    f"is '{word}', no number", file=source, key=name, row=start + number, cure=cure
                ) from error
    return found
