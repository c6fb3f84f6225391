"""What is raised for data that cannot be used."""

from __future__ import annotations


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
        super().__init__(" ".join(text.split()))
