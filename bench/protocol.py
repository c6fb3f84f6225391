"""How the bench and its workers speak: a worker sets itself up once, then works whenever it is told to.

Each contender is a process of its own (ours has JAX, the peers have PyTorch), so both stay warm while
they take turns. The worker writes one JSON object a line: first what it is, then one for each round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def serve(work: Callable[[], float], **told: Any) -> None:
    """The worker's side: one warm-up, then a round for each line on stdin.

    ``work()`` returns how many units it did; it must not return before they are done.
    """
    work()
    print(json.dumps(told), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        count = work()
        print(json.dumps({"seconds": time.perf_counter() - began, "count": count}), flush=True)


class Worker:
    """The bench's side."""

    def __init__(
        self, python: Path, script: Path, words: list[str], environment: dict[str, str], cores: int
    ) -> None:
        def stay() -> None:
            # JAX has no setting for the number of its threads: it takes the cores that it may use
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

        self._child = subprocess.Popen(
            [str(python), str(script), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=stay,
        )
        self.told = self._read()

    def _read(self) -> dict[str, Any]:
        """The next object; what else is printed on the way is passed over."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise SystemExit(f"a worker ended early: {' '.join(map(str, self._child.args))}")  # type: ignore[arg-type]

    def round(self) -> float:
        """Units a second in one more round."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        done = self._read()
        return float(done["count"] / done["seconds"])

    def end(self) -> None:
        """The worker leaves when nothing more can come."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()
