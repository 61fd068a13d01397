"""Files that are there whole or not at all, whoever else writes them at the same time.

Nothing else in the package writes a file that stays. What cannot be written is an `OSError`; the
caller knows whether the reader has to hear of it.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from efflab.arguments import check_arguments
from efflab.errors import require

PART = re.compile(r"\.(\d+)-[0-9a-f]{8}\.part(\.\w+)?$")
"""How the name of an unfinished file ends: its process, a random word, perhaps a suffix."""
WAIT_SECONDS = 60.0
"""How long a writer waits for another one, which needs milliseconds."""


@check_arguments
def part_path(path: Path, suffix: str = "") -> Path:
    """A name beside `path` for what is not whole yet; no other process or thread gets the same.

    Makes the folder, and removes what writers of `path` left there when they were killed.
    `suffix`: such as ".ipynb", for a program that goes by it.
    """
    is_suffix = bool(re.fullmatch(r"(\.\w{1,20})?", suffix))
    require(is_suffix, "suffix", suffix, 'such as ".ipynb", or an empty text')
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(path)
    own = f"{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f"{_stem(path)}.{own}.part{suffix}")


@check_arguments
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
    """So much of the name that the rest of a part's name always fits a file system's 255 bytes."""
    return path.name[:40]


@check_arguments
@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, and puts what was written there in the place of `path`.

    A reader, or a kill, finds the old file or the new one. Of two writers the later one stays.
    """
    part = part_path(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@check_arguments
def require_writable(path: Path) -> None:
    """Raise now the `OSError` in which writing `path` would end, before work of which it comes."""
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


@check_arguments
def write_atomically(path: Path, content: str | bytes) -> None:
    """Write all of a file, or nothing; the folder is made if need be."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@check_arguments
def update(path: Path, change: Callable[[str | None], str]) -> None:
    """Write `change(text)` in place of the file's `text` (None: no file), which nobody else changes
    meanwhile: of two that add to one file both additions stay.

    A `TimeoutError`, which is an `OSError`, after a minute in which others held the file.
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
            # While it is held: whoever waits for the removed file sees that and takes the new one.
            with suppress(OSError):  # Windows removes no open file
                lock.unlink()
