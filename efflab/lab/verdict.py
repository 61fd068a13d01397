"""The article's claims and what we found: one card each, stored with the notebook.

A verdict is one pure function from figures to an `Outcome`, in the `verdicts.py` of a notebook's
room: the rule was fixed before the numbers were known, and other numbers give another outcome.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from html import escape

import numpy as np

from efflab.busy import others
from efflab.data import DATA_DIR
from efflab.errors import require, require_finite, require_one_of, wrong_type
from efflab.estimate import Estimate, require_interval
from efflab.formats import VERDICT as MIME
from efflab.lab.page import emit_html, live, plain
from efflab.lab.text import KINDS, language, number, tr, with_unit

OUTCOMES = {
    "holds": ("Holds", "成立", "✓", "#009E73"),
    "holds if": ("Holds if", "有条件成立", "◐", "#E69F00"),
    "does not hold": ("Does not hold", "不成立", "✗", "#D55E00"),
    "undecided": ("Undecided", "未定", "?", "#767676"),
}
"""What a verdict can be: its words in English and in Chinese, its mark and its colour."""


@dataclass(frozen=True)
class Figure:
    """A number that a verdict rests on: `Figure("parameters removed", 71.2, "%", "computed")`.

    `name` stands alone and is translated when shown; `kind` is one of `KINDS`; `low` and `high` are
    the ends of its 95 % interval where it was sampled. A value that is no finite number, or lies
    outside of its interval, is refused: whatever is compared with NaN is false, so that a verdict
    would turn on it unseen.
    """

    name: str
    value: float
    unit: str = ""
    kind: str = "measured"
    low: float | None = None
    high: float | None = None

    def __post_init__(self):
        for name in ("name", "unit", "kind"):
            _require_text(name, getattr(self, name))
        require(bool(self.name), "name", self.name, "a name")
        require_one_of("kind", self.kind, KINDS)
        both = (self.low is None) == (self.high is None)
        require(both, "low", self.low, "both ends of the interval or neither")
        if self.low is None:
            require_finite("value", self.value)
        else:
            require_interval("value", self.value, self.low, self.high)

    @classmethod
    def of(cls, name: str, estimate: Estimate, unit: str = "", kind: str = "measured") -> "Figure":
        """A figure with the interval of an `Estimate`."""
        return cls(name, estimate.mean, unit, kind, estimate.low, estimate.high)


@dataclass(frozen=True)
class Outcome:
    """What a claim comes to: `holds` is True, False, or None where it is undecided.

    `figures`: what it rests on, the deciding one first. `rule`: when it would hold, printed on the
    card; `condition` turns "holds" into "holds if"; `reason` says why it does not, or cannot be
    told. The texts are English templates, filled from `values` and translated when shown.
    """

    holds: bool | None
    figures: tuple[Figure, ...]
    rule: str = field(kw_only=True)
    condition: str = field(default="", kw_only=True)
    reason: str = field(default="", kw_only=True)
    values: Mapping = field(default_factory=dict, kw_only=True)

    def __post_init__(self):
        if not (self.holds is None or isinstance(self.holds, bool | np.bool_)):
            raise wrong_type("holds", self.holds, "True, False or None")
        holds = self.holds if self.holds is None else bool(self.holds)  # numpy's own is no JSON
        object.__setattr__(self, "holds", holds)
        object.__setattr__(self, "figures", tuple(by_name(self.figures).values()))
        require(len(self.figures) > 0, "figures", self.figures, "at least one figure")
        for name in TEXTS:
            _require_text(name, getattr(self, name))
        require(bool(self.rule), "rule", self.rule, "the rule by which it was judged")
        allowed = "no condition: a rider is no condition"
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
        """What is stored: English, every figure with its kind and interval, in their order."""
        texts = {key: _fill(getattr(self, key), self.values) for key in TEXTS}
        figures = [plain(asdict(figure)) for figure in self.figures]
        return dict(claim=claim_id, holds=self.holds, outcome=self.word, **texts, figures=figures)


TEXTS = ("condition", "rule", "reason")


def by_name(figures: Iterable[Figure | Mapping]) -> dict[str, Figure]:
    """{name: figure} in order, from figures or from what a record stores; a name twice is refused.

    >>> by_name([{"name": "removed", "value": 71.2, "unit": "%"}])["removed"].value
    71.2
    """
    made = [f if isinstance(f, Figure) else _figure(f) for f in figures]
    found = {figure.name: figure for figure in made}
    names = [figure.name for figure in made]
    require(len(found) == len(made), "figures", names, "names that differ")
    return found


def _figure(stored: Mapping) -> Figure:
    if not isinstance(stored, Mapping):
        raise wrong_type("figure", stored, "a Figure, or what a record stores of one")
    known = [f.name for f in fields(Figure)]
    fit = {"name", "value"} <= stored.keys() <= set(known)
    require(fit, "figure", list(stored), "its name and value, and no keys but " + ", ".join(known))
    return Figure(**stored)


def _require_text(name: str, value) -> None:
    if not isinstance(value, str):
        raise wrong_type(name, value, "a text")


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
    if not isinstance(outcome, Outcome):
        raise wrong_type("outcome", outcome, "an Outcome")
    card = _Card(claim_id, claims[claim_id], outcome)
    emit_html(card.html(), card.text(), **{MIME: outcome.record(claim_id)})


class _Card:
    """One verdict's lines, in the language in use."""

    def __init__(self, claim_id: str, claim: Mapping, outcome: Outcome):
        _, _, mark, self.colour = OUTCOMES[outcome.word]
        self.claim = claim["claim"][language()]
        self.heading = tr("Claim {id}, section {section}", id=claim_id, section=claim["section"])
        told = {key: tr(getattr(outcome, key), **outcome.values) for key in TEXTS}
        headline = f"{mark} {outcome_words(outcome.word, language())}"
        if told["condition"]:
            headline = tr("{word}: {condition}", word=headline, condition=told["condition"])
        self.headline = headline
        self.reason = told["reason"]
        self.busy = _busy_line(outcome.figures)
        self.rule = tr("Rule, fixed beforehand: {rule}", rule=told["rule"])
        self.figures = [_figure_line(figure) for figure in outcome.figures]

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
        told = (line for line in (self.reason, self.busy) if line)
        reason = "".join(f'<div style="margin:2px 0">{escape(line)}</div>' for line in told)
        return (
            f'<div style="border:1px solid #8886;border-left:8px solid {self.colour};'
            f'border-radius:4px;padding:10px 16px;margin:6px 0">'
            f'<div style="opacity:0.75">{escape(self.heading)}</div><div>{escape(self.claim)}</div>'
            f'<div style="font-size:1.15em;font-weight:bold;margin:6px 0 2px">'
            f"{escape(self.headline)}</div>{reason}{faint}{numbers}</div>"
        )


def _busy_line(figures: Iterable[Figure]) -> str:
    """That others used the machine while times were measured here; nothing in a build, which asks
    before it begins."""
    here = any(figure.kind == "measured" for figure in figures)
    if not (here and others.busy and live()):
        return ""
    text = "Measured on a busy machine: others used {cores} cores meanwhile, so times may be off"
    return tr(text, cores=number(others.cores, 2))


def _figure_line(figure: Figure) -> str:
    """ "parameters removed: 71.2% [computed]"."""
    return f"{tr(figure.name)}: {value_line(figure)}"


def value_line(figure: Figure) -> str:
    """ "0.975 (0.914 to 1.04) [measured]": value, unit, interval if any, and kind."""
    value = with_unit(figure.value, figure.unit)
    if figure.low is not None:
        ends = dict(low=number(figure.low), high=number(figure.high))
        value = tr("{value} ({low} to {high})", value=value, **ends)
    return f"{value} [{tr(figure.kind)}]"


def _fill(text: str, values: Mapping) -> str:
    return text.format(**values) if values else text
