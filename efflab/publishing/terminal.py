"""What the commands print: on any terminal, in any encoding, and when something is in the way."""

import codecs
import errno
import io
import os
import sys
import unicodedata
from pathlib import Path

from efflab.base.files import PART

LONGEST_LINE = 600
"""Characters of a message's line; what a value of a megabyte says stands at its ends."""
LOOKALIKES = str.maketrans(
    {"—": "-", "–": "-", "−": "-", "×": "x", "·": "*", "≤": "<=", "≥": ">=", "≈": "~", "→": "->"}
    | dict(zip("“”‘’", "\"\"''", strict=True))
)
"""Letters for those that a terminal may lack; accents go by themselves."""
ELSEWHERE = "it cannot be written here; start efflab in a copy of the repository that you may write"
REMEDIES = {
    errno.ENOSPC: "free some space and start it again: what was finished is kept",
    errno.EDQUOT: "free some space and start it again: what was finished is kept",
    errno.EACCES: ELSEWHERE,
    errno.EPERM: ELSEWHERE,
    errno.EROFS: ELSEWHERE,
    errno.ENAMETOOLONG: "a shorter name is needed",
}
STOPPED = "stopped; what was finished is kept, and the same command goes on from there"


def use_any_encoding() -> None:
    """From here on no letter is beyond standard output and error: the nearest stands for it."""
    codecs.register_error("nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="nearest")


def _nearest(error: UnicodeEncodeError) -> tuple[str, int]:
    text = error.object[error.start : error.end].translate(LOOKALIKES)
    letters = unicodedata.normalize("NFKD", text)
    return letters.encode("ascii", "ignore").decode() or "?", error.end


def usable_language(language: str) -> str:
    """`language`, or "en" with a word about it where the terminal has no Chinese letters."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        ("中文" if language == "zh" else "").encode(encoding)
    except UnicodeEncodeError:
        say = f"efflab: {encoding} has no Chinese, so this is English; PYTHONIOENCODING=utf-8 has"
        print(say, file=sys.stderr)
        return "en"
    return language


def say_error(error: BaseException) -> None:
    """One line on standard error, or as many as the message has; it may itself not be writable."""
    try:
        print(f"efflab: {words(error)}", file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def words(error: BaseException) -> str:
    """What to tell of an error, and what to do about it."""
    if isinstance(error, KeyboardInterrupt):
        return STOPPED
    if isinstance(error, ImportError):
        return f"{error}; `efflab doctor` says what is missing"
    if isinstance(error, OSError) and error.strerror:
        where = f"{_file(error.filename)}: " if error.filename else ""
        remedy = REMEDIES.get(error.errno)
        return _shorten(f"{where}{error.strerror}{f'; {remedy}' if remedy else ''}")
    return _shorten(str(error))


def _file(name) -> str:
    """A file as the reader knows it: from here, and without what marks it as unfinished."""
    path = Path(PART.sub("", os.fsdecode(name)))
    try:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    except OSError:  # the folder that efflab was started in is gone
        return str(path)


def _shorten(text: str) -> str:
    half = LONGEST_LINE // 2
    lines = text.split("\n")
    return "\n".join(
        f"{line[:half]} ... {line[-half:]}" if len(line) > LONGEST_LINE else line for line in lines
    )


def flush() -> None:
    """Write what standard output still holds, so that a full disk is heard of while one can say so.

    Python itself would try once more at its end, where nobody can: so nothing more goes there.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        raise type(error)(error.errno, error.strerror, "standard output") from None


def silence(stream) -> None:
    """Lead a stream to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
