"""What can be wrong with any file, and with text: `name -> change(random, path, outside)`.

`path` is the file to spoil; `outside` a folder that nothing may write to.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Change = Callable[[random.Random, Path, Path], None]
SCRIPT = "<script>ipdfuzz()</script>"
HOSTILE = [
    "",
    " ",
    "..",
    "../../../outside/x",
    "/outside/x",
    "a\nb",
    "a\x1b[2Jb",
    "a\x00b",
    "\u202etxt",
    SCRIPT,
    "{0.__class__}",
    "%s%n",
    "__import__('os').system('id')",
    "é" * 300,
    "x" * 100_000,
    "step-x",
    "=1+1",
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.0, -0.0, 1e308, 1e-308, 1.5),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        [],
        {},
        [[]],
        [None],
        [1, [2]],
        {"a": {}},
        [1e30] * 3,
        ["a"],
    ),
    *HOSTILE,
]


def _bytes(change: Callable[[random.Random, bytearray], Any]) -> Change:
    def spoil(draw: random.Random, path: Path, outside: Path) -> None:
        content = bytearray(path.read_bytes())
        changed = change(draw, content)
        path.write_bytes(content if changed is None else changed)

    return spoil


def _flip(draw: random.Random, content: bytearray, bits: int = 1) -> None:
    for _ in range(bits if content else 0):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _overwrite(draw: random.Random, content: bytearray) -> None:
    at, size = draw.randrange(len(content) + 1), draw.choice([1, 2, 4, 8, 64])
    content[at : at + size] = draw.choice([b"\x00", b"\xff", b"\x7f", b"\x80", b"9", b'"', b"\n"]) * size


def _insert(draw: random.Random, content: bytearray) -> None:
    at = draw.randrange(len(content) + 1)
    content[at:at] = draw.randbytes(draw.choice([1, 3, 512]))


def _swap(draw: random.Random, content: bytearray) -> bytearray:
    one, two = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return content[two:] + content[one:two] + content[:one]


def _link(target: Callable[[random.Random, Path, Path], str | Path]) -> Change:
    def spoil(draw: random.Random, path: Path, outside: Path) -> None:
        where = target(draw, path, outside)
        path.unlink()
        path.symlink_to(where)

    return spoil


def _moved(draw: random.Random, path: Path, outside: Path) -> Path:
    return Path(shutil.copyfile(path, outside / "moved"))


def _fifo(draw: random.Random, path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(draw: random.Random, path: Path, outside: Path) -> None:
    path.unlink()
    path.mkdir()


FILE: dict[str, Change] = {
    "bit flipped": _bytes(_flip),
    "bits flipped": _bytes(lambda draw, content: _flip(draw, content, draw.choice([2, 16, 256]))),
    "bytes overwritten": _bytes(_overwrite),
    "bytes inserted": _bytes(_insert),
    "blocks swapped": _bytes(_swap),
    "truncated": _bytes(lambda draw, content: content[: draw.randrange(len(content) + 1)]),
    "emptied": _bytes(lambda draw, content: bytearray()),
    "garbage": _bytes(lambda draw, content: bytearray(draw.randbytes(draw.choice([1, 100, 10_000])))),
    "zeros": _bytes(lambda draw, content: bytearray(len(content))),
    "removed": lambda draw, path, outside: path.unlink(),
    "a folder": _folder,
    "a pipe": _fifo,
    "link to nothing": _link(lambda draw, path, outside: outside / "absent"),
    "link to itself": _link(lambda draw, path, outside: path.name),
    "link to /dev/zero": _link(lambda *_: "/dev/zero"),
    "link outside": _link(_moved),
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*path, key))


def _change_tree(draw: random.Random, value: Any) -> Any:
    """One place of a nested value dropped, replaced, doubled or renamed; shallow places as often as deep."""
    places = list(_places(value))
    depth = draw.choice(sorted({len(place) for place in places}))
    place = draw.choice([each for each in places if len(each) == depth])
    if not place:
        return draw.choice(VALUES)
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    key, how = place[-1], draw.choice(["drop", "replace", "replace", "replace", "double", "rename"])
    if how == "drop":
        del holder[key]
    elif how == "replace":
        holder[key] = draw.choice(VALUES)
    elif how == "double" and isinstance(holder, list):
        holder.append(holder[key])
    elif isinstance(holder, dict):
        holder[draw.choice(HOSTILE)] = holder[key] if how == "double" else holder.pop(key)
    return value


def _tree(draw: random.Random, path: Path, outside: Path) -> None:
    import yaml

    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        at = draw.randrange(len(lines))
        lines[at] = json.dumps(_change_tree(draw, json.loads(lines[at])))
        path.write_text("\n".join(lines) + "\n")
        return
    values = yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else json.loads(path.read_text())
    for _ in range(draw.choice([1, 1, 1, 3])):
        values = _change_tree(draw, values)
    path.write_text(json.dumps(values) if path.suffix == ".json" else yaml.safe_dump(values))


def _text(make: Callable[[random.Random], str | bytes]) -> Change:
    def spoil(draw: random.Random, path: Path, outside: Path) -> None:
        made = make(draw)
        path.write_bytes(made if isinstance(made, bytes) else made.encode("utf-8", "surrogatepass"))

    return spoil


def _laughs(draw: random.Random) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    return "\n".join([*lines, "data: *a9", "seeds: *a9", "algo: *a9", "observations: *a9"])


TREE: dict[str, Change] = {
    "value changed": _tree,
    "values changed": _tree,
    "nested deeply": _text(lambda draw: draw.choice(['{"a":', "["]) * draw.choice([900, 5_000, 100_000])),
    "number of many digits": _text(lambda draw: '{"format": ' + "9" * 10_000 + "}"),
    "another encoding": _text(
        lambda draw: draw.choice(['{"é": 1}'.encode("latin-1"), '{"a": 1}'.encode("utf-16")])
    ),
}
YAML: dict[str, Change] = TREE | {
    "billion laughs": _text(_laughs),
    "python tag": _text(lambda draw: "data: !!python/object/apply:os.system ['touch outside']\n"),
    "circle": _text(lambda draw: "data: &a [*a]\nseeds: &b {x: *b}\nalgo: *a\n"),
    "odd key": _text(lambda draw: "? [a, b]\n: 1\n1: 2\nnull: 3\ndata: x\nseeds: [0]\n"),
}


def _csv(change: Callable[[random.Random, list[str]], list[str] | None]) -> Change:
    def spoil(draw: random.Random, path: Path, outside: Path) -> None:
        lines = path.read_text().splitlines()
        path.write_text("\n".join(change(draw, lines) or lines) + "\n")

    return spoil


def _field(draw: random.Random, lines: list[str]) -> None:
    words = [
        "",
        "nan",
        "inf",
        "1e999",
        "-",
        "1_0",
        "٣",
        '"',
        "0x10",
        "2020-13-99",
        "9" * 5_000,
        "\x00",
        *HOSTILE,
    ]
    at = draw.randrange(len(lines))
    fields = lines[at].split(",")
    fields[draw.randrange(len(fields))] = draw.choice(words)
    lines[at] = ",".join(fields)


def _row(draw: random.Random, lines: list[str]) -> None:
    at = draw.randrange(len(lines))
    lines[at] = draw.choice([lines[0], lines[-1], "", ",", lines[at] + ",1", lines[at].partition(",")[0]])


def _many_columns(draw: random.Random, lines: list[str]) -> list[str]:
    count = draw.choice([5_000, 100_000])
    return [
        ",".join([lines[0], *(f"obs_x{i}" for i in range(count))]),
        *(line + ",0" * count for line in lines[1:3]),
    ]


CSV: dict[str, Change] = {
    "field changed": _csv(_field),
    "row changed": _csv(_row),
    "giant field": _csv(lambda draw, lines: [*lines, '"' + "x" * 10_000_000]),
    "open quote": _csv(lambda draw, lines: [lines[0], '"' + lines[1], *lines[2:]]),
    "many columns": _csv(_many_columns),
    "no row": _csv(lambda draw, lines: lines[:1]),
    "columns dropped": _csv(
        lambda draw, lines: [line.split(",", draw.randrange(1, 4))[-1] for line in lines]
    ),
}
