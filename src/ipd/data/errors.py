"""What is raised for data that cannot be used."""

from __future__ import annotations

LONGEST = 1_000
"""Characters of a message; names in a file may have any number."""


def one_line(text: str) -> str:
    """`text` on one line of printable characters, its middle left out where it is long.

    A name out of a file could otherwise steer the terminal that it is shown on.
    """
    line = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in " ".join(text.split())
    )
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} [...] {line[-LONGEST // 2 :]}"


class DataError(ValueError):
    """Data that cannot be used. Its text is one line: file, key, row, what is wrong, the cure."""

    def __init__(
        self,
        message: str,
        file: str | None = None,
        key: str | None = None,
        row: int | None = None,
        cure: str | None = None,
    ) -> None:
        self.file, self.key, self.row, self.cure = file, key, row, cure
        place = [file, key and f"key '{key}'", None if row is None else f"row {row}"]
        text = ", ".join(part for part in place if part)
        text = (f"{text}: " if text else "") + message + (f"; {cure}" if cure else "")
        super().__init__(one_line(text))
