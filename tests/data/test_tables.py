"""CSV and Parquet: the same steps as from an array file, whatever their columns are called."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ipd.data import columns as data_columns
from ipd.data import delimited
from ipd.data.columns import Storage
from ipd.data.episodes import DataError, Episodes
from ipd.data.sources import load

Arrays = dict[str, np.ndarray[Any, Any]]
Columns = dict[str, list[Any]]
Write = Callable[..., str]
LENGTHS = (4, 3, 5)


@pytest.fixture
def table(arrays: Arrays) -> Columns:
    """The three episodes of ``arrays``, with next observations, flags, episodes and a clock."""
    named: Columns = {}
    for key, names in (("observations", ("speed", "angle", "height")), ("actions", ("left", "right"))):
        for name, values in zip(names, arrays[key].T, strict=True):
            named[("obs_" if key == "observations" else "act_") + name] = values.tolist()
    for name, values in zip(("speed", "angle", "height"), arrays["next_observations"].T, strict=True):
        named["next_obs_" + name] = values.tolist()
    named["reward"] = arrays["rewards"].tolist()
    named["terminated"], named["truncated"] = arrays["terminals"].tolist(), arrays["timeouts"].tolist()
    named["episode"] = np.repeat([7, 3, 9], LENGTHS).tolist()
    named["time"] = np.concatenate([0.1 * np.arange(length) for length in LENGTHS]).tolist()
    return named


def save(folder: Path, table: Columns, kind: str, rows_a_group: int = 5) -> str:
    path = folder / f"log.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
    else:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.table(table), path, row_group_size=rows_a_group)
    return str(path)


def refused(path: str, key: str | None, row: int | None, says: str, columns: str | None = None) -> None:
    with pytest.raises(DataError) as caught:
        load(path, columns=columns)
    assert (caught.value.key, caught.value.row) == (key, row), caught.value
    text = str(caught.value)
    assert says in text and "; " in text and "\n" not in text, text


@pytest.fixture
def full(arrays: Arrays, write: Write) -> Episodes:
    return load(write(arrays))


kinds = pytest.mark.parametrize("kind", ["csv", "parquet"])


@kinds
def test_inferred_columns_read_as_the_array_file_does(
    tmp_path: Path, table: Columns, full: Episodes, kind: str
) -> None:
    read = load(save(tmp_path, table | {"note": [1] * 12}, kind))
    assert read.digest == full.digest
    assert read.observation_names == ("speed", "angle", "height") and read.action_names == ("left", "right")
    assert read.times is not None and read.times[5] == 0.1 and read.times.dtype == np.float64
    assert read.columns is not None and read.columns["episode"] == "episode"
    assert read.columns["observations"] == ["obs_speed", "obs_angle", "obs_height"]
    assert read.columns["unused"] == ["note"]


@kinds
def test_a_map_names_any_columns(tmp_path: Path, table: Columns, full: Episodes, kind: str) -> None:
    other = {f"x {number}": values for number, values in enumerate(table.values())}
    path = save(tmp_path, other, kind)
    columns = {
        "observations": ["x 0", "x 1", "x 2"],
        "actions": ["x 3", "x 4"],
        "next_observations": ["x 5", "x 6", "x 7"],
        "reward": "x 8",
        "terminated": "x 9",
        "truncated": "x 10",
    }
    given = tmp_path / "map.yaml"
    given.write_text(yaml.safe_dump(columns))
    assert load(path, columns=given).digest == full.digest
    assert load(path, columns=str(given)).observation_names == ("x 0", "x 1", "x 2")
    Path(path + ".columns.yaml").write_text(given.read_text())
    assert load(path).digest == full.digest
    given.write_text(yaml.safe_dump(columns | {"observations": ["x 2", "x 1"], "next_observations": None}))
    assert load(path, columns=given).observation_size == 2  # the map given goes before the one beside


@kinds
@pytest.mark.parametrize("labels", [[7, 3, 9], ["b", "a", "c"]])
def test_a_change_of_episode_without_a_termination_is_a_truncation(
    tmp_path: Path, table: Columns, arrays: Arrays, write: Write, kind: str, labels: list[Any]
) -> None:
    del table["truncated"], table["time"]
    for name in ("next_obs_speed", "next_obs_angle", "next_obs_height"):
        del table[name]
    table["episode"] = [label for label, length in zip(labels, LENGTHS, strict=True) for _ in range(length)]
    read = load(save(tmp_path, table, kind))
    del arrays["next_observations"]
    assert read.digest == load(write(arrays)).digest
    assert np.flatnonzero(read.truncated).tolist() == [5, 9]


@kinds
def test_rows_out_of_order_are_refused(tmp_path: Path, table: Columns, kind: str) -> None:
    mixed = table | {"episode": [7, 7, 7, 7, 3, 3, 3, 9, 9, 7, 7, 7]}
    refused(save(tmp_path, mixed, kind), "episode", 9, "episode 7 goes on after")
    back = table | {"time": [0.0, 0.1, 0.05, 0.2, *table["time"][4:]]}
    refused(save(tmp_path, back, kind), "time", 2, "goes back")
    unmarked = {key: values for key, values in table.items() if key[:4] not in ("next", "epis", "trun")}
    refused(save(tmp_path, unmarked, kind), "time", 7, "goes back")  # a reset that nothing marks


@kinds
def test_empty_cells_and_text_are_refused_where_they_are(tmp_path: Path, table: Columns, kind: str) -> None:
    table["obs_angle"][6] = None
    with pytest.raises(DataError, match=r"row 6: dimension 1 \('angle'\) is nan"):
        load(save(tmp_path, table, kind))
    table["obs_angle"] = ["low"] * 12
    refused(save(tmp_path, table, kind), "obs_angle", 0 if kind == "csv" else None, "no")
    if kind == "csv":
        table["obs_angle"] = [0.5, "-1,25e3", *[0.5] * 10]
        refused(save(tmp_path, table, kind), "obs_angle", 1, "decimal comma")


@kinds
def test_columns_that_cannot_be_told_are_refused(tmp_path: Path, table: Columns, kind: str) -> None:
    for name, key in (("reward", "reward"), ("act_left", "actions"), ("next_obs_angle", "next_observations")):
        less = {k: v for k, v in table.items() if k != name and not (key == "actions" and k == "act_right")}
        refused(save(tmp_path, less, kind), key, None, "--columns")
    endless = {k: v for k, v in table.items() if k not in ("terminated", "episode")}
    refused(save(tmp_path, endless, kind), "terminated", None, "is missing")


def test_maps_that_do_not_fit_are_refused(tmp_path: Path, table: Columns) -> None:
    path, given = save(tmp_path, table, "csv"), tmp_path / "map.yaml"
    sound = {"observations": ["obs_speed"], "actions": ["act_left"], "reward": "reward", "episode": "episode"}
    for change, key, says in (
        ({"observations": ["obs_sped"]}, "obs_sped", "there are obs_speed"),
        ({"actions": ["obs_speed"]}, "obs_speed", "used twice"),
        ({"actions": []}, "actions", "no list"),
        ({"reward": 3}, "reward", "no column's name"),
        ({"rewards": "reward"}, "rewards", "unknown"),
        ({"reward": None}, "reward", "missing"),
        ({"next_observations": ["next_obs_speed", "next_obs_angle"]}, "next_observations", "2 dimensions"),
    ):
        given.write_text(yaml.safe_dump(sound | change))
        refused(path, key, None, says, str(given))
    laughs = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 10)}]\n" for i in range(10))
    for text in (
        "[",
        laughs + "observations: *a9",
        "reward: 2020-13-99",
        "[" * 50_000,
        "a: !!python/name:os.system",
    ):
        given.write_text(text)
        refused(path, None, None, "no map", str(given))
    refused(path, None, None, "no map", str(tmp_path / "absent.yaml"))


def test_a_hundred_thousand_columns_are_read_in_their_own_time(tmp_path: Path) -> None:
    names = [*(f"obs_{i}" for i in range(100_000)), "act_x", "reward", "terminated"]
    (tmp_path / "wide.csv").write_text("\n".join([",".join(names), *[",".join(["1"] * len(names))] * 2]))
    assert load(str(tmp_path / "wide.csv")).observation_size == 100_000


def test_rows_that_a_dictionary_packs_into_nothing_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = pa.table(dict.fromkeys(("obs_x", "act_x", "reward", "terminated"), np.zeros(2**21, np.int8)))
    with pq.ParquetWriter(tmp_path / "packed.parquet", rows.schema) as writer:
        for _ in range(20):
            writer.write_table(rows)
    refused(str(tmp_path / "packed.parquet"), "observations", None, "cannot hold")


def test_a_map_is_refused_for_what_is_no_table(arrays: Arrays, write: Write, tmp_path: Path) -> None:
    refused(write(arrays), None, None, "no table", str(tmp_path / "map.yaml"))


def test_numbered_columns_give_no_names(tmp_path: Path, table: Columns) -> None:
    renamed = {
        name.replace("speed", "0").replace("angle", "1").replace("height", "2"): values
        for name, values in table.items()
    }
    read = load(save(tmp_path, renamed, "csv"))
    assert read.observation_names == () and read.action_names == ("left", "right")


def test_csv_of_other_hands(tmp_path: Path, full: Episodes, table: Columns, monkeypatch: Any) -> None:
    monkeypatch.setattr(delimited, "BLOCK", 5)
    days = [f"2024-03-01T10:00:{second:02}" for second in range(12)]
    path = tmp_path / "log.csv"
    lines = [list(table), *map(list, zip(*(table | {"time": days}).values(), strict=True))]
    path.write_text("\ufeff" + "\n".join("; ".join(map(str, line)) for line in lines) + "\n\n", "utf-8")
    read = load(str(path))
    assert read.digest == full.digest and read.times is not None and np.ptp(read.times) == 11
    path.write_text(path.read_text().replace("105.0;", ""))
    refused(str(path), None, 5, "fields")
    path.write_text("")
    refused(str(path), None, None, "empty")
    path.write_text(";".join(table) + "\n")
    refused(str(path), "observations", None, "zero episodes")


@kinds
def test_large_tables_go_to_disk_in_pieces(
    tmp_path: Path, table: Columns, full: Episodes, kind: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(data_columns, "PIECE", 3)
    read = load(save(tmp_path, table, kind), storage=Storage(tmp_path, 5))
    assert read.disk == tmp_path and read.digest == full.digest


def test_parquet_reads_one_row_group_at_a_time(
    tmp_path: Path, table: Columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    taken: list[tuple[int, int]] = []
    real = pq.ParquetFile.read_row_group

    def counted(self: Any, index: int, **more: Any) -> Any:
        found = real(self, index, **more)
        taken.append((index, found.num_rows))
        return found

    path = save(tmp_path, table, "parquet")
    monkeypatch.setattr(data_columns, "PIECE", 2)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    load(path)
    assert {rows for _, rows in taken} == {5, 2}
    assert [index for index, _ in taken[:3]] == [0, 1, 2]  # pieces of 2 rows, yet each group once a column


def test_parquet_of_lists_nulls_and_dates(tmp_path: Path, arrays: Arrays, full: Episodes) -> None:
    pa = pytest.importorskip("pyarrow")
    clock = np.datetime64("2024-01-01", "ms") + 50 * np.arange(12)
    table: dict[str, Any] = {
        "observation": arrays["observations"].tolist(),
        "action": pa.FixedSizeListArray.from_arrays(pa.array(arrays["actions"].ravel()), 2),
        "next_observation": arrays["next_observations"].tolist(),
        "reward": arrays["rewards"],
        "done": arrays["terminals"],
        "timeout": arrays["timeouts"],
        "timestamp": clock,
    }
    read = load(save(tmp_path, table, "parquet"))
    assert read.digest == full.digest and read.observation_names == ()
    assert read.times is not None and np.allclose(np.diff(read.times), 0.05)
    table["observation"][7] = [1.0]
    refused(save(tmp_path, table, "parquet"), "observation", 7, "another length")


def test_a_missing_pyarrow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "log.parquet").write_bytes(b"PAR1")
    refused(str(tmp_path / "log.parquet"), None, None, "pip install 'ipd[data]'")


def test_arrays_in_python_are_cut_and_refused_alike(arrays: Arrays, full: Episodes) -> None:
    given = [arrays[key] for key in ("observations", "actions", "rewards", "terminals", "timeouts")]
    made = Episodes.from_arrays(*given, arrays["next_observations"], action_names=["left", "right"])
    assert made.digest == full.digest and made.action_names == ("left", "right")
    assert Episodes.from_arrays(*given).starts.tolist() == [0, 4, 6, 10]
    for place, key, value in ((2, "rewards", np.nan), (3, "terminated", 0.5), (4, "truncated", 2)):
        wrong = [array.astype(float) for array in given]
        wrong[place][5] = value
        with pytest.raises(DataError) as caught:
            Episodes.from_arrays(*wrong)
        assert (caught.value.key, caught.value.row) == (key, 5)
    with pytest.raises(DataError, match=r"rewards.*is no array"):
        Episodes.from_arrays(*given[:2], [[0.0] * (i % 3) for i in range(12)], *given[3:])
    with pytest.raises(DataError, match="does not fit into memory"):
        Episodes.from_arrays(np.broadcast_to(np.float32(0), (12, 2**45)), *given[1:])
    with pytest.raises(DataError, match="3 dimensions and 1 names"):
        Episodes.from_arrays(*given, observation_names=["speed"])


def test_the_page_tells_the_truth(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "own-logs.md").read_text()
    text, mapped = (page.split(f"```{kind}\n")[1].split("```")[0] for kind in ("csv", "yaml"))
    path = tmp_path / "log.csv"
    path.write_text(text)
    read = load(str(path))
    assert read.observation_names == ("speed", "angle") and read.action_names == ("torque",)
    names = ("v_mps", "tilt_rad", "torque_nm", "score", "fell_over", "run_id", "stamp")
    path.write_text("\n".join([",".join(names) + ",cut", *(f"{row},0" for row in text.split()[1:])]))
    (tmp_path / "log.csv.columns.yaml").write_text(mapped)
    assert load(str(path)).digest == read.digest
