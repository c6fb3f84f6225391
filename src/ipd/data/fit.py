"""Whether data are fit for a task and for a config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ipd.data.episodes import DataError, Episodes
from ipd.data.findings import Finding


def require_sizes(
    episodes: Episodes, observation_size: int, action_size: int, task: str, names: Sequence[str] = ()
) -> None:
    """Raises DataError unless the data have the sizes of the task, and its order (`require_order`)."""
    for key, have, want in (
        ("observations", episodes.observation_size, observation_size),
        ("actions", episodes.action_size, action_size),
    ):
        if have != want:
            raise DataError(
                f"{have} dimensions, but task {task} has {want}",
                file=episodes.source,
                key=key,
                cure="name the task the data were recorded in",
            )
    require_order(episodes.observation_names, names, task, episodes.source)


def require_order(mine: Sequence[str], theirs: Sequence[str], task: str, source: str) -> None:
    """Raises DataError where the data's dimensions have the names of the task's in another order.

    ``goal/0`` and ``goal[0]`` are one name. Fed to a policy as each other they would be wrong without a word;
    names that are not the task's tell nothing.
    """
    plain = [[_plain(name) for name in names] for names in (mine, theirs)]
    if plain[0] != plain[1] and sorted(plain[0]) == sorted(plain[1]):
        place = next(i for i, pair in enumerate(zip(*plain, strict=True)) if len(set(pair)) == 2)
        raise DataError(
            f"dimension {place} is {mine[place]}, but that of task {task} is {theirs[place]}: the same names "
            "in another order",
            file=source,
            key="observations",
            cure="bring them into the task's order",
        )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip()


def require_windows(episodes: Episodes, history_steps: int, imagine_steps: int) -> None:
    """Raises DataError unless some episode holds a window of Eq. 19."""
    need, longest = history_steps + imagine_steps, int(episodes.lengths.max())
    if longest < need:
        raise DataError(
            f"the longest episode has {longest} steps, a window needs {need} "
            f"(history {history_steps} + imagined {imagine_steps})",
            file=episodes.source,
            key="observations",
            cure="give longer episodes, or lower history_steps and imagine_steps",
        )


def other_options(recorded: Mapping[str, Any], options: Mapping[str, Any], task: str) -> list[Finding]:
    """What a set was recorded with and the task here is not made with.

    ``recorded`` is what the set says (``sources.recorded``), ``options`` is the task's own; in JSON's types.
    """
    differing = [name for name, value in recorded.items() if options.get(name) != value]
    if not differing:
        return []

    def told(of: Mapping[str, Any]) -> str:
        return ", ".join(f"{name}={of[name]!r:.60}" if name in of else f"no {name}" for name in differing)

    message = (
        f"recorded in {task} with {told(recorded)}, tried in it with {told(options)}; returns of data and "
        "policy do not compare"
    )
    cure = "register it with the recording's options under an id of your own, and name that with --env"
    return [Finding("other options", "warning", "task", message, cure)]
