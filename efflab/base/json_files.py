"""Strict JSON, by which all our own files are read.

Python's parser accepts NaN and Infinity, keeps the last of two equal keys, and allows any depth.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from efflab.errors import Refusal, quote, require

MAX_BYTES = 64_000_000
"""No file of ours is larger: the largest holds the library's texts, some 10 MB."""
DEEPEST = 40
"""Deepest nesting of lists and objects."""
NAMES: dict[type, str] = {dict: "an object", list: "a list"}


def read_json(path: Path, **options: Any) -> Any:
    """The object in a JSON file; `options`: those of `parse_file`."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    return parse_file(content, path.name, **options)


def parse_file(
    content: bytes | str,
    name: str,
    *,
    check: Callable[[Any], None] = lambda value: None,
    remedy: str = "restore the file",
) -> Any:
    """The object in the content of the file `name`, already read.

    A damaged file, another top level, or a value for which `check` raises a `ValueError` or
    `TypeError` is a `ValueError` that names the file and the `remedy`.
    """
    try:
        require(len(content) <= MAX_BYTES, "bytes", len(content), f"at most {MAX_BYTES:,}")
        value = parse_json(content)
        check(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is damaged ({error}); {remedy}") from error
    return value


def parse_json(content: bytes | str, kind: type = dict) -> Any:
    """The value of JSON in UTF-8, `kind` at its top level; all else is a `ValueError`.

    Numbers must be finite, keys unique, and the nesting at most `DEEPEST`.

    >>> parse_json('{"loss": NaN}')
    Traceback (most recent call last):
    efflab.errors.Refusal: number='NaN': expected a finite number
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        numbers: Any = dict(
            parse_float=_parse_float, parse_constant=_parse_float, parse_int=_parse_int
        )
        value = json.loads(text, object_pairs_hook=_unique_keys, **numbers)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"content={quote(content)}: expected JSON in UTF-8 ({error})") from error
    except RecursionError as error:
        allowed = "a depth of at most {high}"
        raise Refusal("content", quote(content), allowed, dict(high=DEEPEST)) from error
    require(isinstance(value, kind), "content", value, NAMES.get(kind, kind.__name__))
    _require_shallow(value)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict:
    result: dict[str, Any] = {}
    for key, value in pairs:
        require(key not in result, "key", key, "no key twice")
        result[key] = value
    return result


def _parse_float(text: str) -> float:
    value = float(text)
    require(math.isfinite(value), "number", text, "a finite number")
    return value


def _parse_int(text: str) -> int:
    require(len(text) <= 300, "number", text, "one that a float can hold")
    return int(text)


def _require_shallow(value) -> None:
    """Refuse a nesting deeper than `DEEPEST`, level by level (recursion could overflow)."""
    level, depth = [value], 0
    while level:
        require(depth <= DEEPEST, "depth", depth, "at most {high}", high=DEEPEST)
        inner = (v.values() if isinstance(v, dict) else v for v in level)
        level = [x for values in inner for x in values if isinstance(x, dict | list)]
        depth += 1
