"""Verdicts on the article's claims and on notebooks' own statements: one card each, stored there.

A verdict is a pure function from its evidence to an `Outcome`, in the `verdicts.py` of a notebook's
room; other numbers give another outcome.
"""

from collections.abc import Iterable, Mapping

from efflab.base.busy import others
from efflab.base.formats import STATEMENT
from efflab.base.formats import VERDICT as MIME
from efflab.base.places import DATA_DIR
from efflab.base.toml_files import read_toml
from efflab.errors import require, require_one_of
from efflab.lab.evidence import Evidence, evidence_line
from efflab.lab.judge import read_rules, rule_words
from efflab.lab.outcome import OUTCOMES, Outcome, Part, mark, outcome_words
from efflab.lab.page import emit_html, live, render
from efflab.lab.text import language, number, tr
from efflab.rules import require_type

BASIS_WORDS = {
    "registered": "rule registered on {since}, before the numbers",
    "exploratory": "exploratory: the rule was not registered before such numbers were known",
    "formula": "by formula",
    "table": "by published table",
}


def load_claims() -> dict[str, dict]:
    """data/claims.toml: {id: {section, notebook, claim: {en, zh}, parts: [{id, en, zh}]}}."""
    return read_toml(DATA_DIR / "claims.toml")


def load_statements() -> dict[str, dict]:
    """data/statements.toml: what notebooks state beside the claims, in the same form."""
    return read_toml(DATA_DIR / "statements.toml")


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
    card = _card(claim_id, claims[claim_id], outcome)
    lines = [card["heading"], card["claim"], card["headline"]]
    for part in card["parts"]:
        details = (*part["texts"], part["rule"], *part["figures"])
        lines += [part["headline"], *(f"  {line}" for line in details)]
    mime = STATEMENT if claim_id in load_statements() else MIME
    text = "\n".join([*lines, *filter(None, [card["busy"]])])
    emit_html(render("verdict", **card), text, **{mime: outcome.record(claim_id)})


def _card(claim_id: str, claim: Mapping, outcome: Outcome) -> dict:
    """The lines of one verdict's card, in the current language."""
    marks = "" if len(outcome.parts) == 1 else " ".join(mark(p.outcome) for p in outcome.parts)
    headline = f"{mark(outcome.outcome)} {outcome_words(outcome.outcome, language())}"
    said = {part["id"]: part[language()] for part in claim["parts"]}
    rules, heading = read_rules()[claim_id], tr("Our own statement {id}", id=claim_id)
    if "section" in claim:
        heading = tr("Claim {id}, section {section}", id=claim_id, section=claim["section"])
    return dict(
        colour=OUTCOMES[outcome.outcome][3],
        heading=heading,
        claim=claim["claim"][language()],
        headline=f"{headline}  {marks}".rstrip(),
        busy=_busy_line(outcome.evidence),
        parts=[_part(part, said[part.id], rules[part.id]) for part in outcome.parts],
    )


def _part(part: Part, statement: str, rule: Mapping) -> dict:
    """The lines of one part: statement, condition or reason, remark, rule, figures."""
    texts = [tr(text, **part.values) for text in (part.reason, part.remark)]
    if part.condition:
        texts.insert(0, tr("holds if {condition}", condition=rule["condition"][language()]))
    signs = {key: f"{mark(word)} " for key, word in part.decisions.items()}
    return dict(
        colour=OUTCOMES[part.outcome][3],
        headline=f"{mark(part.outcome)} {statement}",
        texts=list(filter(None, texts)),
        rule=tr("Rule: {rule}", rule=rule_line(part, rule)),
        figures=[f"{signs.get(e.id, '')}{evidence_line(e)}" for e in part.evidence],
    )


def rule_line(part: Part, rule: Mapping) -> str:
    """A part's rule in the current language, and what it rests on."""
    items = {item.id: item for item in part.evidence}
    based = tr(BASIS_WORDS[part.basis], since=part.since)
    return tr("{rule} ({basis})", rule=rule_words(rule, items), basis=based)


def _busy_line(evidence: Iterable[Evidence]) -> str:
    """A warning if other processes used the machine during measurements; "" in a build, which
    checks before it starts."""
    here = any(item.kind == "measured" for item in evidence)
    if not (here and others.busy and live()):
        return ""
    text = "Measured on a busy machine: others used {cores} cores meanwhile, so times may be off"
    return tr(text, cores=number(others.cores, 2))
