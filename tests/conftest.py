"""Strictness for every test, and what several of them share.

Shapes in annotations are checked (jaxtyping with beartype), rank promotion raises, warnings are
errors (pyproject.toml), and a full run must have met every committed test count.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

# One thread a worker, and compilation that costs as little as can be: most programs run for milliseconds.
# The older emitters of fused operations halve it. These act only when set before JAX starts.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one process has compiled serves the others; the user's own cache is left alone.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parent.parent
COUNTS = ROOT / "tests" / "expected_counts.json"

jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook("ipd", "beartype.beartype")

if TYPE_CHECKING:
    from ipd.types import Steps

_ran: Counter[str] = Counter()


def _folder(nodeid: str) -> str:
    return str(Path(nodeid.split("::")[0]).parent)


def _missing(config: pytest.Config) -> list[str]:
    """Folders with fewer tests than committed, on a run of everything; else nothing."""
    everything = config.args_source == pytest.Config.ArgsSource.TESTPATHS
    if not everything or config.option.keyword or config.option.markexpr or config.option.collectonly:
        return []
    expected = json.loads(COUNTS.read_text())
    return [
        f"{name}: {_ran[name]} tests, {count} expected"
        for name, count in expected.items()
        if _ran[name] < count
    ]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "setup":
        _ran[_folder(report.nodeid)] += 1


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if (
        not hasattr(session.config, "workerinput")
        and exitstatus == pytest.ExitCode.OK
        and _missing(session.config)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    missing = _missing(config)
    for line in missing:
        terminalreporter.write_line(f"ERROR too few tests ran in {line} ({COUNTS.name})", red=True)
    if not missing:
        terminalreporter.write_line("tests per folder: " + json.dumps(dict(sorted(_ran.items()))))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the full data sets; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("IPD_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the full data sets are not on this machine")
    return folder


@pytest.fixture(scope="session")
def small_steps() -> Steps:
    """97 steps of 5 observation and 3 action dimensions with a learnable linear rule, float32.

    Every size differs from every other, so that a swapped axis cannot pass.
    """
    from ipd.types import Steps

    random = np.random.default_rng(0)
    observations = random.normal(size=(97, 5)).astype(np.float32)
    actions = np.tanh(random.normal(size=(97, 3))).astype(np.float32)
    change = 0.3 * actions @ random.normal(size=(3, 5)) - 0.1 * observations
    rewards = actions[:, 0] - 0.5 * observations[:, 1]
    return Steps(
        observations=observations,
        actions=actions,
        rewards=rewards.astype(np.float32),
        next_observations=(observations + change).astype(np.float32),
        terminated=(random.random(97) < 0.1).astype(np.float32),
    )
