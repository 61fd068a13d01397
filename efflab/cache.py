"""Results kept in `data/cache/`: what every notebook would otherwise make of the library anew.

A file's name holds a hash of all that its content depends on, so that nothing stale is ever read;
a folder that cannot be written costs time and nothing else.
"""

import hashlib
import io
import json
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from efflab.files import write_atomically


def kept(folder: Path, name: str, sources: Iterable[Path], make: Callable[[], object]):
    """`make()`, or what it gave before under the same Python, library and `sources` files.

    An int array of values below 65,536 is kept as `.npy`, all else (lists, dicts, texts) as JSON.
    """
    stem = f"{name}-{sys.version_info.major}.{sys.version_info.minor}-"
    path = folder / f"{stem}{key(sources)}"
    try:
        return _read(path)
    except (OSError, ValueError, EOFError):  # not there, or damaged
        value = make()
    try:
        _write(path, value)
        for old in folder.glob(f"{stem}*"):
            if old.name != path.name and old.suffix != ".part":
                old.unlink(missing_ok=True)
    except OSError:  # a folder that is read-only, or full
        pass
    return value


def key(sources: Iterable[Path]) -> str:
    """Hash of this Python's build, its library's place and the files' content."""
    h = hashlib.sha256(f"{sys.version}|{sysconfig.get_paths()['stdlib']}".encode())
    for source in sources:
        h.update(Path(source).read_bytes())
    return h.hexdigest()[:16]


def _read(path: Path):
    with path.open("rb") as file:
        if file.read(1) == b"\x93":  # the first byte of every .npy file
            file.seek(0)
            return np.load(file, allow_pickle=False).astype(np.int64)
        file.seek(0)
        return json.load(file)


def _write(path: Path, value) -> None:
    if isinstance(value, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, value.astype(np.uint16), allow_pickle=False)
        write_atomically(path, buffer.getvalue())
    else:
        write_atomically(path, json.dumps(value))
