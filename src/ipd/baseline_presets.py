"""Sizes of the baselines in the named configurations; `ipd.presets` puts them together."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        # cql, rebrac, mobile
        # dt, qdt
        # edt, reinformer
        # qt
        # dd
    },
    "cpu": {
        # cql, rebrac, mobile
        # dt, qdt
        # edt, reinformer
        # qt
        # dd
    },
    "demo": {
        # cql, rebrac, mobile
        # dt, qdt
        # edt, reinformer
        # qt
        # dd
    },
    "tiny": {
        # cql, rebrac, mobile
        # dt, qdt
        # edt, reinformer
        # qt
        # dd
    },
}
