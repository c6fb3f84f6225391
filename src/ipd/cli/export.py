"""`ipd export`: a run's finished policy as files that act without the package."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse, say


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a finished policy, its contract and a runner into a folder; nothing is trained."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    format: Literal["onnx", "stablehlo", "safetensors"] = "onnx"
    """ONNX (onnxruntime), serialised StableHLO (JAX; of every algorithm), or named arrays (NumPy)."""
    seed: int | None = None
    """One of the run's seeds; without it the first."""
    policy: str | None = None
    """A yardstick of a run of ipd instead: quasi_optimal, quasi_optimal_refitted or cloning."""
    to: Path | None = None
    """Folder to make; without it RUN/export/FORMAT-seed-N."""
    limit_low: tuple[float, ...] = ()
    """No action goes below: one number for each dimension, or one for all; logged units."""
    limit_high: tuple[float, ...] = ()
    """No action goes above."""
    rate_limit: tuple[float, ...] = ()
    """No action differs by more from the one before."""
    on_bad_observation: Literal["refuse", "hold", "clip"] = "refuse"
    """What an observation that is not finite or out of range leads to: an error, the last action again, or
    the action for the nearest one in range."""
    margin: float = 0.5
    """How far beyond the range that the data had is still in range, as a share of its width."""


def main(argv: list[str]) -> int:
    """Parses, exports, says where and how exactly."""
    options = parse(Export, argv, "export")
    keep_compiled()
    from ipd.export.write import Limits, export

    limits = Limits(options.limit_low, options.limit_high, options.rate_limit)
    folder, difference = export(
        options.run,
        options.format,
        options.seed,
        options.to,
        options.policy,
        limits,
        options.on_bad_observation,
        options.margin,
    )
    off = f"actions at most {difference:.1g} of half their range from the run's"
    say(f"{folder}: policy.{options.format}, contract.json, runner.py; {off}")
    return 0
