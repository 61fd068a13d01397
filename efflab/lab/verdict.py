"""The article's claims and what we found: one card each, stored with the notebook."""

import tomllib
from functools import lru_cache
from html import escape

from efflab.data import DATA_DIR
from efflab.errors import require_one_of
from efflab.lab.page import emit_html, plain
from efflab.lab.text import KINDS, language, number, tr

MIME = "application/vnd.efflab.verdict+json"


@lru_cache(maxsize=1)
def load_claims() -> dict[str, dict]:
    """data/claims.toml: {id: {section, notebook, kind, claim: {en, zh}}}, in order."""
    return tomllib.loads((DATA_DIR / "claims.toml").read_text(encoding="utf-8"))


def verdict(
    claim_id: str, *, holds: bool | None, figures: dict, kind: str, condition: str = "", **values
) -> None:
    """Show the verdict on one claim and store it in the output as `MIME`.

    `holds`: True, False, or None where there is neither a source nor a way to measure.
    `condition` (English, translated here, `{name}` filled from `values`) makes it "holds if";
    `figures`: {name: number} that it rests on, names translated here; `kind`: one of `KINDS`.
    An unknown claim or kind is a `ValueError` that lists the known ones.
    """
    claims = load_claims()
    require_one_of("claim_id", claim_id, claims)
    require_one_of("kind", kind, KINDS)
    require_one_of("holds", holds, (True, False, None))
    holds = holds if holds is None else bool(holds)  # numpy's own bool is no JSON
    claim = claims[claim_id]["claim"][language()]
    word, colour, mark = _outcome(holds, condition)
    shown = [(tr(name), number(value)) for name, value in figures.items()]
    told = tr(condition, **values)
    headline = f"{mark} " + (tr("{word}: {condition}", word=word, condition=told) if told else word)
    heading = tr("Claim {id}, section {section}", id=claim_id, section=claims[claim_id]["section"])
    text = [headline, f"  {heading}", f"  {claim}", *(f"  {n}: {v}" for n, v in shown)]
    text.append(f"  [{tr(kind)}]")
    stored = condition.format(**values) if values else condition
    record = dict(claim=claim_id, holds=holds, condition=stored)
    record |= dict(figures=plain(dict(figures)), kind=kind)
    emit_html(_card(headline, heading, claim, shown, kind, colour), "\n".join(text),
              **{MIME: record})  # fmt: skip


def _outcome(holds, condition: str) -> tuple[str, str, str]:
    """(words, colour, mark) of a verdict."""
    if holds is None:
        return tr("Cannot be judged here"), "#767676", "?"
    if not holds:
        return tr("Does not hold here"), "#D55E00", "✗"
    if condition:
        return tr("Holds, on a condition"), "#E69F00", "◐"
    return tr("Holds"), "#009E73", "✓"


def _card(headline, heading, claim, shown, kind, colour) -> str:
    cell = "border:1px solid #8886;border-radius:4px;padding:2px 10px;margin:4px 8px 0 0"
    numbers = "".join(
        f'<span style="display:inline-block;{cell}">{escape(name)}: <b>{escape(value)}</b></span>'
        for name, value in shown
    )
    tag = f'<span style="display:inline-block;{cell};font-style:italic">{escape(tr(kind))}</span>'
    return (
        f'<div style="border:1px solid #8886;border-left:8px solid {colour};border-radius:4px;'
        f'padding:10px 16px;margin:6px 0">'
        f'<div style="font-size:1.15em;font-weight:bold">{escape(headline)}</div>'
        f'<div style="margin:4px 0"><span style="opacity:0.75">{escape(heading)}</span><br>'
        f"{escape(claim)}</div>{numbers}{tag}</div>"
    )
