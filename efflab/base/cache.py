"""Caches in `data/cache/` what every notebook would otherwise compute from the library again.

A file's name holds a hash of all that its content depends on, so that nothing stale is ever read.
If the folder cannot be written, the value is computed each time.
"""

import hashlib
import io
import json
import sys
import sysconfig
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from efflab.base.files import write_atomically
from efflab.base.json_files import parse_json


def get_or_make(folder: Path, name: str, sources: Iterable[Path], make: Callable[[], object]):
    """`make()`, or its cached result for the same Python, library and `sources` files.

    An integer array is stored as `.npy`, all else (lists, dicts, texts) as `.json`.
    """
    prefix = f"{name}-{sys.version_info.major}.{sys.version_info.minor}-"
    stem = f"{prefix}{key(sources)}"
    for suffix, read in READERS.items():
        with suppress(OSError, ValueError, EOFError):  # not there, or damaged
            return read(folder / f"{stem}{suffix}")
    value = make()
    target = folder / f"{stem}{'.npy' if isinstance(value, np.ndarray) else '.json'}"
    with suppress(OSError):  # a folder that is read-only, or full
        write_atomically(target, _content(value))
        for old in folder.glob(f"{prefix}*"):
            if old.name != target.name and old.suffix in READERS:  # not another process's .part
                old.unlink(missing_ok=True)
    return value


def key(sources: Iterable[Path]) -> str:
    """Hash of this Python's build, its library's place and the files' content."""
    h = hashlib.sha256(f"{sys.version}|{sysconfig.get_paths()['stdlib']}".encode())
    for source in sources:
        h.update(Path(source).read_bytes())
    return h.hexdigest()[:16]


READERS: dict[str, Callable[[Path], object]] = {
    ".npy": lambda path: np.load(path, allow_pickle=False).astype(np.int64),
    ".json": lambda path: parse_json(path.read_bytes(), object),
}
"""How a file of each kind is read."""


def _content(value) -> str | bytes:
    if not isinstance(value, np.ndarray):
        return json.dumps(value)
    buffer = io.BytesIO()
    short: np.ndarray = value.astype(np.uint16)  # token ids fit, but for large vocabularies
    np.save(buffer, short if np.array_equal(short, value) else value, allow_pickle=False)
    return buffer.getvalue()
