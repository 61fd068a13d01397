"""One machine's column of the ledger, as a file to exchange.

    {"schema": 3, "efflab": "0.1.0", "date": "2026-11-26",
     "machine": {"cpu", "features", "threads"}, "versions": {"python", "torch"},
     "verdicts": [{"form", "claim", "holds", "outcome",
                   "parts": [{"id", "outcome", "rule", "condition", "remark", "reason", "basis",
                              "since", "figures": [{"id", "name", "value", "unit", "kind",
                                                    "low", "high"}]}]}]}

A file from others is only data: `column.schema.json` fixes its keys and the ranges of its numbers,
and every verdict is judged again from its own figures by the rule in this repository.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

from efflab import __version__
from efflab.base.json_files import parse_json, read_json
from efflab.base.stored import figures_of
from efflab.errors import quote, require, require_figure
from efflab.experiments.provenance import machine_name
from efflab.lab.page import plain
from efflab.publishing.catalog import ROOT
from efflab.publishing.judging import judge
from efflab.publishing.ledger import claims, verdicts

SCHEMA = 3
"""In schema 1 figures had no id, in schema 2 claims had no parts: rules of today cannot judge
either, so that they are refused."""
FORM = Path(__file__).with_name("column.schema.json")
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Column:
    """One machine's results: `verdicts` holds one record per claim; `source` says its origin.

    `machine` is described as in the records of experiments; None for what an old one lacks.
    """

    machine: dict
    date: str
    verdicts: dict[str, dict]
    source: str = "run"
    versions: Mapping | None = None

    @property
    def name(self) -> str:
        """The machine in one line."""
        return machine_name(self.machine) if self.machine["threads"] else self.machine["cpu"]

    @property
    def file_name(self) -> str:
        """The column's file in data/ledger, from the machine's name, safe for any characters."""
        words = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:60]
        return f"{words}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}.json"

    def text(self) -> str:
        """The file's content."""
        head = dict(schema=SCHEMA, efflab=__version__, date=self.date, machine=self.machine)
        body = head | dict(versions=self.versions, verdicts=list(self.verdicts.values()))
        return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


# --- Reading what others wrote ---------------------------------------------------------------


def read(path: Path, root: Path = ROOT) -> Column:
    """The column in a file; a `ValueError` names the file and what is wrong with it."""
    require(path.is_file(), "file", str(path), "a file that `efflab ledger run` wrote")
    size = path.stat().st_size
    require(size <= MAX_BYTES, f"{path.name}: bytes", size, "at most {high}", high=f"{MAX_BYTES:,}")
    try:
        return parse(path.read_bytes(), root)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def parse(content: bytes, root: Path = ROOT) -> Column:
    """The column in a file's content; anything invalid is a `ValueError`."""
    ours = verdicts(root)
    column = parse_json(content)
    schema, version = column.get("schema"), column.get("efflab")
    allowed = f"{SCHEMA}, which `efflab ledger run` of today writes"
    require(type(schema) is int and schema == SCHEMA, "schema", schema, allowed)
    allowed = f"{__version__}, the version here, whose rules judge it"
    require(version == __version__, "efflab", version, allowed)
    _require_form(column)
    tomorrow = date.today() + timedelta(days=1)  # of another time zone
    day = date.fromisoformat(column["date"])
    require(day <= tomorrow, "date", column["date"], "a day that has come")
    records = _verdicts(column["verdicts"], ours, root)
    return Column(column["machine"], column["date"], records, versions=column["versions"])


# --- The form --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _validator():
    """The validator of `FORM`: 1.0 is not an integer, and a "line" has no control characters."""
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.validators import extend

    formats = FormatChecker(["date"])
    formats.checks("line")(lambda value: not isinstance(value, str) or value.isprintable())
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, v: type(v) is int)
    strict = extend(Draft202012Validator, type_checker=types)
    return strict(read_json(FORM), format_checker=formats)


def _require_form(column: dict) -> None:
    """Refuse the first violation of `FORM`, with its name and what is allowed."""
    error = next(_validator().iter_errors(column), None)
    if error is None:
        return
    name, value, schema = _name(list(error.path), column), error.instance, error.schema
    if error.validator == "additionalProperties":
        known = sorted(schema["properties"])
        require(False, f"keys of {name}", sorted(value.keys() - known), f"no other than {known}")
    if error.validator == "required":
        lacking = sorted(set(schema["required"]) - value.keys())
        require(False, f"keys of {name}", sorted(value), f"{lacking} too")
    require(False, name, value, _allowed_words(error.validator, schema))


def _allowed_words(keyword: str, schema: dict) -> str:
    """What a part of `FORM` allows, in words, after `keyword` was violated."""
    if keyword in ("minLength", "maxLength"):
        return f"{schema.get('minLength', 0)} to {schema['maxLength']:,} characters"
    if keyword == "enum":
        return f"one of {schema['enum']}"
    return schema["description"]


def _name(place: list, column: dict) -> str:
    """A value's place for error messages: its keys, and the claim or id of what a list holds."""
    words, value = [], column
    for key in place:
        value = value[key]
        item = value if isinstance(key, int) and isinstance(value, dict) else {}
        own = item.get("claim", item.get("id"))
        words.append(own[:60] if isinstance(own, str) and own.isprintable() else str(key))
    return ".".join(words) or "column"


# --- Its verdicts ----------------------------------------------------------------------------


def _verdicts(value: list[dict], ours: Mapping[str, Mapping], root: Path) -> dict[str, dict]:
    """{claim: its record} in the article's order, each judged again."""
    known, by_claim = claims(root), {}
    for record in value:
        claim = record["claim"]
        require(claim in known, "claim", claim, "one of data/claims.toml")
        require(claim not in by_claim, "claim", claim, "one verdict")
        for figure in figures_of(record).values():
            ends = figure["value"], figure["low"], figure["high"]
            require_figure(f"{claim}: {figure['name']}", *ends)
        follows(record, root)
        if claim in ours:
            _like_ours(record, ours[claim], root)
        by_claim[claim] = record
    return {claim: by_claim[claim] for claim in known if claim in by_claim}


def _like_ours(record: Mapping, ours: Mapping, root: Path) -> None:
    """Refuse a record that differs from the claim's record here in more than measured numbers.

    Names, units, kinds, which figures have an interval, and published values are the same on every
    machine.
    """
    claim, theirs, mine = record["claim"], figures_of(record), figures_of(ours)
    unlike = sorted(mine.keys() ^ theirs.keys(), key=lambda key: (key in mine, key))
    require(not unlike, f"{claim}: figures", unlike[:1], "those that it has here, and no other")
    for key, figure in theirs.items():
        own, where = mine[key], f"{claim}: {key}"
        for part in ("name", "template", "values", "unit", "kind"):
            value, needed = figure.get(part), own.get(part)
            require(value == needed, f"{where}: {part}", value, repr(needed))
        low, allowed = figure["low"], "an interval where it has one here, only there"
        require((low is None) == (own["low"] is None), f"{where}: low", low, allowed)
        if own["kind"] == "published":
            value, allowed = figure["value"], f"{own['value']}, as published"
            require(figure == own, where, value, allowed)


def _decisions(record: Mapping) -> Iterator[tuple[str, object]]:
    """(place, value) of all that a record's figures decide, and of its parts' and figures' ids."""
    yield from ((key, record[key]) for key in ("outcome", "holds"))
    yield "parts", [part["id"] for part in record["parts"]]
    for part in record["parts"]:
        for key in sorted(part.keys() - {"figures"}):
            yield f"{part['id']}: {key}", part[key]
        yield f"{part['id']}: figures", [figure["id"] for figure in part["figures"]]


def follows(record: Mapping, root: Path = ROOT) -> None:
    """Refuse a record that does not follow from its own figures by the rule here."""
    claim, figures = record["claim"], figures_of(record)
    again = judge(claim, figures.values(), root).record(claim)
    for (place, value), (_, needed) in zip(_decisions(record), _decisions(again), strict=False):
        allowed = f"as its own figures come to by the rule here: {quote(needed)}"
        require(value == needed, f"{claim}: {place}", value, allowed)
    is_plain = plain(figures) == figures
    require(is_plain, f"{claim}: figures", list(figures), "at most six significant digits")
