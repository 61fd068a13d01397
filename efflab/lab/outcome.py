"""Outcomes of claims: one of each part, and the one word that they come to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from efflab.errors import require, require_one_of
from efflab.lab import colours
from efflab.lab.evidence import Evidence, by_id
from efflab.rules import require_type

OUTCOMES = {
    "holds": ("Holds", "成立", "✓", colours.RIGHT),
    "holds if": ("Holds if", "有条件成立", "◐", colours.PARTLY),
    "holds in part": ("Holds in part", "部分成立", "◑", colours.PARTLY),
    "does not hold": ("Does not hold", "不成立", "✗", colours.WRONG),
    "undecided": ("Undecided", "未定", "?", colours.OPEN),
}
"""The possible outcomes: words in English and in Chinese, mark and colour."""
OF_PARTS = tuple(word for word in OUTCOMES if word != "holds in part")
BASES = ("registered", "exploratory", "formula", "table")
"""What a part rests on; "registered": its rule was, before its numbers existed."""
TEXTS = ("condition", "remark", "reason")

FORM = 3
"""Version of a stored record. In form 1 evidence had no id, in form 2 a claim had no parts."""


@dataclass(frozen=True)
class Part:
    """The outcome of one part of a claim, and its evidence, cases first.

    `outcome`: "holds", "does not hold", "undecided", or "holds if", which needs a `condition` that
    a contrast showed. `reason` says why it does not hold or is undecided, `remark` what else
    a reader has to know; these are English templates, filled from `values` and translated when
    shown. `decisions`: id -> outcome of each case, contrast and control; other evidence is shown
    only. `basis`: one of `BASES`, `since` the day of registration.
    """

    id: str
    outcome: str
    evidence: tuple[Evidence, ...]
    rule: str
    condition: str = ""
    remark: str = ""
    reason: str = ""
    values: Mapping = field(default_factory=dict, kw_only=True)
    basis: str = field(default="exploratory", kw_only=True)
    since: str | None = field(default=None, kw_only=True)
    decisions: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def __post_init__(self):
        require_one_of("outcome", self.outcome, OF_PARTS)
        require_one_of("basis", self.basis, BASES)
        object.__setattr__(self, "evidence", tuple(by_id(self.evidence).values()))
        require(len(self.evidence) > 0, "evidence", self.evidence, "at least one number")
        for name in ("id", "rule", *TEXTS):
            require_type(name, getattr(self, name), str)
        require(bool(self.rule), "rule", self.rule, "the rule by which it was judged")
        has_condition, needed = bool(self.condition), "a condition exactly where it holds if"
        require((self.outcome == "holds if") == has_condition, "condition", self.condition, needed)
        needed = "why it does not hold or cannot be told, and nothing where it holds"
        holds = self.outcome in ("holds", "holds if")
        require(holds != bool(self.reason), "reason", self.reason, needed)
        is_registered = self.basis == "registered"
        require(is_registered == bool(self.since), "since", self.since, "a day where registered")

    def record(self) -> dict:
        """What is stored: English, all evidence with its kind and interval, in its order."""
        texts = {key: getattr(self, key).format(**self.values) for key in TEXTS}
        head = dict(id=self.id, outcome=self.outcome, rule=self.rule, **texts)
        figures = [evidence.record() for evidence in self.evidence]
        return head | dict(basis=self.basis, since=self.since, figures=figures)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a claim: those of its parts."""

    parts: tuple[Part, ...]

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts))
        for part in self.parts:
            require_type("part", part, Part)
        ids = [part.id for part in self.parts]
        require(1 <= len(ids) == len(set(ids)), "parts", ids, "at least one, with ids that differ")

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`: that of all parts, "holds in part" if one holds, else "undecided"."""
        words = {part.outcome for part in self.parts}
        if len(words) == 1:
            return words.pop()
        if words == {"holds", "holds if"}:
            return "holds if"
        return "holds in part" if words & {"holds", "holds if"} else "undecided"

    @property
    def holds(self) -> bool | None:
        """True: all parts hold; False: all do not; else None."""
        return {"holds": True, "holds if": True, "does not hold": False}.get(self.outcome)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The evidence of all parts, each once, the deciding one first."""
        return tuple({item.id: item for part in self.parts for item in part.evidence}.values())

    def record(self, claim_id: str) -> dict:
        """What is stored of a claim."""
        head = dict(form=FORM, claim=claim_id, holds=self.holds, outcome=self.outcome)
        return head | dict(parts=[part.record() for part in self.parts])


def outcome_words(outcome: str, language: str = "en") -> str:
    """An outcome in words, for cards, README and ledger: "holds if" -> "Holds if" or 有条件成立."""
    require_one_of("outcome", outcome, OUTCOMES)
    return OUTCOMES[outcome][1 if language == "zh" else 0]


def mark(outcome: str) -> str:
    """An outcome's sign: "holds" -> "✓"."""
    require_one_of("outcome", outcome, OUTCOMES)
    return OUTCOMES[outcome][2]
