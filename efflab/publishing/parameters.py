"""Parses and checks a notebook's parameters from the command line."""

import ast
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

from efflab.base.formats import LANGUAGES
from efflab.base.limits import MODEL, entry_of, in_words, is_a, kind, require_within
from efflab.config import PRESETS, from_hf
from efflab.errors import require, require_one_of
from efflab.publishing.source import parameters


def literal(text: str):
    """`text` as a Python literal, else as a string: "512" -> 512, "gpt2" -> "gpt2"."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """["n=3", "model=gpt2"] -> {"n": "3", "model": "gpt2"}; a name twice is a `ValueError`."""
    values = _by_name(pairs)
    for name, texts in values.items():
        require(len(texts) == 1, "-p", f"{name}={texts[-1]}", f"{name} once")
    return {name: text for name, (text,) in values.items()}


def parse_choices(pairs: Iterable[str]) -> dict[str, list]:
    """["n=1,2", "n=4"] -> {"n": [1, 2, 4]}: the values of each name, repetitions joined."""
    return {
        name: [literal(value) for text in texts for value in split(text)]
        for name, texts in _by_name(pairs).items()
    }


def _by_name(pairs: Iterable[str]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        require(bool(equals), "-p", pair, "name=value")
        values.setdefault(name, []).append(text)
    return values


def split(text: str) -> list[str]:
    """The values between commas; commas inside quotes or brackets do not split.

    >>> split("1, 2"), split("'f(a, b)',x"), split("[1, 2],[3]"), split("it's,a(,b")
    (['1', '2'], ["'f(a, b)'", 'x'], ['[1, 2]', '[3]'], ["it's", 'a(', 'b'])
    """
    parts, quote, depth, escaped = [""], "", 0, False
    for letter in text:
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and not escaped
        elif letter in "'\"" and (depth or not parts[-1].strip()):
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and not depth:
            parts.append("")
            continue
        parts[-1] += letter
    parts = text.split(",") if quote or depth else parts  # unbalanced: no grouping was meant
    return [part.strip() for part in parts]


def checked(given: dict, known: dict, limits: dict | None = None) -> dict:
    """Return `given` after checking that each is a known parameter, of its type, within its limits.

    The type is that of its limits, or else of its default; an int may stand for a float. Anything
    else is a `ValueError` that says what is allowed. A model's path becomes absolute, since a
    kernel runs in another folder.
    """
    limits = limits or {}
    for name, value in given.items():
        require(name in known, "parameter", name, "one of " + ", ".join(known))
        default = known[name]
        expected = kind(limits[name]) if name in limits else type(default)
        fits = default is None or is_a(expected, value)
        require(fits, name, value, f"a value of type {expected.__name__}, like {default!r}")
        if name == "language":
            require_one_of(name, value, LANGUAGES)
    require_within(given, limits)
    return {n: _find_model(v) if limits.get(n) == MODEL else v for n, v in given.items()}


def _find_model(name: str) -> str:
    """A preset's name, or the absolute path of a config that can be read."""
    if name in PRESETS:
        return name
    from_hf(name)
    path = Path(name).expanduser().absolute()
    return str(path / "config.json" if path.is_dir() else path)


def check_values_for(path: Path, source: NotebookNode, given: dict) -> dict:
    """Check `given` against a source's parameters and the limits in the catalog."""
    entry = entry_of(path.stem, path.parents[1] / "catalog.toml")
    return checked(given, parameters(source), entry.get("limits"))


def offer(path: Path, source: NotebookNode) -> list[str]:
    """The parameters of a source with defaults and limits: ["-p n=3 (1 to 9)", ...]."""
    limits = entry_of(path.stem, path.parents[1] / "catalog.toml").get("limits", {})
    words = {name: f" ({in_words(limit)})" for name, limit in limits.items()}
    return [f"-p {n}={value!r}{words.get(n, '')}" for n, value in parameters(source).items()]
