"""Runs cases in a worker process; a new one is started only where the last one died or did not answer."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FULL = 2**30
"""Bytes that a worker has kept (compiled programs), after which a new one takes its place."""
PATIENCE = 300.0
"""Seconds without an answer, beyond which a worker hangs where no signal reaches it."""
ROOT = Path(__file__).resolve().parents[3]


def results(cases: Sequence[dict[str, Any]], specimens: Path, scratch: Path) -> Iterator[dict[str, Any]]:
    """How each case ended."""
    worker = None
    for case in cases:
        if worker is None:
            worker = subprocess.Popen(
                [sys.executable, "-m", "faults.fuzz.worker", str(specimens), str(scratch)],
                cwd=ROOT / "tests",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"},
            )
        assert worker.stdin and worker.stdout
        worker.stdin.write((json.dumps(case) + "\n").encode())
        worker.stdin.flush()
        ready, _, _ = select.select([worker.stdout], [], [], PATIENCE)
        line = worker.stdout.readline() if ready else b""
        if line:
            end = json.loads(line)
            if end["floor"] > FULL:
                worker.communicate(timeout=30)
                worker = None
            yield end
            continue
        if ready:
            worker.wait(30)
        worker.kill()
        worker.communicate()
        code, worker = worker.returncode, None
        yield case | {"end": "fault", "more": f"the worker died with {code}" if ready else "no answer"}
    if worker is not None:
        worker.communicate(timeout=30)
