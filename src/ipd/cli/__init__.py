"""The command line. `main` dispatches by hand, so that help needs neither tyro nor JAX.

Exit 0: done, or stopped in good order (SIGTERM). 1: the run failed. 2: the input or the command was
wrong. The last line of stderr says what, where, and what would mend it; a traceback only with --debug.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from ipd.runs.stopping import SAID, Stopped, on_sigterm

COMMANDS = {
    "demo": "bundled Hopper data, every stage, a page at the end (about ten minutes)",
    "train": "learn from a dataset: value, world model, imagination, policy; evaluate; write the page",
    "augment": "enlarge a dataset by imagined steps, for any learner",
    "evaluate": "try a run's finished policies again in the real task",
    "render": "film a run's policy in its task, without a screen",
    "audit": "replay imagined plans in the simulator and compare",
    "view": "a page of imagined segments, step by step, with every plan that was weighed",
    "export": "a run's finished policy as ONNX, StableHLO or plain arrays, with what it takes to run it",
    "judge": "what a run's policies are worth, estimated from data and model alone",
    "report": "write a run's page again and print its table, or compare many runs",
    "log": "a run's metrics for TensorBoard or W&B, finished or at work",
    "data": "check, describe or convert a dataset",
    "collect": "make a dataset in a task with soft actor-critic",
    "sweep": "every run of a table or figure of the paper, on one machine or on Ray",
    "doctor": "what is installed, what is missing, whether a task steps",
}

RESUMABLE = {"demo", "train", "augment", "sweep"}
"""Commands that SIGTERM ends in good order, with exit 0, since the same command goes on later."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("ipd"))
        return 0
    if words[0] not in COMMANDS:
        print(f"ipd: no command '{words[0]}'; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    leave = functools.partial(print, _later(words[0]), file=sys.stderr)
    try:
        module = "inspect" if words[0] == "data" else words[0]
        command: Callable[[list[str]], int] = import_module(f"ipd.cli.{module}").main
        with on_sigterm(leave) if words[0] in RESUMABLE else contextlib.nullcontext():
            return command(words[1:])
    except Stopped:
        leave()
        return 0
    except KeyboardInterrupt:
        print(f"ipd {words[0]}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            raise
        from ipd.data.errors import one_line

        code, line = _verdict(error)
        print(f"ipd {words[0]}: {one_line(line)}", file=sys.stderr)
        return code


def _later(command: str) -> str:
    return f"ipd {command}: {SAID}; what was done is saved, the same command goes on from there"


def _verdict(error: Exception) -> tuple[int, str]:
    """Exit code and line for whatever went wrong."""
    from ipd.data.episodes import DataError
    from ipd.evaluation.scores import ScoreError
    from ipd.evaluation.tasks import TaskError
    from ipd.report.read import ReportError
    from ipd.runs.errors import InputError, RunFailed

    if isinstance(error, (InputError, DataError, TaskError, ReportError, ScoreError)):
        return 2, str(error)
    if isinstance(error, RunFailed):
        return 1, str(error)
    if isinstance(error, OSError) and error.filename:
        return (
            1,
            f"{error.filename}: {error.strerror}; it must be readable and writable, on a disk with room",
        )
    return 1, f"{type(error).__name__}: {error}; the same command with --debug shows where"


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ipd COMMAND [OPTIONS]",
            "",
            "Imaginary Planning Distillation: learn a policy from logged data that is better than the data.",
            "",
            *lines,
            "",
            "`ipd COMMAND --help` lists its options; --debug shows tracebacks.",
        ]
    )
