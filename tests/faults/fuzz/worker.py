"""`python -m faults.fuzz.worker SPECIMENS SCRATCH`: reads cases, one JSON line each, and says how each ended.

A case ends well where the input is accepted, or refused by one of the errors that a person is shown in one
line. Everything else is a fault: another error, too much time or memory, a file written or removed outside
the case's folder, a program started, something unpickled or a made-up piece of code run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

SECONDS, BYTES = 10.0, 2 * 2**30
WRITING = {
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "shutil.rmtree": (0,),
    "shutil.move": (0, 1),
}
FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
    "socket.connect",
    "pickle.find_class",
)

seen: list[str] = []
allowed: list[str] = []
watching = False


def _outside(path: Any) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    name = os.path.abspath(os.fsdecode(path))
    place = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
    return not any(place == each or place.startswith(each + os.sep) for each in allowed)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not watching:
        return
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        name = args[0] if isinstance(args[0], (str, bytes)) else ""
        if name and _outside(os.path.realpath(name)):
            seen.append(f"open {args[0]!r} to write")
    elif event in WRITING:
        seen.extend(f"{event} {args[at]!r}" for at in WRITING[event] if _outside(args[at]))
    elif event.startswith(FORBIDDEN) and threading.current_thread() is threading.main_thread():
        seen.append(f"{event} {args!r}"[:200])  # the queue of tensorboardX's thread is its own
    elif event == "exec" and getattr(args[0], "co_filename", "").startswith(("<unknown", str(allowed[0]))):
        seen.append(f"exec {args[0]!r}")


class Late(BaseException):
    """Out of time."""


def _late(*_: Any) -> None:
    raise Late


def _peak(reset: bool = False) -> int:
    """Largest resident memory since the last reset, bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _tree(folder: Path) -> dict[str, Any]:
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def _verdict(target: Any, error: BaseException | None, said: str) -> tuple[str, str]:
    """`accepted`, `refused` or a fault, and more on it."""
    from ipd.cli import _verdict as of_cli

    if "Traceback" in said:
        return "fault", "a traceback was printed"
    if error is None:
        return "accepted", ""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, Late):
        return "fault", "out of time"
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)  # type: ignore[arg-type]
    if target.specimen and any(isinstance(each, MemoryError) for each in chain):
        return "fault", f"out of memory: {text}"
    if "export-" in target.specimen:
        good = type(error) is ValueError and target.specimen in str(error)
        good = good or str(error).startswith("the policy gave")
    else:
        good = isinstance(error, Exception) and of_cli(error)[0] == 2
    if good and (len(str(error)) > 4_000 or not str(error).isprintable()):
        return "fault", f"no readable line ({len(str(error))} characters): {text!r}"
    return ("refused" if good else "fault"), text


def run(case: dict[str, Any], specimens: Path, scratch: Path, spoiled: bool = True) -> dict[str, Any]:
    """One case: {"target", "seed", "mutation"} -> how it ended."""
    from .cases import TARGETS, spoil

    global watching
    target = TARGETS[case["target"]]
    draw = random.Random(zlib.crc32(f"{case['target']} {case['seed']}".encode()))
    shutil.rmtree(scratch, ignore_errors=True)
    folder, outside = scratch / "case", scratch / "outside"
    folder.mkdir(parents=True), outside.mkdir()
    os.chdir(outside)
    path = folder / (target.specimen or "nothing")
    source = specimens / target.specimen
    if target.specimen:
        shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
        beside = source.with_name(source.name + ".columns.yaml")
        if beside.exists() and (target.only or draw.random() < 0.5):
            shutil.copyfile(beside, folder / beside.name)
    done = spoil(target, path, outside, draw, case.get("mutation") or "") if spoiled else "nothing"
    before, started, error = _tree(outside), time.process_time(), None
    said = io.StringIO()
    seen.clear()
    allowed[:] = [
        os.path.realpath(folder),
        os.path.realpath(os.environ["JAX_COMPILATION_CACHE_DIR"]),
        "/dev/null",
        "/proc",
    ]
    floor = _peak(reset=True)
    limit = SECONDS + 2 * case.get("usual", 0.0) + target.seconds
    signal.setitimer(signal.ITIMER_PROF, limit)
    signal.setitimer(signal.ITIMER_REAL, 4 * limit)
    watching = True
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            target.read(path, draw)
    except (Exception, Late, SystemExit) as caught:
        error = caught
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        watching = False
    kind, more = _verdict(target, error, said.getvalue())
    if seen:
        kind, more = "fault", seen[0]
    elif _tree(outside) != before:
        kind, more = "fault", f"outside changed: {sorted({*_tree(outside)} ^ {*before})}"
    elif _peak() > BYTES:
        kind, more = "fault", f"{_peak() / 2**30:.1f} GiB, {more}"
    page = path / "report.html"
    if path.is_dir() and spoiled and page.is_file() and "<script>ipdfuzz" in page.read_text(errors="replace"):
        kind, more = "fault", "a script in the page"
    return case | {
        "mutation": done,
        "end": kind,
        "more": more[:500],
        "seconds": time.process_time() - started,
        "peak": _peak(),
        "floor": floor,
    }


def main() -> None:
    """Cases from stdin, results to stdout, one line each."""
    specimens, scratch = (Path(word).resolve() for word in sys.argv[1:3])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.addaudithook(_hook)
    signal.signal(signal.SIGPROF, _late)
    signal.signal(signal.SIGALRM, _late)
    used: dict[str, float] = {}
    for line in sys.stdin:
        case = json.loads(line)
        if case["target"] not in used:  # imports and compilation are not the input's
            run(case, specimens, scratch, spoiled=False)
            first = run(case | {"usual": 300.0}, specimens, scratch, spoiled=False)
            if case["target"] not in ("arrays", "names"):
                assert first["end"] == "accepted", first
            used[case["target"]] = first["seconds"]
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + 4 * 2**30, resource.RLIM_INFINITY))
        answers.write(json.dumps(run(case | {"usual": used[case["target"]]}, specimens, scratch)) + "\n")


if __name__ == "__main__":
    main()
