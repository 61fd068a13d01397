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
from contextlib import suppress
from pathlib import Path

import numpy as np

from efflab.arguments import check_arguments
from efflab.base.files import write_atomically
from efflab.base.json_files import parse_json


@check_arguments
def get_or_make(folder: Path, name: str, sources: Iterable[Path], make: Callable[[], object]):
    """`make()`, or what it gave before under the same Python, library and `sources` files.

    An int array of values below 65,536 lies in a `.npy` file, all else (lists, dicts, texts) in a
    `.json` one.
    """
    stem = f"{name}-{sys.version_info.major}.{sys.version_info.minor}-"
    path = f"{stem}{key(sources)}"
    for suffix, read in READERS.items():
        with suppress(OSError, ValueError, EOFError):  # not there, or damaged
            return read(folder / f"{path}{suffix}")
    value = make()
    written = folder / f"{path}{'.npy' if isinstance(value, np.ndarray) else '.json'}"
    with suppress(OSError):  # a folder that is read-only, or full
        write_atomically(written, _content(value))
        for old in folder.glob(f"{stem}*"):
            if old.name != written.name and old.suffix in READERS:  # no part of another process
                old.unlink(missing_ok=True)
    return value


@check_arguments
def key(sources: Iterable[Path]) -> str:
    """Hash of this Python's build, its library's place and the files' content."""
    h = hashlib.sha256(f"{sys.version}|{sysconfig.get_paths()['stdlib']}".encode())
    for source in sources:
        h.update(Path(source).read_bytes())
    return h.hexdigest()[:16]


def _array(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False).astype(np.int64)


def _json(path: Path):
    return parse_json(path.read_bytes(), object)


READERS = {".npy": _array, ".json": _json}
"""How a file of each kind is read."""


def _content(value) -> str | bytes:
    if not isinstance(value, np.ndarray):
        return json.dumps(value)
    buffer = io.BytesIO()
    short: np.ndarray = value.astype(np.uint16)  # token ids are short, but not every vocabulary's
    stored = short if np.array_equal(short, value) else value
    np.save(buffer, stored, allow_pickle=False)
    return buffer.getvalue()
