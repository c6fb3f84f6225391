"""What a run says of its data."""

from __future__ import annotations

from typing import Any

import numpy as np

from ipd.data.checks import check
from ipd.data.episodes import Episodes
from ipd.runs.progress import Progress


def summary(episodes: Episodes) -> dict[str, Any]:
    """What the page says of the data (docs/architecture.md); returns in logged units."""
    returns, lengths = episodes.returns, episodes.lengths
    best = np.sort(returns)[-max(1, round(0.1 * len(returns))) :]
    return {
        "source": episodes.source,
        "task": episodes.task,
        "digest": episodes.digest,
        "episodes": episodes.num_episodes,
        "steps": episodes.num_steps,
        "observation_size": episodes.observation_size,
        "action_size": episodes.action_size,
        "return": {
            "mean": float(returns.mean()),
            "std": float(returns.std()),
            "min": float(returns.min()),
            "max": float(returns.max()),
            "quantiles": {str(q): float(np.quantile(returns, q / 100)) for q in (5, 25, 50, 75, 95)},
            "best_decile": float(best.mean()),
        },
        "returns": returns.tolist(),
        "lengths": lengths.tolist(),
        "terminated": int(episodes.terminated.sum()),
        "truncated": int(episodes.truncated.sum()),
    }


def doubts(episodes: Episodes, progress: Progress) -> dict[str, Any]:
    """What `ipd data check` holds for a mistake, said and for the page; a set on disk is not read for it."""
    if episodes.disk is not None:
        progress.say("data: too many steps to be looked through here; `ipd data check` does it")
        return {}
    found = [finding for finding in check(episodes) if finding.severity != "note"]
    for finding in found:
        progress.say(f"data: {finding.severity}, {finding.where}: {finding.message}; {finding.cure}")
    told = [{"what": f"{finding.where}: {finding.message}", "cure": finding.cure} for finding in found]
    return {"warnings": told} if told else {}
