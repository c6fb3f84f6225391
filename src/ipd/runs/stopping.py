"""Leaving in good order when the machine is taken away: on SIGTERM a run saves and ends with exit 0."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

GRACE = 3.5
"""Seconds that a run has to save before it is left where its files are, which is a good place at any time."""

SAID = "stopped (SIGTERM)"
"""In the last line of a command that was; it ends with 0, and has not done all that it was asked for."""

_asked = threading.Event()


class Stopped(BaseException):
    """The run was asked to stop and has saved; not an `Exception`, so that nothing takes it for a failure."""


def check() -> None:
    """Raises `Stopped` where a stop was asked for; called where all that was done is saved."""
    if asked():
        raise Stopped


def asked() -> bool:
    """Whether a stop was asked for."""
    return _asked.is_set()


@contextlib.contextmanager
def on_sigterm(say: Callable[[], None], grace: float = GRACE) -> Iterator[None]:
    """While it lasts, SIGTERM asks for a stop; `grace` seconds later the process says so and ends anyhow.

    The main thread may be inside one long call of the device, where Python hears no signal. A thread hears
    it at once instead, from a socket that the interpreter's own handler writes to. For the main thread only.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    over = threading.Event()

    def wait() -> None:
        while not over.is_set():
            if signal.SIGTERM in heard.recv(64):
                _asked.set()
                if not over.wait(grace):
                    say()
                    sys.stderr.flush()
                    os._exit(0)

    watcher = threading.Thread(target=wait, name="ipd-sigterm", daemon=True)
    watcher.start()
    before = signal.signal(signal.SIGTERM, lambda *_: _asked.set())
    fd = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(fd)
        signal.signal(signal.SIGTERM, before)
        told.send(b"\0")
        watcher.join()
        heard.close()
        told.close()
        _asked.clear()
