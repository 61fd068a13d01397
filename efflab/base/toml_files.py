"""Reads our TOML files, which are asked for again and again while verdicts are judged."""

import tomllib
from copy import deepcopy
from functools import lru_cache
from pathlib import Path


def read_toml(path: Path) -> dict:
    """The tables of one file, the caller's own; the same text is parsed once."""
    return deepcopy(_parse(Path(path).read_text(encoding="utf-8")))


@lru_cache(maxsize=64)
def _parse(text: str) -> dict:
    return tomllib.loads(text)
