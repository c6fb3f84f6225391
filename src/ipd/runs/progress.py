"""What a person sees while a run works: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import rich.console
import rich.progress
from numpy.typing import NDArray

from ipd.runs import files

PLAIN_SECONDS = 10.0


class Progress:
    """Progress of one stage after another, on stderr; clock times go to `timing.jsonl` and nowhere else."""

    def __init__(self, timing: Path | None = None, quiet: bool = False) -> None:
        self._timing = timing
        self._quiet = quiet
        self._console = rich.console.Console(stderr=True)
        self._bar: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)
        self._stage, self._first, self._total, self._unit = "", 0, 0, "updates"
        self._done = self._timed_from = 0
        self._began = self._spoke = self._timed_at = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        """Gives the terminal back, whatever happened."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """One line of its own."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def begin(self, stage: str, done: int, total: int, unit: str = "updates") -> None:
        """A stage starts, or goes on, at `done` of `total`."""
        self._stage, self._first, self._total, self._unit = stage, done, total, unit
        self._began = self._spoke = self._timed_at = time.monotonic()
        self._done = self._timed_from = done
        if self._quiet:
            return
        if self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description:9}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[note]}"),
                rich.progress.TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(stage, total=total, completed=done, note="compiling")
            self._bar.start()
        else:
            self.say(f"{stage}: {total} {unit}" + (f", going on from {done}" if done else ""))

    def advance(self, done: int, values: dict[str, NDArray[Any]] | None = None) -> None:
        """`done` of the total is done; `values` are the metrics of that moment, seeds on axis 0."""
        now = time.monotonic()
        if self._first == self._done:  # the first call compiled; the rate is that of what follows
            self._timed_from, self._timed_at = done, now
        self._done = done
        rate = (done - self._timed_from) / max(now - self._timed_at, 1e-9)
        losses = (f"{n} {float(v.mean()):.4g}" for n, v in (values or {}).items() if n.endswith("loss"))
        loss = next(losses, "")
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=f"{rate:,.0f} {self._unit}/s  {loss}")
        elif now - self._spoke >= PLAIN_SECONDS and rate > 0:
            self._spoke = now
            pace = f"{rate:,.0f} {self._unit}/s  {_clock((self._total - done) / rate)} left"
            self.say(f"{self._stage}: {done}/{self._total}  {pace}  {loss}".rstrip())

    def end(self) -> None:
        """The stage is over; its time goes to `timing.jsonl`, with the rate once all was compiled."""
        now = time.monotonic()
        seconds = now - self._began
        rate = (self._done - self._first) / max(seconds, 1e-9)
        steady = (self._done - self._timed_from) / max(now - self._timed_at, 1e-9)
        self.__exit__()
        self.say(f"{self._stage}: {self._done} {self._unit} done in {_clock(seconds)}")
        if self._timing is not None:
            record = {"stage": self._stage, "from": self._first, "to": self._done, "unit": self._unit,
                      "seconds": round(seconds, 3), "per_second": round(rate, 2),
                      "steady_per_second": round(steady, 2)}  # fmt: skip
            files.require_held(self._timing)
            with self._timing.open("a") as file:
                file.write(json.dumps(record) + "\n")


def _clock(seconds: float) -> str:
    """Seconds for a person: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
