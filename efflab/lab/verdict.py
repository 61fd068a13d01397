"""Verdicts on the article's claims and on notebooks' own statements: one card each, stored there.

A verdict is a pure function from its evidence to an `Outcome`, in the `verdicts.py` of a notebook's
room; other numbers give another outcome.
"""

import tomllib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import escape

from efflab.base.busy import others
from efflab.base.formats import STATEMENT
from efflab.base.formats import VERDICT as MIME
from efflab.base.places import DATA_DIR
from efflab.errors import require, require_one_of
from efflab.lab.evidence import Evidence, evidence_line
from efflab.lab.judge import read_rules, rule_words
from efflab.lab.outcome import OUTCOMES, Outcome, Part, mark, outcome_words
from efflab.lab.page import emit_html, live
from efflab.lab.text import language, number, tr
from efflab.rules import require_type

BASIS_WORDS = {
    "registered": "rule registered on {since}, before the numbers",
    "exploratory": "exploratory: the rule was not registered before such numbers were known",
    "formula": "by formula",
    "table": "by published table",
}


@lru_cache(maxsize=1)
def load_claims() -> dict[str, dict]:
    """data/claims.toml: {id: {section, notebook, claim: {en, zh}, parts: [{id, en, zh}]}}."""
    return tomllib.loads((DATA_DIR / "claims.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def load_statements() -> dict[str, dict]:
    """data/statements.toml: what notebooks state beside the claims, in the same form."""
    return tomllib.loads((DATA_DIR / "statements.toml").read_text(encoding="utf-8"))


def verdict(claim_id: str, outcome: Outcome) -> None:
    """Show the verdict on one claim and store it in the output as `MIME`.

    `outcome` comes from the claim's function in the room's `verdicts.py`. A notebook's own
    statement is stored as `STATEMENT`, so that nobody counts it among the claims. An unknown claim
    is a `ValueError` that lists the known ones.
    """
    claims = load_claims() | load_statements()
    require_one_of("claim_id", claim_id, claims)
    require_type("outcome", outcome, Outcome)
    ids, known = [p.id for p in outcome.parts], [p["id"] for p in claims[claim_id]["parts"]]
    require(ids == known, f"parts of {claim_id}", ids, f"{known}")
    card = _Card(claim_id, claims[claim_id], outcome)
    mime = STATEMENT if claim_id in load_statements() else MIME
    emit_html(card.html(), card.text(), **{mime: outcome.record(claim_id)})


class _Card:
    """The lines of one verdict's card, in the current language."""

    def __init__(self, claim_id: str, claim: Mapping, outcome: Outcome):
        self.colour = OUTCOMES[outcome.outcome][3]
        self.claim = claim["claim"][language()]
        is_own, section = "section" not in claim, claim.get("section")
        heading = "Our own statement {id}" if is_own else "Claim {id}, section {section}"
        self.heading = tr(heading, id=claim_id, **({} if is_own else {"section": section}))
        marks = "" if len(outcome.parts) == 1 else " ".join(mark(p.outcome) for p in outcome.parts)
        headline = f"{mark(outcome.outcome)} {outcome_words(outcome.outcome, language())}"
        self.headline = f"{headline}  {marks}".rstrip()
        self.busy = _busy_line(outcome.evidence)
        rules = read_rules()[claim_id]
        said = {part["id"]: part[language()] for part in claim["parts"]}
        self.parts = [_PartLines(p, said[p.id], rules[p.id]) for p in outcome.parts]

    def text(self) -> str:
        lines = [self.heading, self.claim, self.headline]
        for part in self.parts:
            lines += [part.headline, *(f"  {line}" for line in (*part.texts, *part.figures))]
        return "\n".join([*lines, *([self.busy] if self.busy else [])])

    def html(self) -> str:
        busy = f'<div style="margin:2px 0">{escape(self.busy)}</div>' if self.busy else ""
        parts = "".join(part.html() for part in self.parts)
        return (
            f'<div style="border:1px solid #8886;border-left:8px solid {self.colour};'
            f'border-radius:4px;padding:10px 16px;margin:6px 0">'
            f'<div style="opacity:0.75">{escape(self.heading)}</div><div>{escape(self.claim)}</div>'
            f'<div style="font-size:1.15em;font-weight:bold;margin:6px 0 2px">'
            f"{escape(self.headline)}</div>{busy}{parts}</div>"
        )


class _PartLines:
    """The lines of one part in a card: statement, condition or reason, remark, rule, figures."""

    def __init__(self, part: Part, statement: str, rule: Mapping):
        self.colour = OUTCOMES[part.outcome][3]
        self.headline = f"{mark(part.outcome)} {statement}"
        said = [tr(text, **part.values) for text in (part.reason, part.remark)]
        if part.condition:
            said.insert(0, tr("holds if {condition}", condition=rule["condition"][language()]))
        self.rule = tr("Rule: {rule}", rule=rule_line(part, rule))
        self.texts = [*filter(None, said), self.rule]
        signs = {key: f"{mark(word)} " for key, word in part.decisions.items()}
        self.figures = [f"{signs.get(e.id, '')}{evidence_line(e)}" for e in part.evidence]

    def html(self) -> str:
        cell = "border:1px solid #8886;border-radius:4px;padding:2px 10px;margin:4px 8px 0 0"
        numbers = "".join(
            f'<span style="display:inline-block;{cell}">{escape(line)}</span>'
            for line in self.figures
        )
        *texts, rule = (escape(line) for line in self.texts)
        lines = "".join(f'<div style="margin:2px 0">{line}</div>' for line in texts)
        return (
            f'<div style="border-left:4px solid {self.colour};padding-left:10px;margin:10px 0">'
            f'<div style="font-weight:bold">{escape(self.headline)}</div>{lines}'
            f'<div style="opacity:0.75;margin:2px 0">{rule}</div>{numbers}</div>'
        )


def rule_line(part: Part, rule: Mapping) -> str:
    """A part's rule in the current language, and what it rests on."""
    items = {item.id: item for item in part.evidence}
    based = tr(BASIS_WORDS[part.basis], **({"since": part.since} if part.since else {}))
    return tr("{rule} ({basis})", rule=rule_words(rule, items), basis=based)


def _busy_line(evidence: Iterable[Evidence]) -> str:
    """A warning if other processes used the machine during measurements; "" in a build, which
    checks before it starts."""
    here = any(item.kind == "measured" for item in evidence)
    if not (here and others.busy and live()):
        return ""
    text = "Measured on a busy machine: others used {cores} cores meanwhile, so times may be off"
    return tr(text, cores=number(others.cores, 2))
