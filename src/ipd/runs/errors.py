"""The two ways a command may end badly. The message is the one line a person sees."""

from __future__ import annotations

from ipd.data.errors import one_line


class _OneLine(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class InputError(_OneLine):
    """The input or the command was wrong (exit 2). Says what, where, and what would mend it."""


class RunFailed(_OneLine):
    """The run itself failed: a non-finite value, an environment that died (exit 1)."""
