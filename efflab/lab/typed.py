"""Parses a number typed by a reader: "4k tokens", "0,5", "3 万", "１，０００".

The whole text must be understood: after the number only a multiplier, a unit, or both. A unit of
the question's kind is converted (2 s are 2,000 ms), one of another kind refused.
"""

import math
import re
import tomllib
from pathlib import Path

from efflab.base.significant import RAISED
from efflab.errors import require_finite
from efflab.lab.text import chinese, tr, tr_name, unit_name

LONGEST = 60
"""Longest text, in characters, that is parsed."""

WORDS = tomllib.loads(Path(__file__).with_name("units.toml").read_text(encoding="utf-8"))
MULTIPLIERS, UNITS = WORDS["multipliers"], WORDS["units"]
"""{multiplier: factor}; {kind of unit: {name: size in the kind's base unit}}."""

HALF_WIDTH = {full: full - 0xFEE0 for full in range(0xFF01, 0xFF5F)}
HALF_WIDTH |= {ord("。"): ord("."), ord("−"): ord("-")}
LOWERED = {raised: plain for plain, raised in RAISED.items()}
ABOUT = re.compile(r"^(≈|~|=|about|around|roughly|approx\.?|ca\.?|大约|大概|约)\s*", re.IGNORECASE)
NUMBER = re.compile(
    r"""(?P<sign>[-+]?)\s*(?:
      (?P<base>10)(?:\^|\*\*)(?P<power>[-+]?\d{1,4})                # 10^12
    | (?: (?P<groups>[1-9]\d{0,2}(?:(?P<mark>[,\ _'])\d{3})(?:(?P=mark)\d{3})*(?:\.\d+)?)
        | (?P<comma>0?,\d+|\d+,(?!\d{3}(?!\d))\d+)                   # 0,125 and 2,5
        | (?P<plain>\d+\.?\d*|\.\d+) )
      (?: e(?P<e>[-+]?\d{1,4}) | \s*[x×*·]\s*10(?:\^|\*\*)(?P<ten>[-+]?\d{1,4}) )? )
    (?![\d,^])\s*(?P<rest>.*?)[\s.?!]*""",
    re.VERBOSE | re.IGNORECASE,
)


def parse(text, unit: str = "") -> float:
    """The number in a reader's text, in `unit`; anything else is a `ValueError`.

    >>> parse("1,000 x"), parse("0,5"), parse("4k tokens", "tokens"), parse("2 s", "ms")
    (1000.0, 0.5, 4000.0, 2000.0)
    """
    if isinstance(text, str):
        value = _value(text, unit)
        if value is None:
            raise ValueError(_refusal(text, unit))
        return value
    require_finite("guess", text)
    return float(text)


def _value(text: str, unit: str) -> float | None:
    """The number in `text`, or None if it cannot be parsed."""
    match = NUMBER.fullmatch(_normal(text)) if len(text) <= LONGEST else None
    factor = match and _factor(match["rest"], unit)
    if not match or factor is None:
        return None
    try:
        value = _magnitude(match) * factor
    except (OverflowError, ZeroDivisionError):
        return None
    value = -value if match["sign"] == "-" else value
    return value if math.isfinite(value) else None


def _normal(text: str) -> str:
    """The text in half-width characters, superscripts written with ^, without "about"."""
    text = re.sub("[⁻⁰¹²³⁴-⁹]+", lambda match: "^" + match[0].translate(LOWERED), text)
    text = re.sub(r"\s", " ", text.translate(HALF_WIDTH)).strip()
    return re.sub(r" *(左右|or so)$", "", ABOUT.sub("", text))


def _magnitude(match: re.Match) -> float:
    if match["base"]:
        return float(match["base"]) ** int(match["power"])
    digits = match["plain"] or (match["comma"] or "").replace(",", ".")
    if match["groups"]:
        digits = match["groups"].replace(match["mark"], "")
    return float(f"{digits}e{match['e'] or match['ten'] or 0}")  # rounds only once


def _factor(rest: str, unit: str) -> float | None:
    """The factor given by the words after a number; None if they are not understood."""
    rest = re.sub(r"\s+", " ", rest)
    scale = _scale(rest, unit)
    if scale is not None:
        return scale
    heads = [m for m in MULTIPLIERS if rest.startswith(m)]
    for head in sorted(heads, key=len, reverse=True):
        tail = rest[len(head) :].strip()
        scale = _scale(tail, unit)
        # where MB are asked, "3M" may be 3 MB or 3 million MB
        is_vague = not tail and head.isascii() and _kind(unit)[0] == "bytes"
        if scale is not None and not is_vague:
            return MULTIPLIERS[head] * scale
    return None


def _scale(name: str, unit: str) -> float | None:
    """Size of the typed unit in units of the question; None if it is of another kind."""
    if not name or _word(name) in map(_word, (unit, tr_name(unit), chinese(unit) or "")):
        return 1.0
    (kind, size), (expected_kind, base) = _kind(name), _kind(unit)
    if kind is None or (unit and kind != expected_kind):
        return None
    if kind == "count":  # tokens do not convert to heads, but 个 fits both
        return 1.0 if not unit or name == "个" else None
    return size / base if unit else 1.0


def _kind(name: str) -> tuple[str | None, float]:
    """(kind of a unit, its size in the base unit), or (None, 1) if it is unknown."""
    for kind, units in UNITS.items():
        for word in (name.casefold(), _word(name)):
            if word in units:
                return kind, units[word]
    return None, 1.0


def _word(name: str) -> str:
    """A unit's name in lower case and singular."""
    word = name.casefold().removeprefix("个").strip()
    return word.removesuffix("s") if len(word) > 2 and word.isascii() else word


def _refusal(text: str, unit: str) -> str:
    excerpt = text if len(text) <= 40 else text[:37] + "..."
    if not unit:
        return tr("{text!r} is not a number that I can read: write it like 0.5, 1,000, 4k or "
                  "1.2e6.", text=excerpt)  # fmt: skip
    return tr("{text!r} is not a number that I can read: write it like 0.5, 1,000, 4k or 1.2e6, "
              "alone or in {unit}.", text=excerpt, unit=unit_name(unit))  # fmt: skip
