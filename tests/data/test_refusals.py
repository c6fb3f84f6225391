"""Every refusal is one line that names file, key and row, and says what would mend it."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipd.data.episodes import DataError
from ipd.data.sources import load

Arrays = dict[str, np.ndarray[Any, Any]]
Write = Callable[..., str]


def refused(path: str, key: str | None = None, row: int | None = None, says: str = "") -> None:
    with pytest.raises(DataError) as caught:
        load(path)
    text = str(caught.value)
    assert (caught.value.file, caught.value.key, caught.value.row) == (path, key, row)
    assert text.startswith(path) and "\n" not in text and ("; " in text) and says in text
    assert key is None or f"'{key}'" in text
    assert row is None or f"row {row}" in text


@pytest.mark.parametrize("name", ["data.hdf5", "data.npz"])
@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_missing_key(arrays: Arrays, write: Write, key: str, name: str) -> None:
    del arrays[key]
    refused(write(arrays, name), key, says="missing")


@pytest.mark.parametrize("name", ["data.hdf5", "data.npz"])
@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "next_observations"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(arrays: Arrays, write: Write, key: str, value: float, name: str) -> None:
    arrays[key][5, ...] = value
    arrays[key][8, ...] = value
    refused(write(arrays, name), key, 5, says="2 rows of 12")


def test_too_large_for_float32_is_not_finite(arrays: Arrays, write: Write) -> None:
    arrays["rewards"] = arrays["rewards"].astype(np.float64)
    arrays["rewards"][7] = 1e300
    refused(write(arrays), "rewards", 7, says="1e+300")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("observations", (12,)),
        ("observations", (11, 3)),
        ("actions", (12, 2, 1)),
        ("rewards", (12, 1)),
        ("rewards", ()),
        ("terminals", (13,)),
        ("timeouts", (12, 1)),
        ("next_observations", (11, 3)),
        ("next_observations", (12, 4)),
        ("final_observations", (2, 3)),
    ],
)
def test_wrong_shape(arrays: Arrays, write: Write, key: str, shape: tuple[int, ...]) -> None:
    if key == "final_observations":
        del arrays["next_observations"]
    arrays[key] = np.zeros(shape, np.float32)
    with pytest.raises(DataError, match=r"shape|dimensions|rows for"):
        load(write(arrays))


@pytest.mark.parametrize("name", ["data.hdf5", "data.npz"])
def test_zero_episodes(arrays: Arrays, write: Write, name: str) -> None:
    refused(
        write({key: array[:0] for key, array in arrays.items()}, name), "observations", says="zero episodes"
    )


def test_only_one_step_and_no_next_observation(arrays: Arrays, write: Write) -> None:
    del arrays["next_observations"]
    refused(write({key: array[:1] for key, array in arrays.items()}), says="zero episodes")


@pytest.mark.parametrize("lengths", [[4, 3, 4], [4, 0, 8], [-1, 13], [6.0, 6.0], [2**63 - 1, 2**63 - 1, 14]])
def test_lengths_that_do_not_add_up(arrays: Arrays, write: Write, lengths: list[float]) -> None:
    arrays["lengths"] = np.array(lengths)
    refused(write(arrays, "data.npz"), "lengths", says="12 rows")


def test_flags_other_than_0_and_1(arrays: Arrays, write: Write) -> None:
    arrays["timeouts"] = np.arange(12) // 6 * 0.5
    refused(write(arrays), "timeouts", 6, says="0.5")


def test_text_and_objects_are_refused_unread(arrays: Arrays, write: Write) -> None:
    arrays["actions"] = np.full((12, 2), b"left")
    refused(write(arrays), "actions", says="not numbers")
    arrays["actions"] = np.full((12, 2), {"a": 1}, dtype=object)
    refused(write(arrays, "data.npz"), "actions", says="not numbers")


@pytest.mark.parametrize("name", ["data.hdf5", "data.npz"])
def test_truncated_at_any_place(arrays: Arrays, write: Write, name: str) -> None:
    path = Path(write(arrays, name))
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(str(path), says="damaged")


def test_truncated_bundle(tmp_path: Path) -> None:
    import ipd.data

    whole = (Path(ipd.data.__file__).parent / "bundled" / "hopper-medium-replay.hdf5").read_bytes()
    path = tmp_path / "half.hdf5"
    path.write_bytes(whole[: len(whole) // 2])
    refused(str(path), says="damaged")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_flipped_byte_reads_or_is_refused(arrays: Arrays, write: Write, place: float, value: int) -> None:
    path = Path(write(arrays, "data.npz"))
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = value
    path.write_bytes(bytes(content))
    try:
        load(str(path))
    except DataError as error:
        assert "\n" not in str(error) and error.file == str(path)


def test_not_a_file_and_unknown_kinds(tmp_path: Path) -> None:
    refused(str(tmp_path / "absent.hdf5"), says="no such file")
    refused(str(tmp_path), says="no such file")
    (tmp_path / "data.pkl").write_bytes(b"")
    refused(str(tmp_path / "data.pkl"), says="unknown kind")


def test_absurd_shapes_are_refused_unread(arrays: Arrays, write: Write, tmp_path: Path) -> None:
    del arrays["observations"]
    path = write(arrays)
    with h5py.File(path, "a") as file:  # nothing of this is ever allocated in the file
        file.create_dataset("observations", (2**40, 2**10), "f4", chunks=(2**10, 2**4))
    refused(path, "observations", says="cannot hold")

    header = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**10)}
    path = str(tmp_path / "huge.npz")
    with zipfile.ZipFile(path, "w") as archive, archive.open("observations.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
    with zipfile.ZipFile(path, "a") as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    refused(path, "observations", says="cannot hold")


def test_a_header_that_is_no_python_is_refused(arrays: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = members["observations.npy"]
    assert b"), }" in header
    members["observations.npy"] = header.replace(b"), }", b" , }")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refused(str(path), says="cannot be read")


def test_a_chunk_larger_than_the_file_is_refused(arrays: Arrays, write: Write) -> None:
    del arrays["rewards"]
    path = write(arrays)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (12,), "f4", maxshape=(None,), chunks=(2**29,), compression="gzip")
    refused(path, "rewards", says="cannot hold")


def test_zeros_that_would_unpack_to_gigabytes_are_refused(
    arrays: Arrays, write: Write, tmp_path: Path
) -> None:
    path = write({"rewards": arrays["rewards"]})
    with h5py.File(path, "w") as file:  # each array alone might be there, packed as no data are
        for key, width in {"observations": 2, "actions": 1, "rewards": 0, "terminals": 0}.items():
            shape = (10**8, width) if width else (10**8,)
            file.create_dataset(key, shape, "i1", chunks=(1_000, width) if width else (1_000,))
    refused(path, "observations", says="cannot hold")
    with (
        zipfile.ZipFile(tmp_path / "long.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("observations.npy", "w") as member,
    ):  # a header of so many bytes
        member.write(b"\x93NUMPY\x02\x00" + (2**30).to_bytes(4, "little"))
        for _ in range(9):
            member.write(b" " * 2**26)
    refused(str(tmp_path / "long.npz"), "observations", says="cannot hold")


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("data.hdf5", "data.npz", "data.csv", "data.parquet"):
        os.mkfifo(tmp_path / name)
        refused(str(tmp_path / name), says="no plain file")


def test_a_message_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / ("a\x1b[2Jb\n\u202ec" + "x" * 10_000)))
    assert (
        str(caught.value).isprintable()
        and "a\\x1b[2Jb" in str(caught.value)
        and len(str(caught.value)) < 1_100
    )


def test_damage_inside_a_packed_member(arrays: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    whole = path.read_bytes()
    for at in range(60, 400, 20):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with contextlib.suppress(DataError):
            load(str(path))


def test_data_kept_elsewhere_are_refused(arrays: Arrays, write: Write, tmp_path: Path) -> None:
    rewards = arrays.pop("rewards")
    other = str(tmp_path / "other.hdf5")
    with h5py.File(other, "w") as file:
        file["rewards"] = rewards
    path = write(arrays)

    def with_rewards(link: Callable[[h5py.File], None]) -> None:
        with h5py.File(path, "a") as file:
            if file.id.links.exists(b"rewards"):
                del file["rewards"]
            link(file)

    def external_link(file: h5py.File) -> None:
        file["rewards"] = h5py.ExternalLink(other, "/rewards")

    def broken_link(file: h5py.File) -> None:
        file["rewards"] = h5py.ExternalLink(str(tmp_path / "absent.hdf5"), "/rewards")

    def soft_link(file: h5py.File) -> None:
        file["rewards"] = h5py.SoftLink("/actions")

    def external_storage(file: h5py.File) -> None:
        file.create_dataset("rewards", (12,), "f4", external=[(str(tmp_path / "raw"), 0, 48)])

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((12,), "f4")
        layout[:] = h5py.VirtualSource(other, "rewards", (12,))
        file.create_virtual_dataset("rewards", layout)

    def group(file: h5py.File) -> None:
        file.create_group("rewards")

    for link, says in (
        (external_link, "link"),
        (broken_link, "link"),
        (soft_link, "link"),
        (external_storage, "another file"),
        (virtual, "another file"),
        (group, "not an array"),
    ):
        with_rewards(link)
        refused(path, "rewards", says=says)
