"""Options for docs/commands.md and docs/settings.md: `python tests/option_tables.py` writes them anew."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from ipd.cli import COMMANDS
from ipd.config import Algo, Config, sections
from ipd.presets import preset

DOCS = Path(__file__).resolve().parents[1] / "docs"
PLACEHOLDERS = {str: "TEXT", Path: "PATH", int: "N", float: "X", bool: ""}
PRESETS = ("paper", "default", "cpu")
ABOUT = """# Settings

Every setting of `ipd train`, by the stage that reads it, and what three presets make of it; a task may adjust
it further (`ipd train --preset NAME --env ID --help` shows the outcome). `--value.steps 1000` sets one; all
stand in the run's `config.yaml`. From Python they are the fields of `ipd.config.Config`.
"""


def command_class(name: str) -> type:
    """The dataclass of a command's options."""
    module = import_module(f"ipd.cli.{'inspect' if name == 'data' else name}")
    return next(
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
    )


@cache
def told(kind: type) -> dict[str, str]:
    """What the docstrings below a dataclass's fields say, inherited ones included."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        body: list[Any] = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        for field, text in zip(body, [*body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return found


def placeholder(kind: Any) -> str:
    """What stands for a value of this type."""
    if get_origin(kind) is Annotated:
        return placeholder(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return placeholder(next(part for part in get_args(kind) if part is not NoneType))
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        return f"{placeholder(get_args(kind)[0])} ..."
    return PLACEHOLDERS[kind]


def shown(value: Any) -> str:
    """A default as it is typed."""
    if value is dataclasses.MISSING:
        return "required"
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(shown, value))
    if isinstance(value, float) and not value.is_integer() and value != 0:
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def is_settings(kind: Any) -> bool:
    """Whether a field is a group of options."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def option_rows(kind: type, prefix: str = "") -> list[tuple[str, str, str]]:
    """Option, default and meaning of each field; groups are spelled out, but for those of `ipd train`."""
    rows, hints = [], get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if plain is Config:
            start = "Where the settings start from, such as cpu or cpu+greedy."
            rows.append(("`--preset TEXT`", "default", start))
            rows.append((f"`--algo {placeholder(Algo)}`", "ipd", "What learns."))
            rows.append(("`--STAGE.SETTING`", "", "Any of the [settings](settings.md)."))
        elif is_settings(plain):
            rows += option_rows(plain, f"{prefix}{field.name}.")
        else:
            name = f"{prefix}{field.name}".replace("_", "-")
            if tyro.conf.Positional in getattr(hint, "__metadata__", ()):
                value = placeholder(plain)
                more = " ..." if value.endswith("...") else ""
                name = value if value.startswith("{") else field.name.upper() + more
            else:
                name = f"--{name} {placeholder(plain)}".rstrip()
            rows.append((f"`{name}`", shown(field.default), told(kind).get(field.name, "")))
    return rows


def options_table(name: str) -> str:
    """Of one command."""
    rows = option_rows(command_class(name))
    lines = [f"| {option} | {default} | {what} |" for option, default, what in rows]
    return "\n".join(["| option | default | |", "|---|---|---|", *lines])


def settings_page() -> str:
    """Every section of the configuration."""
    configs = [preset(name) for name in PRESETS]
    parts = [ABOUT]
    for section, kind in get_type_hints(Config).items():
        if not is_settings(kind):
            continue
        readers = [f"`{algo}`" for algo in get_args(Algo) if section in sections(algo)]
        reads = "every algorithm" if len(readers) == len(get_args(Algo)) else ", ".join(readers)
        parts.append(f"## {section}\n\n{inspect.getdoc(kind)} Read by {reads}.\n")
        head = "| setting | " + " | ".join(f"`{name}`" for name in PRESETS) + " | |"
        lines = [head, "|" + "---|" * (len(PRESETS) + 2)]
        for field in dataclasses.fields(kind):
            option = f"--{section}.{field.name}".replace("_", "-")
            values = [shown(getattr(getattr(config, section), field.name)) for config in configs]
            what = told(kind).get(field.name, "").replace("|", "\\|")
            lines.append(f"| `{option}` | {' | '.join(values)} | {what} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def commands_page(text: str) -> str:
    """docs/commands.md with the table of each command between its marks."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{options_table(match[2])}\n\n{match[3]}"

    pattern = r"(<!-- options (\w+) -->).*?(<!-- /options -->)"
    return re.sub(pattern, table, text, flags=re.DOTALL)


def pages() -> dict[Path, str]:
    """The two pages as they should be."""
    commands = DOCS / "commands.md"
    return {commands: commands_page(commands.read_text()), DOCS / "settings.md": settings_page()}


def sections_of_commands() -> list[str]:
    """Commands that docs/commands.md has a heading for, in its order."""
    return re.findall(r"^## ipd (\w+)$", (DOCS / "commands.md").read_text(), flags=re.MULTILINE)


if __name__ == "__main__":
    assert set(sections_of_commands()) == set(COMMANDS)
    for path, text in pages().items():
        path.write_text(text)
