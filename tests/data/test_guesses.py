"""What a table's names and times may be is told or refused, never guessed at in silence."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from ipd.data.columnmap import infer, shortened
from ipd.data.episodes import DataError
from ipd.data.sources import load

REST = ("reward", "terminated")


@pytest.mark.parametrize(
    ("present", "key", "says"),
    [
        (["obs_x", "a_x", "a_y", "action"], "actions", "may be action or a_x, a_y;"),
        (["observation", "state_id", "act_u"], "observations", "may be observation or state_id;"),
        (["obs_x", "state_y", "s_z", "act_u"], "observations", "may be obs_x or state_y or s_z;"),
        (["state", "obs", "act_u"], "observations", "may be obs or state;"),
        (["obs_x", "act_u", "next_obs_x", "next_state"], "next_observations", "next_state or next_obs_x;"),
    ],
)
def test_two_things_that_a_key_may_be_are_refused(present: list[str], key: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        infer([*present, *REST], "log.csv")
    assert caught.value.key == key and says in str(caught.value) and "--columns" in str(caught.value)


def test_a_whole_name_is_found_and_names_no_dimension() -> None:
    columns, names = infer(["action", "state", *REST], "log.csv")
    assert (columns.observations, columns.actions) == (("state",), ("action",)) and names == ([], [])


def test_a_map_says_which(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("obs_x,a_x,action,reward,terminated\n" + "1,2,3,4,0\n" * 3)
    given = {"observations": ["obs_x"], "actions": ["action"], "reward": "reward", "terminated": "terminated"}
    Path(f"{path}.columns.yaml").write_text(yaml.safe_dump(given))
    assert load(str(path)).columns == {**given, "unused": ["a_x"]}


def test_many_columns_are_said_in_few_words() -> None:
    assert shortened(["a", "b"]) == "a, b"
    assert shortened([f"q{number}" for number in range(40)]) == "q0, q1, q2, q3, ..., q39 (40)"


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("zone", ["", "Z", "+02:00"])
def test_times_without_a_zone_are_the_same_on_every_machine(tmp_path: Path, berlin: None, zone: str) -> None:
    first = datetime(2024, 3, 31, 1, 30)  # the clocks of Berlin leave out the hour from 2
    rows = [f"{row},0,1,0,{(first + timedelta(minutes=20 * row)).isoformat()}{zone}" for row in range(6)]
    (tmp_path / "log.csv").write_text("\n".join(["obs_x,act_u,reward,terminated,time", *rows]))
    times = load(str(tmp_path / "log.csv")).times
    assert times is not None and (np.diff(times) == 1200).all()
    assert times[0] == first.replace(tzinfo=UTC).timestamp() - (7200 if "+" in zone else 0)


@pytest.mark.parametrize(
    ("kind", "unit"),
    [*itertools.product(["datetime64", "timedelta64"], ["s", "ms", "us", "ns"]), ("datetime64", "D")],
)
def test_parquet_keeps_times_of_every_unit(tmp_path: Path, kind: str, unit: str) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    ticks = 1_700_000_000_050_000_123 if unit == "ns" else 1_700
    times = (ticks + 20_001 * np.arange(5)).astype(f"{kind}[{unit}]")
    table = {"obs_x": np.arange(5.0), "act_u": np.zeros(5), "reward": np.ones(5), "terminated": np.zeros(5)}
    pq.write_table(pa.table({**table, "time": pa.array(times)}), tmp_path / "log.parquet", version="2.6")
    read = load(str(tmp_path / "log.parquet")).times
    size = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "D": 86400.0}[unit]
    assert read is not None and np.allclose(np.diff(read), 20_001 * size, rtol=0.02)
    assert read[0] == pytest.approx(ticks * size, rel=1e-12)
