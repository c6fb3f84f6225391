"""Which columns of a table are what: given as YAML, or inferred from the columns' names."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ipd.config import read_yaml
from ipd.data.episodes import DataError

PREFIXES = {
    "observations": ("observation.", "obs_", "obs.", "obs/", "observation_", "state.", "state_", "s_"),
    "actions": ("action.", "act_", "act.", "act/", "action_", "a_"),
    "next_observations": (
        *("next_observation.", "next_obs_", "next_obs.", "next_obs/", "next_observation_"),
        *("next_state.", "next_state_", "next_s_"),
    ),
}
"""Several columns, one a dimension."""
WHOLE = {
    "observations": ("observation", "observations", "obs", "state"),
    "actions": ("action", "actions", "act"),
    "next_observations": ("next_observation", "next_observations", "next_obs", "next_state"),
}
"""Names of columns that are all there is of a key: a list a row, or one number."""
SINGLE = {
    "reward": ("reward", "rewards", "r", "next.reward"),
    "terminated": ("terminated", "terminal", "terminals", "terminations", "done", "next.terminated"),
    "truncated": ("truncated", "timeout", "timeouts", "truncations", "next.truncated"),
    "episode": ("episode", "episode_id", "episode_index"),
    "time": ("time", "timestamp", "t", "step", "timestep", "frame_index"),
    "unlogged_next": ("unlogged_next",),
}


@dataclasses.dataclass(frozen=True)
class ColumnMap:
    """Names of a table's columns."""

    observations: tuple[str, ...]
    actions: tuple[str, ...]
    reward: str
    terminated: str | None = None
    truncated: str | None = None
    episode: str | None = None
    time: str | None = None
    next_observations: tuple[str, ...] = ()
    unlogged_next: str | None = None
    """Flag of steps whose next observation was not stored (``Episodes.unlogged_next``)."""

    def to_plain(self) -> dict[str, Any]:
        """What a YAML file of this map holds; columns that are not there are left out."""
        plain = {name: value for name, value in dataclasses.asdict(self).items() if value}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def used(self) -> list[str]:
        """All columns that are named, in the order of the fields."""
        values = self.to_plain().values()
        return [name for value in values for name in ([value] if isinstance(value, str) else value)]


LISTS = ("observations", "actions", "next_observations")


def read_map(path: Path) -> ColumnMap:
    """The map in a YAML file. Raises DataError where it is none."""
    file = str(path)
    cure = "a map has observations, actions (lists of columns) and reward (a column)"
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a plain file")
        values = read_yaml(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"no map of columns ({error})", file=file, cure=cure) from error
    if not isinstance(values, dict):
        raise DataError("no map of columns", file=file, cure=cure)
    names = [field.name for field in dataclasses.fields(ColumnMap)]
    for name in values:
        if name not in names:
            raise DataError("is unknown", file=file, key=str(name), cure=f"there are {', '.join(names)}")
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        if name in LISTS:
            value = [value] if isinstance(value, str) else value
            if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
                raise DataError("is no list of columns", file=file, key=name, cure="write [first, second]")
            found[name] = tuple(value)
        elif isinstance(value, str):
            found[name] = value
        else:
            raise DataError("is no column's name", file=file, key=name, cure="write one name, quoted")
    for name in ("observations", "actions", "reward"):
        if name not in found:
            raise DataError("is missing", file=file, key=name, cure=cure)
    return ColumnMap(**found)


def require_columns(columns: ColumnMap, present: Sequence[str], source: str) -> None:
    """Raises DataError where a column is missing, there twice, or used as two things."""
    used = columns.used()
    there, uses = Counter(present), Counter(used)  # of tables with 100,000 columns, too
    for name in used:
        if there[name] != 1:
            wrong = "is no column" if name not in there else "is the name of two columns"
            cure = f"there are {', '.join(present[:12])}" + (" and more" if len(present) > 12 else "")
            raise DataError(wrong, file=source, key=name, cure=cure)
        if uses[name] > 1:
            raise DataError("is used twice", file=source, key=name, cure="name each column once in the map")


def infer(present: Sequence[str], source: str) -> tuple[ColumnMap, tuple[list[str], list[str]]]:
    """The map that the names of the columns suggest, and the names of the dimensions.

    A dimension's name is its column's without the prefix; none where they only count from 0. Raises
    DataError where observations, actions or reward cannot be told, or may be either of two things.
    """
    lists, names = {}, {}
    for key in LISTS:
        lists[key], names[key] = _several(key, present, source)
    single = {key: next((name for name in known if name in present), None) for key, known in SINGLE.items()}
    needed = {"observations": lists["observations"], "actions": lists["actions"], "reward": single["reward"]}
    for key, found in needed.items():
        if not found:
            known = [f"{prefix}NAME" for prefix in PREFIXES[key][:2]] if key in LISTS else SINGLE[key][:2]
            cure = f"name columns {' or '.join(known)}, or write a map (--columns)"
            raise DataError("cannot be told from the names of the columns", file=source, key=key, cure=cure)
    following = lists["next_observations"]
    if following and names["next_observations"] != names["observations"]:
        cure = "name one for each observation, in the same order, or write a map (--columns)"
        raise DataError("are not those of the observations", file=source, key="next_observations", cure=cure)
    columns = ColumnMap(**lists, **single)  # type: ignore[arg-type]
    plain = tuple(_without_numbers(names[key]) for key in ("observations", "actions"))
    return columns, (plain[0], plain[1])


def _several(key: str, present: Sequence[str], source: str) -> tuple[tuple[str, ...], list[str]]:
    choices: list[tuple[tuple[str, ...], list[str]]] = [
        ((name,), ["0"]) for name in WHOLE[key] if name in present
    ]
    for prefix in PREFIXES[key]:
        found = tuple(name for name in present if name.startswith(prefix) and len(name) > len(prefix))
        if found:
            choices.append((found, [name.removeprefix(prefix) for name in found]))
    if len(choices) > 1:
        said = " or ".join(shortened(found) for found, _ in choices)
        cure = "say which in a map (--columns), or rename the columns that are something else"
        raise DataError(f"may be {said}", file=source, key=key, cure=cure)
    return choices[0] if choices else ((), [])


def shortened(names: Sequence[str]) -> str:
    """The columns in a line, of many the first and the last."""
    few = names if len(names) <= 6 else [*names[:4], "...", names[-1]]
    return ", ".join(few) + (f" ({len(names)})" if len(names) > 6 else "")


def _without_numbers(names: list[str]) -> list[str]:
    return [] if names == [str(number) for number in range(len(names))] else names


def map_for(
    path: Path, given: str | None, present: Sequence[str], source: str
) -> tuple[ColumnMap, tuple[list[str], list[str]]]:
    """The map of the table at ``path``: the one given, else the one beside it, else the inferred one."""
    beside = path.with_name(path.name + ".columns.yaml")
    if given is None and not beside.is_file():
        columns, names = infer(present, source)
    else:
        columns = read_map(Path(given) if given is not None else beside)
        names = list(columns.observations), list(columns.actions)
    require_columns(columns, present, source)
    return columns, names
