"""Sizes of the baselines in the named configurations; `ipd.presets` puts them together."""

from __future__ import annotations

from typing import Any


def _each(algorithms: tuple[str, ...], **values: Any) -> dict[str, Any]:
    """The same settings for several algorithms."""
    return {f"{name}.{field}": value for name in algorithms for field, value in values.items()}


PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        # cql, rebrac, mobile
        **_each(("cql", "rebrac", "mobile"), steps=200_000),
        # dt, qdt
        **_each(("dt", "qdt"), steps=20_000, learning_rate=3e-4, warmup_steps=2_000),
        # edt, reinformer
        **_each(("edt", "reinformer"), steps=10_000, learning_rate=3e-4, warmup_steps=1_000),
        "reinformer.learning_rate": 1e-3,
        # qt
        "qt.steps": 20_000,
        # averages, embeddings and the bound are those of `cpu`, where they were measured
        **_each(("dt", "qdt", "edt", "reinformer", "qt"), average=0.999),
        **_each(("dt", "qdt", "edt"), time="window"),
        "reinformer.bounded": True,
        # dd
        **_each(("dd",), steps=100_000, width=64, multipliers=(1, 2, 4), horizon=32),
        **_each(("dd",), predicts="velocity", sampling_steps=20, guidance=2.0),
    },
    "cpu": {
        # cql, rebrac, mobile
        **_each(("cql", "rebrac", "mobile"), steps=20_000, hidden=(128, 128), polyak=0.01),
        **_each(("cql", "mobile"), batch_size=128, actor_learning_rate=1e-3, critic_learning_rate=1e-3),
        "rebrac.steps": 30_000,
        "rebrac.batch_size": 256,
        "cql.steps": 40_000,
        "cql.num_actions": 4,
        # targets move at every second update of rebrac, and mobile has few updates
        **_each(("rebrac", "mobile"), polyak=0.02),
        "mobile.steps": 15_000,
        # dt, qdt, edt, reinformer, qt act with averaged weights, as ipd does: learning rates are large
        **_each(("dt", "qdt", "edt", "reinformer", "qt"), average=0.998),
        # dt, qdt
        **_each(
            ("dt", "qdt"), steps=3_000, learning_rate=1e-3, warmup_steps=500, layers=2, heads=2, width=64
        ),
        **_each(("dt", "qdt", "edt"), time="window"),
        # edt, reinformer
        **_each(("edt", "reinformer"), batch_size=64, layers=2, heads=2, width=64),
        **_each(("edt", "reinformer"), learning_rate=1e-3, warmup_steps=500),
        "edt.steps": 6_000,
        "edt.search_stride": 4,
        "reinformer.steps": 15_000,
        "reinformer.bounded": True,
        "reinformer.learning_rate": 3e-3,
        # qt
        "qt.steps": 12_000,
        "qt.polyak": 0.01,
        "qt.clip_norm": 9.0,
        "qt.batch_size": 128,
        "qt.learning_rate": 1e-3,
        "qt.critic_learning_rate": 1e-3,
        "qt.layers": 2,
        "qt.heads": 2,
        "qt.width": 64,
        "qt.context_len": 5,
        "qt.hidden": (128, 128),
        # dd
        **_each(("dd",), steps=20_000, learning_rate=5e-4, width=32, multipliers=(1, 2), horizon=20),
        **_each(("dd",), predicts="velocity", sampling_steps=5, guidance=3.0, average=0.998),
        "dd.inverse_hidden": (128, 128),
    },
    "demo": {
        # cql, rebrac, mobile
        **_each(("cql", "rebrac", "mobile"), steps=3_000, hidden=(256, 256), batch_size=128, polyak=0.02),
        **_each(("cql", "rebrac", "mobile"), actor_learning_rate=1e-3, critic_learning_rate=1e-3),
        "cql.num_actions": 2,
        "mobile.num_samples": 2,
        # dt, qdt
        **_each(
            ("dt", "qdt"), steps=1_000, learning_rate=1e-3, warmup_steps=200, layers=2, heads=2, width=64
        ),
        # edt, reinformer
        **_each(("edt", "reinformer"), steps=1_000, batch_size=64, layers=2, heads=2, width=64),
        **_each(("edt", "reinformer"), learning_rate=1e-3, warmup_steps=200),
        "edt.search_stride": 8,
        "reinformer.learning_rate": 3e-3,
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
        **_each(("dd",), steps=3_000, batch_size=32, learning_rate=1e-3, width=16, multipliers=(1, 2)),
        **_each(("dd",), horizon=16, predicts="velocity", sampling_steps=5, guidance=3.0),
        "dd.inverse_hidden": (128, 128),
    },
    "tiny": {
        # cql, rebrac, mobile
        **_each(("cql", "rebrac", "mobile"), steps=60, batch_size=16, hidden=(16, 16)),
        "cql.num_actions": 2,
        "mobile.num_samples": 2,
        # dt, qdt
        **_each(
            ("dt", "qdt"),
            steps=60,
            batch_size=8,
            learning_rate=1e-3,
            warmup_steps=10,
            layers=1,
            heads=2,
            width=16,
            context_len=5,
        ),
        # edt, reinformer
        **_each(("edt", "reinformer"), steps=60, batch_size=8, layers=1, heads=2, width=16),
        **_each(("edt", "reinformer"), learning_rate=1e-3, warmup_steps=10, context_len=5),
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
        **_each(("dd",), steps=60, batch_size=8, width=8, multipliers=(1, 2), horizon=4),
        **_each(("dd",), predicts="velocity", diffusion_steps=10, sampling_steps=3, inverse_hidden=(16,)),
    },
}
