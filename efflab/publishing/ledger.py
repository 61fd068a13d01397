"""The ledger: every verdict of the built notebooks, by claim, from `data/verdicts.json`.

The README shows one short line per claim, with the deciding figure; `docs/ledger.md` shows all.
"""

import textwrap
import tomllib
from pathlib import Path

from efflab.base.stored import read_verdicts
from efflab.errors import require
from efflab.lab.text import number, with_unit
from efflab.lab.verdict import Outcome, outcome_words
from efflab.publishing.catalog import ROOT, built_path, catalog, find

WIDEST = 150
"""Most characters of a line of the README's ledger."""

PAGE_HEAD = """\
# The ledger

What the built notebooks found, claim by claim, in the article's order: the outcome, the rule that
was fixed before the numbers were known, and every figure with its kind and, where it was sampled,
its 95 % interval. The first figure is the one on which the outcome turns. Another machine, another
parameter or another seed may give another outcome; `efflab run NN -p name=value` tries it.
[ledger.html](ledger.html), opened in a browser, sets machines side by side; [Pooling
ledgers](pooling.md) says how another machine's column is made and taken in.

`efflab report` writes this page from `data/verdicts.json`, which `efflab build` takes out of the
notebooks.
"""


# --- Reading ---------------------------------------------------------------------------------


def claims(root: Path = ROOT) -> dict[str, dict]:
    """data/claims.toml: {id: {section, notebook, kind, claim: {en, zh}, perhaps short}}."""
    return tomllib.loads((root / "data" / "claims.toml").read_text(encoding="utf-8"))


def verdicts(root: Path = ROOT) -> dict[str, dict]:
    """{claim id: its record}, in the article's order.

    An invalid record, an unknown claim, or one judged twice or in a notebook that does not own it
    is a `ValueError`.
    """
    known, by_claim = claims(root), {}
    for notebook, records in read_verdicts(root / "data" / "verdicts.json").items():
        for record in records:
            claim = record["claim"]
            require(claim in known, "claim", claim, "one of data/claims.toml")
            owner = known[claim]["notebook"]
            require(notebook == owner, f"notebook of {claim}", notebook, f"its owner, {owner}")
            require(claim not in by_claim, "claim", claim, "one verdict")
            _require_outcome(record)
            by_claim[claim] = record
    return {claim: by_claim[claim] for claim in known if claim in by_claim}


def _require_outcome(record: dict) -> None:
    """Refuse a record whose word, texts and figures do not agree, as an `Outcome` would store."""
    claim = record["claim"]
    texts = {key: record[key] for key in ("rule", "condition", "reason")}
    try:
        again = Outcome(record["holds"], record["figures"], **texts).record(claim)
    except (TypeError, ValueError) as error:
        raise ValueError(f"verdicts.json: {claim}: {error}; run efflab build") from error
    for key in ("holds", "outcome"):
        require(record[key] == again[key], f"{claim}: {key}", record[key], f"{again[key]!r}")


# --- Words -----------------------------------------------------------------------------------


def value_words(figure: dict) -> str:
    """ "71.2% (70 to 72.4)": a figure's value with its unit and, if any, its interval."""
    value = with_unit(figure["value"], figure["unit"])
    return value + (f" ({interval_words(figure)})" if figure["low"] is not None else "")


def interval_words(figure: dict) -> str:
    """ "70 to 72.4", or "" without an interval."""
    low, high = figure["low"], figure["high"]
    return "" if low is None else f"{number(low)} to {number(high)}"


def figure_words(figure: dict, width: int | None = None) -> str:
    """ "parameters removed: 71.2%, computed"; the name is shortened to fit `width` characters."""
    rest = f": {value_words(figure)}, {figure['kind']}"
    name = figure["name"]
    if width is not None and len(name) + len(rest) > width:
        name = textwrap.shorten(name, max(12, width - len(rest)), placeholder=" …")
    return name + rest


def short_claim(claim: dict) -> str:
    """The claim in a few English words."""
    return claim.get("short", claim["claim"]["en"]).rstrip(".")


# --- The README's lines ----------------------------------------------------------------------


def table(head: tuple[str, ...], rows) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def short_ledger(root: Path = ROOT) -> str:
    """One line per claim: the claim, its outcome, the deciding figure, the notebook."""
    known, rows = claims(root), []
    for name, record in verdicts(root).items():
        cells = [short_claim(known[name]), outcome_words(record["outcome"])]
        length = len(table(("",) * 4, []).splitlines()[0]) + sum(map(len, cells)) + 2
        figure = figure_words(record["figures"][0], WIDEST - length)
        rows.append((*cells, figure, known[name]["notebook"]))
    return table(("claim", "outcome", "the figure that decides", "notebook"), rows)


# --- The ledger's own page -------------------------------------------------------------------


def page(root: Path = ROOT) -> str:
    """docs/ledger.md: every verdict with its rule, condition or reason, and all figures."""
    known, records, parts, section = claims(root), verdicts(root), [PAGE_HEAD], None
    for name, record in records.items():
        claim = known[name]
        if claim["section"] != section:
            section = claim["section"]
            parts.append(f"## Section {section}\n")
        parts.append(_entry(name, claim, record, root))
    return "\n".join(parts)


def _entry(name: str, claim: dict, record: dict, root: Path) -> str:
    words = " · ".join(outcome_words(record["outcome"], language) for language in ("en", "zh"))
    condition = f": {record['condition']}" if record["condition"] else ""
    lines = [f"### {name}\n", claim["claim"]["en"] + "  ", claim["claim"]["zh"] + "\n"]
    lines.append(f"**{words}**{condition}\n")
    if record["reason"]:
        lines.append(f"Why: {record['reason']}\n")
    lines.append(f"Rule: {record['rule']}\n")
    lines.append(f"Judged in {notebook_link(claim['notebook'], root, 'docs')}.\n")
    rows = [
        (f["name"], with_unit(f["value"], f["unit"]), interval_words(f), f["kind"])
        for f in record["figures"]
    ]
    lines.append(table(("figure", "value", "95 % interval", "kind"), rows) + "\n")
    return "\n".join(lines)


def notebook_link(number: str, root: Path, seen_from: str = "", language: str = "en") -> str:
    """ "[01 Parameter sharing](notebooks/01_parameter_sharing.ipynb)"; the number if unwritten."""
    entry = catalog(root / "notebooks").get(number)
    if entry is None:
        return number
    target = built_path(find(number, root / "notebooks"), language).relative_to(root).as_posix()
    up = "../" if seen_from else ""
    return f"[{number} {entry['title'][language]}]({up}{target})"
