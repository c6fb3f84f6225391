"""A process that may not leave itself."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

EVENTS = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"}
_refusing: list[str] = []
"""Not empty while nothing may connect: an audit hook cannot be taken back."""


def _refuse(event: str, details: tuple[Any, ...]) -> None:
    if _refusing and event in EVENTS:
        raise AssertionError(f"{event} {details[1:] if event in _OF_A_SOCKET else details}")


_OF_A_SOCKET = {"socket.connect", "socket.sendto", "socket.bind"}
sys.addaudithook(_refuse)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """An AssertionError wherever Python code of this process looks up a host, connects or listens.

    Neither child processes nor libraries that open sockets in C are seen.
    """
    _refusing.append("offline")
    try:
        yield
    finally:
        _refusing.pop()
