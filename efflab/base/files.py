"""Atomic file writes: a file is there whole or not at all, with concurrent writers too.

All files that the package keeps are written here. A failed write is an `OSError`; the caller
decides whether to report it.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from efflab.errors import require

PART = re.compile(r"\.(\d+)-[0-9a-f]{8}\.part(\.\w+)?$")
"""How the name of an unfinished file ends: its process, a random word, perhaps a suffix."""
WAIT_SECONDS = 60.0
"""How long a writer waits for another one, which needs milliseconds."""


def part_path(path: Path, suffix: str = "") -> Path:
    """A unique name beside `path` for a file that is not complete yet.

    Makes the folder, and removes the unfinished files of killed writers of `path`.
    `suffix`: such as ".ipynb", for a program that needs it.
    """
    is_suffix = bool(re.fullmatch(r"(\.\w{1,20})?", suffix))
    require(is_suffix, "suffix", suffix, 'such as ".ipynb", or an empty text')
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(path)
    own = f"{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f"{_stem(path)}.{own}.part{suffix}")


def remove_stale_parts(path: Path) -> None:
    """Remove the unfinished files beside `path` whose process has ended."""
    import psutil

    for part in path.parent.iterdir():
        match = PART.search(part.name)
        if match and part.name[: match.start()] == _stem(path):
            with suppress(OSError):
                if not psutil.pid_exists(int(match[1])):
                    part.unlink()


def _stem(path: Path) -> str:
    """The name's first 40 characters: a part's whole name then fits a file system's 255 bytes."""
    return path.name[:40]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, then move that file over `path`.

    At any time, also after a kill, `path` is the old file or the new one. The last writer wins.
    """
    part = part_path(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Raise the `OSError` that writing `path` would raise, before the work that leads to it."""
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        part = part_path(path)
        try:
            part.write_bytes(b" ")
        finally:
            part.unlink(missing_ok=True)
    finally:
        for folder in new:
            with suppress(OSError):  # another process has put something there
                folder.rmdir()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write all of a file, or nothing; the folder is made if need be."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def update(path: Path, change: Callable[[str | None], str]) -> None:
    """Replace a file's `text` (None: no file) by `change(text)`, under a lock.

    So the additions of two concurrent processes both stay. A `TimeoutError`, which is an
    `OSError`, if the lock is not free within a minute.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        write_atomically(path, change(path.read_text(encoding="utf-8") if path.exists() else None))


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    from filelock import FileLock

    lock = path.with_name(f".{_stem(path)}.lock")
    with FileLock(lock, timeout=WAIT_SECONDS):
        try:
            yield
        finally:
            # Removed while held: a process waiting for it notices that and locks a new file.
            with suppress(OSError):  # Windows removes no open file
                lock.unlink()
