"""What a check tells."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["fatal", "warning", "note"]


class Finding(NamedTuple):
    """One thing about a dataset that someone should know."""

    kind: str
    severity: Severity
    """`fatal`: cannot be trained on; `warning`: likely a mistake; `note`: worth knowing."""
    where: str
    """Key, and row or dimension."""
    message: str
    cure: str
