"""Sizes of the baselines in the named configurations; `ipd.presets` puts them together."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        # cql, rebrac, mobile
        # dt, qdt
        # edt, reinformer
        # qt
        "qt.steps": 20_000,
        # dd
    },
    "cpu": {
        # cql, rebrac, mobile
        # dt, qdt
        # edt, reinformer
        # qt
        "qt.steps": 6_000,
        "qt.batch_size": 128,
        "qt.learning_rate": 1e-3,
        "qt.critic_learning_rate": 1e-3,
        "qt.layers": 2,
        "qt.heads": 2,
        "qt.width": 64,
        "qt.context_len": 5,
        "qt.hidden": (256, 256),
        # dd
    },
    "demo": {
        # cql, rebrac, mobile
        # dt, qdt
        # edt, reinformer
        # qt
        "qt.steps": 1_500,
        "qt.batch_size": 64,
        "qt.learning_rate": 1e-3,
        "qt.critic_learning_rate": 1e-3,
        "qt.polyak": 0.02,
        "qt.layers": 2,
        "qt.heads": 2,
        "qt.width": 64,
        "qt.context_len": 5,
        "qt.hidden": (256, 256),
        "qt.target_average_start": 200,
        # dd
    },
    "tiny": {
        # cql, rebrac, mobile
        # dt, qdt
        # edt, reinformer
        # qt
        "qt.steps": 60,
        "qt.batch_size": 8,
        "qt.layers": 1,
        "qt.heads": 2,
        "qt.width": 16,
        "qt.context_len": 5,
        "qt.hidden": (16, 16),
        "qt.target_average_start": 20,
        # dd
    },
}
