"""A disk that is full at one place of writing after another; `make faults` does all of them.

Apart from the kills at the same places, which take as long: two workers do one each.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from .conftest import Figure
from .in_turn import LONG, faults_in_turn


def test_full_disk_at_every_write_ends_as_if_there_was_room(
    small: Path, finished: Path, tmp_path: Path, figure: Figure
) -> None:
    def told(place: str, ended: subprocess.CompletedProcess[str]) -> None:
        assert ended.returncode == 1, f"{place}: {ended.returncode}\n{ended.stderr[-3000:]}"
        last = ended.stderr.splitlines()[-1]
        assert "No space left on device" in last and "Traceback" not in ended.stderr, (place, last)
        begun = (tmp_path / finished.name / "lock").exists()
        assert "is whole as far as it was saved" in last or not begun, (place, last)

    places = faults_in_turn("full", 1 if LONG else 90, told, small, finished, tmp_path)
    figure("places of writing with a full disk", len(places))
    assert len(places) >= (100 if LONG else 1)
