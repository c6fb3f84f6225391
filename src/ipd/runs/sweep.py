"""The runs of a plan in turn on this machine, and how each of them stands and ended.

`DIR/<set>/<variant>/seeds-0-2` is an ordinary run directory; beside it lie its log and how it ended.
Runs of one set and one group of seeds share stages: the first that needs a stage makes it, those
behind take it over. A sweep that was killed goes on when it is started again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ipd.config import content_hash
from ipd.runs import files, rundir
from ipd.runs.errors import InputError
from ipd.runs.plans import Entry, Plan
from ipd.runs.stopping import SAID

Say = Callable[[str], None]


OTHER = "other config"
"""Status of the stages of a run whose folder holds another one."""


class Outcome(NamedTuple):
    """How a run ended."""

    state: str
    """`done` or `failed`."""
    line: str = ""
    """Why it failed."""
    seconds: float = 0.0


def status(out: Path, entry: Entry) -> dict[str, str]:
    """Stage that learns -> `done`, `new`, or `from KEY` where it is taken over.

    All are `OTHER` where the folder holds another run, which is left alone.
    """
    if refusal(out, entry):
        return dict.fromkeys(entry.stages, OTHER)
    told = {}
    for stage, planned in entry.stages.items():
        done = (out / entry.key / "stages" / stage / "done.json").exists()
        maker = entry.found.get(stage, planned)
        told[stage] = "done" if done else "new" if maker == entry.key else f"from {maker}"
    return told


def refusal(out: Path, entry: Entry) -> str:
    """Why the run cannot be made in its folder, as `ipd train` would say it; nothing where it can."""
    folder = out / entry.key
    if not (folder / "config.yaml").exists():
        return ""
    try:
        held = rundir.read_job(folder)
    except InputError as error:
        return str(error)
    # where the plan names no task, the run may have found one in the data file
    asked = dataclasses.replace(entry.job, task=entry.job.task or held.task)
    return "holds a run of another config; choose another --out" if rundir.clashes(held, asked) else ""


def finished(out: Path, entry: Entry) -> bool:
    """Whether the run ended well with this job, this code, these packages and this data file.

    It reads small files only. A run that ended under other code is given to `ipd train` again, which
    repeats the stages whose code it is and says "done before" of the others. So is one that `ipd
    evaluate` tried in another number of episodes since: a table is of one number.
    """
    told, folder = out / f"{entry.key}.json", out / entry.key
    if not told.exists() or not (folder / "report.html").exists():
        return False
    try:
        old, held = files.read_json(told), rundir.read_job(folder)
        stages = [*entry.stages, *(["evaluate"] if held.task else [])]
        return bool(
            old["state"] == "done"
            and old["seal"] == seal(entry)
            and held.config.evaluate == entry.job.config.evaluate
            and all((folder / "stages" / stage / "done.json").exists() for stage in stages)
        )
    except (InputError, KeyError, TypeError):  # cut short: as if it were not there
        return False


def record(out: Path, entry: Entry, outcome: Outcome, sealed: str) -> None:
    """Writes how a run ended beside its folder; `sealed` is what `seal` gave before it began.

    Where the folder holds another run, what is written there is about that one, and stays.
    """
    if refusal(out, entry):
        return
    told = {"state": outcome.state, "line": outcome.line, "seconds": round(outcome.seconds, 1)}
    files.write_json(out / f"{entry.key}.json", told | {"seal": sealed})


def seal(entry: Entry) -> str:
    """Changes with whatever could make a finished run out of date.

    Taken before the run: what changes while it goes is not what it was made of.
    """
    stat: tuple[int, int] | None = None
    with contextlib.suppress(OSError):  # bundled, or gone: that is the run's to tell
        found = Path(entry.job.data).stat()
        stat = found.st_size, found.st_mtime_ns
    return content_hash(rundir.to_plain(entry.job), stat, entry.software)


def wait_until_free(folder: Path, say: Say) -> None:
    """Waits while another process works on the run: what an interrupted sweep left goes on by itself."""
    if not (folder / "lock").is_file():
        return
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"waiting for another process that works on {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)


def run_local(planned: Plan, out: Path, say: Say, checkpoint_seconds: float = 30.0) -> dict[str, Outcome]:
    """Runs the entries in turn, each in a process of its own: what kills one does not end the sweep."""
    outcomes: dict[str, Outcome] = {}
    for number, entry in enumerate(planned.entries, 1):
        if finished(out, entry):
            outcomes[entry.key] = Outcome("done", "before")
            continue
        say(f"[{number}/{len(planned.entries)}] {entry.key}")
        began, sealed, line = time.monotonic(), "", refusal(out, entry)
        if not line:
            wait_until_free(out / entry.key, say)
            sealed = seal(entry)
            line = _in_process(entry, out, say, checkpoint_seconds)
        outcome = Outcome("failed" if line else "done", line, time.monotonic() - began)
        record(out, entry, outcome, sealed)
        outcomes[entry.key] = outcome
        say(f"[{number}/{len(planned.entries)}] {entry.key}: {outcome.state}" + (f": {line}" if line else ""))
    return outcomes


def begun(out: Path, entry: Entry) -> tuple[str, ...]:
    """Those makers of a run that left something to take over: sharing saves work, it is never in its way."""

    def readable(folder: Path) -> bool:
        with contextlib.suppress(InputError):
            rundir.read_job(folder)
            return True
        return False

    return tuple(maker for maker in entry.makers if readable(out / maker))


def _in_process(entry: Entry, out: Path, say: Say, checkpoint_seconds: float) -> str:
    """Runs `ipd train`; returns why it failed, or nothing. What it says is shown, and kept in KEY.log."""
    words = [*entry.command(out, begun(out, entry)), "--checkpoint-seconds", f"{checkpoint_seconds:g}"]
    log = out / f"{entry.key}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    last = "said nothing"
    # A pipe, not the file itself: a run whose sweep was killed ends with the next line that it says.
    with subprocess.Popen(
        [sys.executable, "-m", "ipd", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        try:
            assert child.stdout is not None
            with log.open("a") as file:
                for text in child.stdout:
                    file.write(text)
                    file.flush()
                    last = text.strip() or last
                    say(f"  {text.rstrip()}")
            code = child.wait()
        except BaseException:
            child.kill()
            raise
    if code < 0:
        return f"killed by signal {-code} after: {last}" + (" (out of memory?)" if code == -9 else "")
    return last if code or SAID in last else ""
