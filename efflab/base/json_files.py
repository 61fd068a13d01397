"""JSON as our own files hold it and nothing more lenient: the one way in which all are read.

Python's reader takes NaN and Infinity for numbers, the last of two equal keys, and any depth.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from efflab.arguments import check_arguments
from efflab.errors import quote, require

MAX_BYTES = 64_000_000
"""No file of ours is larger: the largest holds the library's texts, some 10 MB."""
DEEPEST = 40
"""Lists and objects inside each other, at most."""
NAMES: dict[type, str] = {dict: "an object", list: "a list"}


@check_arguments
def read_json(
    path: Path,
    kind: type = dict,
    *,
    check: Callable[[Any], None] = lambda value: None,
    remedy: str = "restore the file",
) -> Any:
    """What the JSON file holds, `kind` (dict or list) at its top.

    A damaged file, one with anything else at its top, or one whose value `check` refuses by a
    `ValueError` or `TypeError` is a `ValueError` that names the file and the `remedy`.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    return parse_file(content, path.name, kind, check=check, remedy=remedy)


@check_arguments
def parse_file(
    content: bytes | str,
    name: str,
    kind: type = dict,
    *,
    check: Callable[[Any], None] = lambda value: None,
    remedy: str = "restore the file",
) -> Any:
    """`read_json` of the content of the file `name`."""
    try:
        require(
            len(content) <= MAX_BYTES,
            "bytes",
            len(content),
            "at most {high}",
            high=f"{MAX_BYTES:,}",
        )
        value = parse_json(content, kind)
        check(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is damaged ({error}); {remedy}") from error
    return value


@check_arguments
def parse_json(content: bytes | str, kind: type = dict) -> Any:
    """The value that JSON in UTF-8 holds, `kind` at its top; all else is a `ValueError`.

    Every number is finite, no key stands twice, and nothing lies deeper than `DEEPEST`.

    >>> parse_json('{"loss": NaN}')
    Traceback (most recent call last):
    ValueError: number='NaN': expected a finite number
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        options: dict[str, Any] = dict(object_pairs_hook=_once, parse_float=_finite)
        options |= dict(parse_int=_whole)
        value = json.loads(text, parse_constant=_refuse, **options)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = f"content={quote(content)}: expected JSON in UTF-8 ({error})"
        raise ValueError(reason) from error
    except RecursionError as error:
        reason = f"content={quote(content)}: expected a depth of at most {DEEPEST}"
        raise ValueError(reason) from error
    require(isinstance(value, kind), "content", value, NAMES.get(kind, kind.__name__))
    _require_shallow(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            require(key not in seen, "key", key, "no key twice")
            seen.add(key)
    return result


def _finite(text: str) -> float:
    value = float(text)
    require(math.isfinite(value), "number", text, "a finite number")
    return value


def _whole(text: str) -> int:
    require(len(text) <= 300, "number", text, "one that a float can hold")
    return int(text)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"number={quote(word)}: expected a finite number")


def _require_shallow(value) -> None:
    """Refuse what lies deeper than `DEEPEST`, level by level."""
    level, depth = [value], 0
    while level:
        require(depth <= DEEPEST, "depth", depth, "at most {high}", high=DEEPEST)
        inner = (v.values() if isinstance(v, dict) else v for v in level)
        level = [x for values in inner for x in values if isinstance(x, dict | list)]
        depth += 1
