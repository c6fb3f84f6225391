"""What every stage is given, and the mechanics they share: keys, fingerprints, done or not, re-use."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ipd.config import Config, content_hash
from ipd.data.episodes import Episodes, Normaliser, to_steps
from ipd.evaluation.tasks import Task
from ipd.runs import alarms, files, made_of
from ipd.runs.checkpoint import CheckpointStore
from ipd.runs.errors import InputError, RunFailed
from ipd.runs.loop import Schedule
from ipd.runs.memory import give_back
from ipd.runs.metrics import MetricsLog
from ipd.runs.progress import Progress
from ipd.runs.rundir import Job
from ipd.types import Spec, Steps


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run at work."""

    folder: Path
    job: Job
    task: Task | None
    load: Callable[[], Episodes]
    digest: str
    """Of the data."""
    normaliser: Normaliser
    spec: Spec
    progress: Progress
    checkpoint_seconds: float = 30.0
    reuse: tuple[Path, ...] = ()
    """Other runs, whose finished stages are taken where they are what this one would make."""
    trusted: bool = False
    """Learned stages are taken as they are once finished, by whichever version of the code."""

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.job.config

    @property
    def seeds(self) -> tuple[int, ...]:
        """The run's seeds."""
        return self.job.seeds

    def row(self, seed: int | None) -> int:
        """Place of a seed among the run's (None: the first). Raises `InputError` where it is none of them, or
        was stopped at something that is not finite: what there is of it is no result."""
        failed = self.failed
        ended = [each for each in self.seeds if each not in failed]
        seed = (ended or self.seeds)[0] if seed is None else seed
        there = f"there are {', '.join(map(str, ended)) or 'none'}"
        if seed not in self.seeds:
            raise InputError(f"{self.folder}: has no seed {seed}; {there}")
        if seed in failed:
            raise InputError(f"{self.folder}: seed {seed} was stopped ({failed[seed]}); {there}")
        return self.seeds.index(seed)

    def __post_init__(self) -> None:
        """What the stages are made by is what is in memory now, whatever is installed while they run."""
        made_of.sources()

    @cached_property
    def episodes(self) -> Episodes:
        """The data; read when first asked for. Raises `InputError` where they are not those of the run."""
        found = self.load()
        if found.digest != self.digest:
            raise InputError(
                f"{self.folder}: learned from data of digest {self.digest}, {self.job.data} has "
                f"{found.digest}; restore the data"
            )
        return found

    @cached_property
    def steps(self) -> Steps:
        """All logged steps in learner's units, NumPy; on disk where the episodes are."""
        return to_steps(self.episodes, self.normaliser)

    @property
    def disk(self) -> Path | None:
        """Folder for columns too large for memory; None where the set is small."""
        return self.episodes.disk

    @cached_property
    def log(self) -> MetricsLog:
        """Where metrics go."""
        return MetricsLog(self.folder / "metrics.jsonl", self.seeds)

    def stage_folder(self, stage: str) -> Path:
        """Where a stage keeps its files."""
        return self.folder / "stages" / stage

    @property
    def failed(self) -> dict[int, str]:
        """Seeds that failed in any stage so far, with the first thing that went wrong."""
        return self.failed_in(self._stages())

    def stopped(self, stage: str) -> dict[int, str]:
        """Seeds that failed in a stage, or in one that it is made of: what of them is left is no result.

        Others are none of its concern: what it makes is taken over by runs that have not failed there.
        """
        return self.failed_in([*self._feeds(stage), stage])

    def _stages(self) -> list[str]:
        return [folder.name for folder in sorted((self.folder / "stages").glob("*/"))]

    def _feeds(self, stage: str) -> list[str]:
        return made_of.feeds(stage, self._stages())

    def failed_in(self, stages: Sequence[str]) -> dict[int, str]:
        """Seeds that failed in these stages, with the first thing that went wrong."""
        found: dict[int, str] = {}
        for stage in stages:
            for seed, text in self.store(stage, "").failed().items():
                found.setdefault(seed, f"stage {stage}: {text}")
        return found

    def stop(self, stage: str, fingerprint: str, what: dict[int, str]) -> None:
        """Notes that seeds came to something that is not finite: seed -> what, and when or where.

        Raises `RunFailed` where no other seed is left.
        """
        if not what:
            return
        self.store(stage, fingerprint).fail(what)
        for seed, text in what.items():
            self.progress.say(f"{stage}: seed {seed} is stopped: {text}; the other seeds go on")
        self._require_seeds(stage, self.stopped(stage))

    def _require_seeds(self, stage: str, stopped: dict[int, str]) -> None:
        if set(self.seeds) <= set(stopped):
            raise RunFailed(f"stage {stage}: no seed is left: {'; '.join(stopped.values())}")

    def keys(self, stage: str) -> jax.Array:
        """One random key a seed."""
        # one number for all baselines: only one of them is in a run
        number = (made_of.STAGES.index(stage) if stage in made_of.STAGES else len(made_of.STAGES)) + 1
        return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), number))(
            jnp.asarray(self.seeds)
        )

    def store(self, stage: str, fingerprint: str) -> CheckpointStore:
        """The checkpoints of a stage."""
        return CheckpointStore(self.stage_folder(stage), fingerprint)

    def schedule(self, steps: int, **more: Any) -> Schedule:
        """About 200 records of metrics, none of less than 10 or more than 1,000 updates."""
        return Schedule(
            steps, min(max(steps // 200, 10), 1_000), checkpoint_seconds=self.checkpoint_seconds, **more
        )

    def tell(self, stage: str, summary: dict[str, Any]) -> None:
        """Writes a stage's summary.json; a stage whose policies are tried while it trains does so before."""
        files.write_json(self.stage_folder(stage) / "summary.json", summary)

    def summary(self, stage: str) -> Any:
        """summary.json of a stage."""
        path = self.stage_folder(stage) / "summary.json"
        told = files.read_object(path)
        self.verify(path, stage)
        return told

    def verify(self, path: Path, stage: str) -> None:
        """`InputError` where a file is not as `stage` left it, if that was noted: older versions did not.

        A large file is read for it once a process.
        """
        done = self.stage_folder(stage) / "done.json"
        with files.understood(done):
            wanted = files.read_json(done).get("sha256", {}).get(path.name) if done.exists() else None
        if wanted is not None and (not path.is_file() or files.digest_of(path) != wanted):
            spoiled = path if path.name == made_of.MADE_IN else done.parent
            raise InputError(
                f"{path}: damaged, its sha256 is not the one in {done}; delete {spoiled} and run the "
                "same `ipd train` again"
            )

    def snapshots(self, steps: int) -> tuple[int, ...]:
        """Updates after which the judged policy is kept, the last one among them."""
        count = self.config.evaluate.snapshots
        return tuple(sorted({steps * (i + 1) // count for i in range(count)} | {steps}))

    def fingerprint(
        self, stage: str, settings: Any, inputs: tuple[str, ...] = (), code: tuple[str, ...] = ()
    ) -> str:
        """Changes with whatever could change the stage's result; `code` names files beside `CODE`'s."""
        shared = (self.digest, self.normaliser.to_dict(), self.spec, self.seeds, self.config.stream)
        task = None if self.task is None else (self.task.id, self.task.versions)
        return content_hash(stage, settings, inputs, *shared, task, made_of.code_digest(stage, code))

    def made(self, stage: str) -> str | None:
        """The fingerprint of a finished stage; None of another."""
        done = self.stage_folder(stage) / "done.json"
        return str(files.read_object(done).get("fingerprint")) if done.exists() else None

    def finish(self, stage: str, fingerprint: str, work: Callable[[], dict[str, Any]]) -> str:
        """Does `work` unless it is done already, here or in the run to re-use; its result is the summary.

        done.json is written last, so a stage is finished exactly when it is there. Returns the
        fingerprint of what was made; it is not the one given only for a trusted stage.
        """
        folder = self.stage_folder(stage)
        done = folder / "done.json"
        made = self.made(stage)
        files.require_held(folder)
        there = (
            self._as_left(self.folder, stage)
            if stage in made_of.JUDGING  # judged again sooner than asked about; others say so when read
            else all((self.folder / name).exists() for name in made_of.OUTPUTS.get(stage, ()))
        )
        taken = self.trusted and stage not in (*made_of.JUDGING, "judge")
        if taken and made is None:  # since the run was opened: another process works on it
            raise InputError(f"{self.folder}: stage {stage} is not finished; run the same `ipd train` again")
        if made is not None and (taken or (made == fingerprint and there)):
            self.progress.say(f"{stage}: done before")
            return made
        if made != fingerprint:  # else what was made of it stays true
            for fed in self._stages():  # before done.json goes, so that after a kill it is done again
                if stage in self._feeds(fed):
                    self._forget(fed, failures=made is not None)
        done.unlink(missing_ok=True)
        for other in self.reuse:
            if self._take_over(other, stage, fingerprint):
                self.progress.say(f"{stage}: taken from {other}")
                return fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        self.store(stage, fingerprint).clean()
        self._require_seeds(stage, self.failed_in(self._feeds(stage)))
        told = work()
        wrong = alarms.of(stage, self.config, self.seeds, self.log.last(stage), told, lambda: self.steps)
        self.log.warn(stage, wrong)
        for alarm in wrong:
            self.progress.say(f"{stage}: warning, seed {alarm.seed}: {alarm.what}; try {alarm.cure}")
        self.tell(stage, told | ({"warnings": [alarm._asdict() for alarm in wrong]} if wrong else {}))
        give_back()
        left = [folder / "summary.json", *(self.folder / name for name in made_of.OUTPUTS.get(stage, ()))]
        sealed = {path.name: files.digest_of(path) for path in (*left, self.folder / made_of.MADE_IN)}
        files.write_json(done, {"fingerprint": fingerprint, "sha256": sealed})
        return fingerprint

    def keep_normaliser(self) -> None:
        """Writes normaliser.json; where it told of other units, no stage is finished any more."""
        path, told = self.folder / made_of.MADE_IN, self.normaliser.to_dict()
        before = told  # a damaged file tells nothing, and is written anew
        with contextlib.suppress(InputError):
            before = files.read_object(path) if path.exists() else told
        if before != told:
            for stage in self._stages():
                self._forget(stage, failures=True)
        files.write_json(path, told)

    def _forget(self, stage: str, failures: bool) -> None:
        """A stage is not finished any more, since what it was made of is made again.

        Otherwise a run would be finished whose stages are not made of each other, and a page would show
        judgements beside what they are not about. Its checkpoints stay: they may still be what is asked for.
        """
        folder = self.stage_folder(stage)
        if failures:
            self.store(stage, "").forget()
        (folder / "done.json").unlink(missing_ok=True)
        if stage in made_of.LEAVES:
            (folder / "summary.json").unlink(missing_ok=True)
            for name in made_of.OUTPUTS.get(stage, ()):
                (self.folder / name).unlink(missing_ok=True)

    def _as_left(self, run: Path, stage: str) -> bool:
        """Whether what a finished stage leaves outside its folder is there, and is what it left."""
        done = run / "stages" / stage / "done.json"
        with files.understood(done):
            wanted = files.read_object(done).get("sha256", {}) if done.exists() else {}
            outputs = [run / name for name in made_of.OUTPUTS.get(stage, ())]
            return all(
                path.is_file() and wanted.get(path.name) in (None, files.digest_of(path)) for path in outputs
            )

    def _take_over(self, run: Path, stage: str, fingerprint: str) -> bool:
        other = run / "stages" / stage
        done = other / "done.json"
        if not done.exists() or files.read_object(done).get("fingerprint") != fingerprint:
            return False
        if not self._as_left(run, stage):
            return False
        folder = self.stage_folder(stage)
        shutil.rmtree(folder, ignore_errors=True)
        self.log.take_over(run / "metrics.jsonl", stage)
        sources = [path for path in sorted(other.iterdir()) if path.name != "done.json"]
        pairs = [(path, folder / path.name) for path in sources]
        pairs += [(run / name, self.folder / name) for name in made_of.OUTPUTS.get(stage, ())]
        for source, target in [*pairs, (done, folder / "done.json")]:
            with files.replacing(target) as partial:
                shutil.copyfile(source, partial)
        return True


def unstack(tree: Any, row: int) -> Any:
    """One seed out of a stacked pytree of arrays."""
    return jax.tree.map(lambda leaf: leaf[row], tree)


def plain(value: Any) -> Any:
    """`value` for a summary: arrays as lists, float32 with the digits it has, NaN and infinity as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    return value
