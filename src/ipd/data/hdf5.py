"""What may be read of an HDF5 file: arrays that lie in the file itself, in chunks that it can hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ipd.data.assembly import require_size
from ipd.data.errors import DataError


def member(group: Any, name: str, source: str) -> Any:
    """The array or group `name`, a path, of an open file or group.

    Raises DataError where it is missing, or its values are elsewhere: behind a soft or external link, in
    external storage, or in a virtual dataset, whose files could be any on the machine.
    """
    import h5py

    def refused(message: str, cure: str = "copy the data itself into the file") -> DataError:
        return DataError(message, file=source, key=f"{group.name}/{name}".strip("/"), cure=cure)

    node = group
    for part in name.split("/"):
        if not isinstance(node, h5py.Group) or part not in node:
            raise refused("is missing", "the file is damaged, or of another kind; fetch it again")
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise refused("is a link to elsewhere")
        node = node[part]
    if isinstance(node, h5py.Dataset):
        if node.is_virtual or node.external:
            raise refused("keeps its values in another file")
        # A chunk is unpacked whole, so its declared size counts too.
        chunk = node.chunks or (1,)
        stored = Path(node.file.filename).stat().st_size
        require_size(stored, math.prod(chunk) * node.dtype.itemsize, chunk, source, name)
    return node


def require_own(file: Any, source: str) -> None:
    """Raises DataError where `member` would, for anything in an open file."""
    names: list[str] = []
    file.visititems_links(lambda name, link: names.append(name))  # of an array once, though it has more names
    for name in names:
        member(file, name, source)


def array(group: Any, name: str, source: str) -> Any:
    """As `member`, of what must be an array."""
    import h5py

    node = member(group, name, source)
    if not isinstance(node, h5py.Dataset):
        cure = "store an array under this name"
        raise DataError("is not an array", file=source, key=f"{group.name}/{name}".strip("/"), cure=cure)
    return node
