"""The ledger: every verdict that the built notebooks hold, as the table that the README shows."""

import json
import tomllib
from pathlib import Path

from efflab.files import write_atomically
from efflab.publishing.catalog import ROOT

START, END = "<!-- ledger: start (efflab report writes this) -->", "<!-- ledger: end -->"
HOLDS = {True: "holds", False: "does not hold here", None: "no source, no way to measure"}


def outcome(verdict: dict) -> str:
    """ "holds", "holds if ...", "does not hold here", or that nobody can say."""
    if verdict["holds"] and verdict.get("condition"):
        return f"holds if: {verdict['condition']}"
    if verdict.get("condition"):
        return f"{HOLDS[verdict['holds']]}: {verdict['condition']}"
    return HOLDS[verdict["holds"]]


def number(value) -> str:
    """Three significant digits, enough to compare and few enough to read."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def rows(root: Path = ROOT) -> list[dict]:
    """One dict a verdict, with keys `notebook claim text outcome figures kind`, in order."""
    verdicts = json.loads((root / "data" / "verdicts.json").read_text(encoding="utf-8"))
    claims = tomllib.loads((root / "data" / "claims.toml").read_text(encoding="utf-8"))
    return [
        {
            "notebook": notebook,
            "claim": verdict["claim"],
            "text": claims[verdict["claim"]]["claim"]["en"],
            "outcome": outcome(verdict),
            "figures": ", ".join(f"{k} {number(v)}" for k, v in verdict["figures"].items()),
            "kind": verdict["kind"],
        }
        for notebook, stored in sorted(verdicts.items())
        for verdict in stored
    ]


def markdown(root: Path = ROOT) -> str:
    """The ledger as a Markdown table."""
    lines = ["| claim | verdict | figures | kind | notebook |", "|---|---|---|---|---|"]
    for r in rows(root):
        cells = (r["text"], r["outcome"], r["figures"], r["kind"], r["notebook"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def updated(readme: str, table: str) -> str:
    """The README's text with `table` between the two markers, which it must hold."""
    before, _, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md: expected the lines {START!r} and {END!r}")
    return f"{before}{START}\n{table}\n{END}{after}"


def report(root: Path = ROOT, say=print) -> None:
    """Print the ledger and bring the README's copy up to date."""
    table = markdown(root)
    say(table)
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    if updated(text, table) != text:
        write_atomically(readme, updated(text, table))
        say("README.md brought up to date")
