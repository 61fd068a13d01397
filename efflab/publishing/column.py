"""One machine's column of the ledger, as a file that travels.

    {"schema": 1, "efflab": "0.1.0", "date": "2026-11-26",
     "machine": {"cpu", "features", "threads"}, "versions": {"python", "torch"},
     "verdicts": [{"claim", "holds", "outcome", "condition", "rule", "reason", "figures": [...]}]}

A file of others is data and stays data: its form is checked to the last key, its numbers to their
range, and every verdict is judged again from its own figures by the rule that stands here.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from efflab import __version__
from efflab.errors import quote, require
from efflab.estimate import require_figure
from efflab.experiments.provenance import FEATURES, machine_name
from efflab.json_files import parse_json
from efflab.lab.page import plain
from efflab.lab.text import KINDS
from efflab.lab.verdict import OUTCOMES
from efflab.publishing.catalog import ROOT
from efflab.publishing.judging import judged
from efflab.publishing.ledger import claims, verdicts
from efflab.significant import significant
from efflab.stored import FIGURE, RECORD

SCHEMA = 1
MAX_BYTES = 1_000_000
LONGEST = dict(cpu=100, version=40, name=300, unit=40, text=2000)
"""Characters of a text, at most."""
MOST_FIGURES = 60
LARGEST = 1e30
"""Of a number, without its sign: more operations than any model computes."""
KEYS = {"schema", "efflab", "date", "machine", "versions", "verdicts"}


@dataclass(frozen=True)
class Column:
    """What one machine found: `verdicts` holds a record a claim; `source` says where it is from.

    `machine` is described as in the records of experiments; what an old one does not tell is None.
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
        """Where its column lies in data/ledger: from the name, and safe whatever that holds."""
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
    require(size <= MAX_BYTES, f"{path.name}: bytes", size, f"at most {MAX_BYTES:,}")
    try:
        return parsed(path.read_bytes(), root)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def parsed(content: bytes, root: Path = ROOT) -> Column:
    """The column in a file's content; whatever is not as it has to be is a `ValueError`."""
    found = parse_json(content)
    schema, version = found.get("schema"), found.get("efflab")
    require(type(schema) is int and schema == SCHEMA, "schema", schema, f"{SCHEMA}")
    wanted = f"{__version__}, the version here, whose rules judge it"
    require(version == __version__, "efflab", version, wanted)
    _keys("column", found, KEYS)
    _date(found["date"])
    _machine(found["machine"])
    _keys("versions", found["versions"], {"python", "torch"})
    for name, value in found["versions"].items():
        _text(f"versions.{name}", value, LONGEST["version"])
        numbered = re.fullmatch(r"\d[\w.+]*", value, re.ASCII)
        require(bool(numbered), f"versions.{name}", value, "a version such as 2.13.0+cpu")
    verdicts = _verdicts(found["verdicts"], root)
    return Column(found["machine"], found["date"], verdicts, versions=found["versions"])


def _keys(name: str, value, keys: set[str]) -> None:
    require(isinstance(value, dict), name, value, "an object")
    unknown, lacking = sorted(value.keys() - keys), sorted(keys - value.keys())
    require(not unknown, f"keys of {name}", unknown, f"no other than {sorted(keys)}")
    require(not lacking, f"keys of {name}", sorted(value), f"{lacking} too")


def _text(name: str, value, longest: int, shortest: int = 1) -> None:
    require(isinstance(value, str) and value.isprintable(), name, value, "a text in one line")
    allowed = f"{shortest} to {longest:,} characters"
    require(shortest <= len(value) <= longest, name, value, allowed)


def _number(name: str, value) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    allowed = f"a finite number of at most {significant(LARGEST)}"
    require(number and abs(value) <= LARGEST, name, value, allowed)


def _date(value) -> None:
    written = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII)
    try:
        day = date.fromisoformat(value) if written else None
    except ValueError:
        day = None
    require(day is not None, "date", value, "a day such as 2026-11-26")
    tomorrow = date.today() + timedelta(days=1)  # it may be later there
    require(day <= tomorrow, "date", value, "a day that has come")


def _machine(value) -> None:
    _keys("machine", value, {"cpu", "features", "threads"})
    _text("machine.cpu", value["cpu"], LONGEST["cpu"])
    _keys("machine.features", value["features"], set(FEATURES))
    for name, has in value["features"].items():
        require(isinstance(has, bool), f"machine.features.{name}", has, "true or false")
    threads = value["threads"]
    require(type(threads) is int and 1 <= threads <= 4096, "machine.threads", threads, "1 to 4096")


# --- Its verdicts ----------------------------------------------------------------------------


def _verdicts(value, root: Path) -> dict[str, dict]:
    """{claim: its record} in the article's order, each judged again."""
    known, here, found = claims(root), verdicts(root), {}
    require(isinstance(value, list) and bool(value), "verdicts", value, "a list of at least one")
    for record in value:
        require(isinstance(record, dict), "verdict", record, "an object")
        claim = record.get("claim")
        allowed = "one of data/claims.toml"
        require(isinstance(claim, str) and claim in known, "claim", claim, allowed)
        require(claim not in found, "claim", claim, "one verdict")
        _record(claim, record)
        follows(record, root)
        if claim in here:
            _like_ours(record, here[claim], root)
        found[claim] = record
    return {claim: found[claim] for claim in known if claim in found}


def _record(claim: str, record: dict) -> None:
    """The form of one verdict."""
    _keys(claim, record, RECORD)
    holds, outcome = record["holds"], record["outcome"]
    told = holds is None or isinstance(holds, bool)
    require(told, f"{claim}: holds", holds, "true, false or null")
    allowed = f"one of {list(OUTCOMES)}"
    require(isinstance(outcome, str) and outcome in OUTCOMES, f"{claim}: outcome", outcome, allowed)
    for name, shortest in (("rule", 1), ("condition", 0), ("reason", 0)):
        _text(f"{claim}: {name}", record[name], LONGEST["text"], shortest)
    word = {True: "holds if" if record["condition"] else "holds", False: "does not hold"}
    needed = f"{word.get(holds, 'undecided')!r}, as holds and condition say"
    require(outcome == word.get(holds, "undecided"), f"{claim}: outcome", outcome, needed)
    figures = record["figures"]
    some = isinstance(figures, list) and 1 <= len(figures) <= MOST_FIGURES
    require(some, f"{claim}: figures", figures, f"a list of 1 to {MOST_FIGURES}")
    for figure in figures:
        _figure(claim, figure)


def _figure(claim: str, figure) -> None:
    _keys(f"a figure of {claim}", figure, FIGURE)
    _text(f"{claim}: name of a figure", figure["name"], LONGEST["name"])
    name = f"{claim}: {figure['name']}"
    _text(f"{name}: unit", figure["unit"], LONGEST["unit"], 0)
    kind = figure["kind"]
    require(isinstance(kind, str) and kind in KINDS, f"{name}: kind", kind, f"one of {KINDS}")
    for key in ("value", "low", "high"):
        if key == "value" or figure[key] is not None:
            _number(f"{name}: {key}", figure[key])
    require_figure(name, figure["value"], figure["low"], figure["high"])


def _like_ours(record: Mapping, ours: Mapping, root: Path) -> None:
    """Only a machine's own numbers may differ from the claim's record here.

    Names, units, kinds, what has an interval, and what papers print are the same on every machine,
    and the first figure is the one on which the outcome turns.
    """
    claim, theirs = record["claim"], {f["name"]: f for f in record["figures"]}
    mine = {f["name"]: f for f in ours["figures"]}
    names = set(mine) ^ set(theirs)
    unlike = sorted(names, key=lambda name: (name in mine, name))
    require(not unlike, f"{claim}: figures", unlike[:1], "those that it has here, and no other")
    for name, figure in theirs.items():
        own = mine[name]
        for key in ("unit", "kind"):
            require(figure[key] == own[key], f"{claim}: {name}: {key}", figure[key], repr(own[key]))
        sampled, allowed = own["low"] is not None, "an interval where it has one here, only there"
        low = figure["low"]
        require((low is not None) == sampled, f"{claim}: {name}: low", low, allowed)
        if own["kind"] == "published":
            value, allowed = figure["value"], f"{own['value']}, as published"
            require(figure == own, f"{claim}: {name}", value, allowed)
    first = judged(claim, [theirs[name] for name in mine], root).figures[0].name
    require(next(iter(theirs)) == first, f"{claim}: first figure", next(iter(theirs)), repr(first))


def follows(record: Mapping, root: Path = ROOT) -> None:
    """Refuse a record that is not what the rule here makes of its own figures."""
    claim = record["claim"]
    again = judged(claim, record["figures"], root).record(claim)
    allowed = "as its own figures come to by the rule here: "
    for key in ("rule", "outcome", "holds", "condition", "reason"):
        same, needed = record[key] == again[key], allowed + quote(again[key])
        require(same, f"{claim}: {key}", record[key], needed)
    kept = plain(record["figures"]) == record["figures"]
    require(kept, f"{claim}: figures", record["figures"], "at most six significant digits")
