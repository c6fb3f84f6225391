"""Compiled programs are kept between processes; whatever is wrong with them costs time, not the run."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNUSABLE = r"Error (?:reading|writing) persistent compilation cache entry for '(.+?)'"
"""What JAX warns of a kept program; the name is the first part of the file's."""


def keep_compiled() -> None:
    """Has XLA keep compiled programs where ``JAX_COMPILATION_CACHE_DIR`` says, else in the user's cache."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipd" / "xla"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that cannot be written to
            return
        update: Callable[[str, object], None] = jax.config.update
        update("jax_compilation_cache_dir", str(cache))
        update("jax_persistent_cache_min_compile_time_secs", 0.1)
    _replace_damaged(Path(jax.config.values["jax_compilation_cache_dir"]))


@functools.cache  # a process that calls many commands has one layer, not one for each
def _replace_damaged(cache: Path) -> None:
    """Has JAX write a kept program anew that cannot be read.

    JAX writes it in place, so that a process killed meanwhile, or a full disk, leaves half of it; and never
    writes what is there already, so that each later process would warn of it and compile again.
    A warning tells the name alone: what is kept under it for other sizes goes too.
    """
    before = warnings.showwarning

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        found = re.match(UNUSABLE, str(message))
        if found is None:
            return before(message, *where, **more)
        for path in cache.glob(f"{glob.escape(found[1])}-*-cache"):
            with contextlib.suppress(OSError):  # another process may have been faster
                path.unlink()

    warnings.showwarning = show
