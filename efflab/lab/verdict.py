"""Verdicts on the article's claims: one card each, stored with the notebook.

A verdict is a pure function from its evidence to an `Outcome`, in the `verdicts.py` of a notebook's
room: the rule was fixed before the numbers were known, and other numbers give another outcome.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from html import escape

from efflab.base.busy import others
from efflab.base.formats import VERDICT as MIME
from efflab.data import DATA_DIR
from efflab.errors import require, require_one_of, wrong_type
from efflab.estimate import Estimate, require_figure
from efflab.lab import colours
from efflab.lab.page import emit_html, live, plain
from efflab.lab.text import KINDS, language, number, tr, with_unit
from efflab.rules import require_type

OUTCOMES = {
    "holds": ("Holds", "成立", "✓", colours.RIGHT),
    "holds if": ("Holds if", "有条件成立", "◐", colours.PARTLY),
    "does not hold": ("Does not hold", "不成立", "✗", colours.WRONG),
    "undecided": ("Undecided", "未定", "?", colours.OPEN),
}
"""The possible outcomes: words in English and in Chinese, mark and colour."""


FORM = 2
"""Version of a stored record. In form 1, evidence had no id."""


@dataclass(frozen=True)
class Evidence:
    """A number that a verdict rests on: `Evidence("removed", "parameters removed", 71.2, "%")`.

    `id` is for code, short and stable. `name` is for readers: an English template, filled from
    `values` and translated when shown. `kind` is one of `KINDS`; `low` and `high` are the ends of
    its 95 % interval if it was sampled. A value that is not finite, or outside its interval, is
    refused: comparisons with NaN are false, so a verdict would silently depend on it.
    """

    id: str
    name: str
    value: float
    unit: str = ""
    kind: str = "measured"
    low: float | None = None
    high: float | None = None
    values: Mapping = field(default_factory=dict)

    def __post_init__(self):
        for name in ("id", "name", "unit", "kind"):
            require_type(name, getattr(self, name), str)
        is_id = bool(ID.fullmatch(self.id))
        require(is_id, "id", self.id, "small letters and digits with - between words")
        require(bool(self.name), "name", self.name, "a name")
        blanks = set(FIELD.findall(self.name))
        fits, names = blanks == self.values.keys(), ", ".join(sorted(blanks))
        require(fits, "values", self.values, "the fields of its name: {names}", names=names)
        require_one_of("kind", self.kind, KINDS)
        require_figure("value", self.value, self.low, self.high)

    @classmethod
    def of(
        cls, id: str, name: str, estimate: Estimate, unit="", kind="measured", **values
    ) -> "Evidence":
        """Evidence with the interval of an `Estimate`."""
        return cls(id, name, estimate.mean, unit, kind, estimate.low, estimate.high, values)

    @property
    def english(self) -> str:
        """Its name in English, as stored."""
        return fill(self.name, self.values)

    def record(self) -> dict:
        """What is stored: the name in English, and its template if it has values."""
        stored = asdict(self) | {"name": self.english}
        values = stored.pop("values")
        return plain(stored | (dict(template=self.name, values=values) if values else {}))


@dataclass(frozen=True)
class Outcome:
    """The outcome of a claim: `holds` is True, False, or None if it is undecided.

    `evidence`: its numbers, the deciding one first. `rule`: when the claim would hold, printed on
    the card; `condition` turns "holds" into "holds if"; `reason` says why it does not hold or is
    undecided. The texts are English templates, filled from `values` and translated when shown.
    """

    holds: bool | None
    evidence: tuple[Evidence, ...]
    rule: str = field(kw_only=True)
    condition: str = field(default="", kw_only=True)
    reason: str = field(default="", kw_only=True)
    values: Mapping = field(default_factory=dict, kw_only=True)

    def __post_init__(self):
        require_type("holds", self.holds, bool | None)
        holds = self.holds if self.holds is None else bool(self.holds)  # numpy's bool is not JSON
        object.__setattr__(self, "holds", holds)
        object.__setattr__(self, "evidence", tuple(by_id(self.evidence).values()))
        require(len(self.evidence) > 0, "evidence", self.evidence, "at least one number")
        for name in TEXTS:
            require_type(name, getattr(self, name), str)
        require(bool(self.rule), "rule", self.rule, "the rule by which it was judged")
        allowed = "no condition, which only a claim that holds can have"
        require(holds is True or not self.condition, "condition", self.condition, allowed)
        needed = "why it does not hold or cannot be told, and nothing where it holds"
        require((holds is True) != bool(self.reason), "reason", self.reason, needed)

    @property
    def word(self) -> str:
        """One of `OUTCOMES`."""
        if self.holds:
            return "holds if" if self.condition else "holds"
        return "undecided" if self.holds is None else "does not hold"

    def record(self, claim_id: str) -> dict:
        """What is stored: English, all evidence with its kind and interval, in its order."""
        texts = {key: getattr(self, key) for key in TEXTS}
        if self.values:
            texts = {key: text.format(**self.values) for key, text in texts.items()}
        head = dict(form=FORM, claim=claim_id, holds=self.holds, outcome=self.word)
        return head | texts | dict(figures=[evidence.record() for evidence in self.evidence])


TEXTS = ("condition", "rule", "reason")
ID = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
FIELD = re.compile(r"{(\w+)}")


def by_id(evidence: Iterable[Evidence | Mapping]) -> dict[str, Evidence]:
    """{id: evidence} in order, also from stored records; duplicate ids are refused.

    >>> by_id([{"id": "removed", "name": "removed", "value": 71.2}])["removed"].value
    71.2
    """
    items = [e if isinstance(e, Evidence) else _from_record(e) for e in evidence]
    by_name = {item.id: item for item in items}
    ids = [item.id for item in items]
    require(len(by_name) == len(items), "evidence", ids, "ids that differ")
    return by_name


def _from_record(stored: Mapping) -> Evidence:
    if not isinstance(stored, Mapping):
        raise wrong_type("evidence", stored, "an Evidence, or what a record stores of one")
    known = [*(f.name for f in fields(Evidence)), "template"]
    fit = {"id", "name", "value"} <= stored.keys() <= set(known)
    keys, allowed = ", ".join(known), "its id, name and value, and no keys but {keys}"
    require(fit, "evidence", list(stored), allowed, keys=keys)
    values = {key: value for key, value in stored.items() if key != "template"}
    evidence = Evidence(**values | {"name": stored.get("template", stored["name"])})
    require(evidence.english == stored["name"], "name", stored["name"], repr(evidence.english))
    return evidence


def outcome_words(outcome: str, language: str = "en") -> str:
    """An outcome in words, for cards, README and ledger: "holds if" -> "Holds if" or 有条件成立."""
    require_one_of("outcome", outcome, OUTCOMES)
    return OUTCOMES[outcome][1 if language == "zh" else 0]


@lru_cache(maxsize=1)
def load_claims() -> dict[str, dict]:
    """data/claims.toml: {id: {section, notebook, kind, claim: {en, zh}}}, in order."""
    return tomllib.loads((DATA_DIR / "claims.toml").read_text(encoding="utf-8"))


def verdict(claim_id: str, outcome: Outcome) -> None:
    """Show the verdict on one claim and store it in the output as `MIME`.

    `outcome` comes from the claim's function in the room's `verdicts.py`. An unknown claim is a
    `ValueError` that lists the known ones.
    """
    claims = load_claims()
    require_one_of("claim_id", claim_id, claims)
    require_type("outcome", outcome, Outcome)
    card = _Card(claim_id, claims[claim_id], outcome)
    emit_html(card.html(), card.text(), **{MIME: outcome.record(claim_id)})


class _Card:
    """The lines of one verdict's card, in the current language."""

    def __init__(self, claim_id: str, claim: Mapping, outcome: Outcome):
        _, _, mark, self.colour = OUTCOMES[outcome.word]
        self.claim = claim["claim"][language()]
        self.heading = tr("Claim {id}, section {section}", id=claim_id, section=claim["section"])
        texts = {key: tr(getattr(outcome, key), **outcome.values) for key in TEXTS}
        headline = f"{mark} {outcome_words(outcome.word, language())}"
        if texts["condition"]:
            headline = tr("{word}: {condition}", word=headline, condition=texts["condition"])
        self.headline = headline
        self.reason = texts["reason"]
        self.busy = _busy_line(outcome.evidence)
        self.rule = tr("Rule, fixed beforehand: {rule}", rule=texts["rule"])
        self.figures = [evidence_line(item) for item in outcome.evidence]

    def text(self) -> str:
        lines = [self.heading, self.claim, self.headline]
        lines += [
            "  " + line for line in (self.reason, self.busy, self.rule, *self.figures) if line
        ]
        return "\n".join(lines)

    def html(self) -> str:
        cell = "border:1px solid #8886;border-radius:4px;padding:2px 10px;margin:4px 8px 0 0"
        numbers = "".join(
            f'<span style="display:inline-block;{cell}">{escape(line)}</span>'
            for line in self.figures
        )
        faint = f'<div style="opacity:0.75;margin:2px 0">{escape(self.rule)}</div>'
        lines = (line for line in (self.reason, self.busy) if line)
        reason = "".join(f'<div style="margin:2px 0">{escape(line)}</div>' for line in lines)
        return (
            f'<div style="border:1px solid #8886;border-left:8px solid {self.colour};'
            f'border-radius:4px;padding:10px 16px;margin:6px 0">'
            f'<div style="opacity:0.75">{escape(self.heading)}</div><div>{escape(self.claim)}</div>'
            f'<div style="font-size:1.15em;font-weight:bold;margin:6px 0 2px">'
            f"{escape(self.headline)}</div>{reason}{faint}{numbers}</div>"
        )


def _busy_line(evidence: Iterable[Evidence]) -> str:
    """A warning if other processes used the machine during measurements; "" in a build, which
    checks before it starts."""
    here = any(item.kind == "measured" for item in evidence)
    if not (here and others.busy and live()):
        return ""
    text = "Measured on a busy machine: others used {cores} cores meanwhile, so times may be off"
    return tr(text, cores=number(others.cores, 2))


def name_words(evidence: Evidence) -> str:
    """The evidence's name in the current language."""
    return fill(tr(evidence.name), evidence.values)


def evidence_line(evidence: Evidence) -> str:
    """ "parameters removed: 71.2% [computed]"."""
    return f"{name_words(evidence)}: {value_line(evidence)}"


def value_line(evidence: Evidence) -> str:
    """ "0.975 (0.914 to 1.04) [measured]": value, unit, interval if any, and kind."""
    value = with_unit(evidence.value, evidence.unit)
    if evidence.low is not None:
        ends = dict(low=number(evidence.low), high=number(evidence.high))
        value = tr("{value} ({low} to {high})", value=value, **ends)
    return f"{value} [{tr(evidence.kind)}]"


def fill(name: str, values: Mapping) -> str:
    """A name with its fields filled; not by `str.format`, which would evaluate attributes and pad
    to any width in a file from others."""
    return FIELD.sub(lambda field: str(values[field[1]]), name)
