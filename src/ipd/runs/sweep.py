"""Many runs as one: the plan of a suite, and its runs in turn on this machine.

`DIR/<set>/<variant>/seeds-0-2` is an ordinary run directory; beside it lie its log and how it ended.
Runs of one set and one group of seeds share stages: the first that needs a stage makes it, those
behind take it over. A sweep that was killed goes on when it is started again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ipd
from ipd.config import Config, content_hash, trimmed
from ipd.presets import override, problems, with_task
from ipd.runs import files, rundir
from ipd.runs.algorithms import ALGORITHMS
from ipd.runs.errors import InputError
from ipd.runs.rundir import Job
from ipd.runs.stages import stages_of
from ipd.runs.suites import SETS, Source, Suite, Variant, find

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run of a sweep."""

    key: str
    """Its folder below the sweep's."""
    dataset: str
    origin: str
    """`D4RL` or `regenerated`."""
    variant: Variant
    job: Job
    stages: Mapping[str, str]
    """Stage that learns -> key of the run that makes it: this one, or an earlier one."""

    @property
    def makers(self) -> tuple[str, ...]:
        """Keys of the runs that this one takes stages from."""
        return tuple(dict.fromkeys(maker for maker in self.stages.values() if maker != self.key))

    def command(self, out: Path, makers: tuple[str, ...] | None = None) -> list[str]:
        """The words behind `ipd` that make this run below `out`, taking over from `makers` (all of them)."""
        job, config = self.job, self.job.config
        words = ["train", "--data", job.data, *(["--env", job.task] if job.task else [])]
        words += ["--algo", config.algo, "--preset", config.preset, "--seeds", str(len(job.seeds))]
        words += ["--first-seed", str(job.seeds[0])] if job.seeds[0] else []
        for field, value in self.variant.overrides.items():
            parts = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.replace('_', '-')}", *(f"{part:g}" for part in parts)]
        reuse = [str(out / maker) for maker in (self.makers if makers is None else makers)]
        return [*words, *(["--reuse", *reuse] if reuse else []), "--out", str(out / self.key)]


class Plan(NamedTuple):
    """What a sweep will do, in order."""

    entries: tuple[Entry, ...]
    skipped: Mapping[str, str]
    """Set without data -> why, in one line."""
    remarks: tuple[str, ...]


class Outcome(NamedTuple):
    """How a run ended."""

    state: str
    """`done` or `failed`."""
    line: str = ""
    """Why it failed."""
    seconds: float = 0.0


def plan(suite: Suite, preset: str, seeds: int, group: int, root: Path | None = None) -> Plan:
    """Expands a suite to runs: sets, then groups of seeds, then variants.

    Raises `InputError` where preset or numbers are wrong, or where no set has data.
    """
    if root is not None and not root.is_dir():
        raise InputError(f"--data-root {root}: not a folder")
    if seeds < 1 or group < 1:
        raise InputError("--seeds and --group: must be at least 1")
    groups = [tuple(range(first, min(first + group, seeds))) for first in range(0, seeds, group)]
    entries: list[Entry] = []
    skipped, remarks = dict[str, str](), list[str]()
    for name in suite.sets:
        dataset = SETS[name]
        source = find(dataset, root)
        if source is None:
            where = f"in {root}" if root else "without --data-root"
            skipped[name] = f"neither {dataset.file} nor {name}.hdf5 {where}"
            continue
        remarks += [f"{name}: {source.remark}"] if source.remark else []
        if dataset.env is None:
            remarks.append(f"{name}: no living task has D4RL's observations; trained, not evaluated")
        for each in groups:
            makers: dict[str, str] = {}
            found = [_entry(name, source, variant, preset, each, makers) for variant in suite.variants]
            same = [entry.variant.name for entry in found if _makes_nothing(entry)]
            entries += [entry for entry in found if entry.variant.name not in same]
            told = f"{', '.join(same)}: left out, equal to another run under preset {preset}"
            remarks += [told] if same and told not in remarks else []
    if not entries:
        raise InputError("no data: " + "; ".join(f"{name}: {why}" for name, why in skipped.items()))
    return Plan(tuple(entries), skipped, tuple(remarks))


def _entry(
    name: str, source: Source, variant: Variant, preset: str, seeds: tuple[int, ...], makers: dict[str, str]
) -> Entry:
    env = SETS[name].env
    try:
        config = with_task("+".join([preset, *variant.ablations]), env, source.path, variant.algo)
    except KeyError as error:
        raise InputError(f"--preset: {error.args[0]}") from error
    config = override(config, variant.overrides)
    if problems(config):
        raise InputError("; ".join(problems(config)))
    span = f"seeds-{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"seeds-{seeds[0]}"
    key = f"{name}/{variant.name}/{span}"
    made = learned(config)
    stages = {stage: makers.setdefault(content, key) for stage, content in made.items()}
    return Entry(key, name, source.origin, variant, Job(source.path, env, seeds, config), stages)


def _makes_nothing(entry: Entry) -> bool:
    """Whether an ablation takes every stage over: under this preset it changes nothing."""
    ablated = entry.variant.ablations and not entry.variant.overrides
    return bool(ablated) and entry.key not in entry.stages.values()


def learned(config: Config) -> dict[str, str]:
    """Stage that learns -> hash of the settings behind it; for equal data and seeds, equal means shared.

    It stands for the fingerprint that a run gives the stage, which also knows data and code.
    """
    judged = "policy" if config.algo == "ipd" else ALGORITHMS[config.algo].stage
    found: dict[str, str] = {}
    for stage in stages_of(config):
        settings = [getattr(config, stage)]
        settings += [config.value] if stage == "refit" else []
        settings += [config.evaluate.snapshots] if stage == judged else []
        alone = stage in ("value", "world", "cloning") and stage != judged
        found[stage] = content_hash(stage, *settings, *([] if alone else found.values()))
    return found


def write_plan(out: Path, name: str, preset: str, planned: Plan) -> None:
    """`DIR/plan.json`: every run of every suite planned there; no clock times."""
    path = out / "plan.json"
    old_runs: list[dict[str, Any]] = []
    old_skipped: list[dict[str, Any]] = []
    # absent, or damaged: it is only a record, the runs are beside it
    with contextlib.suppress(InputError, KeyError, TypeError):
        old = files.read_json(path)
        old_runs, old_skipped = old["runs"], old["skipped"]
    runs = [
        {"run": entry.key, "suite": name, "set": entry.dataset, "origin": entry.origin,
         "data": entry.job.data, "task": entry.job.task, "algo": entry.job.config.algo,
         "variant": entry.variant.name, "preset": preset, "seeds": list(entry.job.seeds),
         "stages": dict(entry.stages), "command": ["ipd", *entry.command(out)]}
        for entry in planned.entries
    ]  # fmt: skip
    skipped = [{"set": each, "suite": name, "why": why} for each, why in planned.skipped.items()]
    new = {(run["suite"], run["run"]) for run in runs}
    kept = [run for run in old_runs if (run["suite"], run["run"]) not in new]
    absent = [each for each in old_skipped if each["suite"] != name]
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {"runs": kept + runs, "skipped": absent + skipped})


def status(out: Path, entry: Entry) -> dict[str, str]:
    """Stage that learns -> `done`, `new`, or `from KEY` where it is taken over.

    All are `other config` where the folder holds a run of one: `ipd train` refuses to go on there.
    """
    if _holds_another(out / entry.key, entry.job):
        return dict.fromkeys(entry.stages, "other config")
    found = {}
    for stage, maker in entry.stages.items():
        done = (out / entry.key / "stages" / stage / "done.json").exists()
        found[stage] = "done" if done else "new" if maker == entry.key else f"from {maker}"
    return found


def _holds_another(folder: Path, job: Job) -> bool:
    if not (folder / "config.yaml").exists():
        return False
    try:
        held = rundir.read_job(folder)
    except InputError:
        return True
    return bool(rundir.differences(held, dataclasses.replace(job, config=trimmed(job.config))))


def finished(out: Path, entry: Entry) -> bool:
    """Whether the run ended well with this job, this code, these packages and this data file.

    It reads one small file. A run that ended under other code is given to `ipd train` again, which
    repeats the stages whose code it is and says "done before" of the others.
    """
    told = out / f"{entry.key}.json"
    page = out / entry.key / "report.html"
    if not told.exists() or not page.exists():
        return False
    try:
        old = files.read_json(told)
        return bool(old["state"] == "done" and old["seal"] == _seal(entry.job))
    except (InputError, KeyError, TypeError):  # cut short: as if it were not there
        return False


def record(out: Path, entry: Entry, outcome: Outcome) -> None:
    """Writes how a run ended beside its folder."""
    told = {"state": outcome.state, "line": outcome.line, "seconds": round(outcome.seconds, 1)}
    files.write_json(out / f"{entry.key}.json", told | {"seal": _seal(entry.job)})


def _seal(job: Job) -> str:
    """Changes with whatever could make a finished run out of date."""
    data = None if job.data.startswith("bundled:") else Path(job.data).stat()
    stat = None if data is None else (data.st_size, data.st_mtime_ns)
    return content_hash(rundir.to_plain(job), stat, _package())


@cache
def _package() -> str:
    """Digest of all source files, with the versions of what they use."""
    root = Path(ipd.__file__).parent
    total = hashlib.sha256(repr(sorted(rundir.versions().items())).encode())
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def wait_until_free(folder: Path, say: Say) -> None:
    """Waits while another process works on the run: what an interrupted sweep left goes on by itself."""
    if not (folder / "lock").exists():
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
        began = time.monotonic()
        wait_until_free(out / entry.key, say)
        line = _in_process(entry, out, say, checkpoint_seconds)
        outcome = Outcome("failed" if line else "done", line, time.monotonic() - began)
        record(out, entry, outcome)
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
    return last if code else ""
