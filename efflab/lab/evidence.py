"""Evidence: the numbers that verdicts rest on, each with its kind and interval."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields

from efflab.errors import require, require_figure, require_one_of, wrong_type
from efflab.estimate import Estimate
from efflab.lab.page import plain
from efflab.lab.text import KINDS, number, tr, tr_known, with_unit
from efflab.rules import require_type

SAMPLED = ("measured", "recorded")
"""Kinds whose values need an interval; an exact count has both ends equal to it."""
ID = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
FIELD = re.compile(r"{(\w+)}")


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
    kind: str = "computed"
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
        needed = "an interval: it was measured or recorded (Evidence.exact for a count)"
        has_ends = self.kind not in SAMPLED or self.low is not None
        require(has_ends, f"{self.id}: low", self.low, needed)

    @classmethod
    def of(
        cls, id: str, name: str, estimate: Estimate, unit="", kind="measured", **values
    ) -> "Evidence":
        """Evidence with the interval of an `Estimate`."""
        return cls(id, name, estimate.mean, unit, kind, estimate.low, estimate.high, values)

    @classmethod
    def exact(cls, id: str, name: str, value, unit="", kind="measured", **values) -> "Evidence":
        """An exact count, such as bytes or kernels: both ends of its interval are the value."""
        return cls(id, name, value, unit, kind, value, value, values)

    @property
    def english(self) -> str:
        """Its name in English, as stored."""
        return fill(self.name, self.values)

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of its interval as stored; twice its value where nothing was sampled."""
        low, high = (self.value,) * 2 if self.low is None else (self.low, self.high)
        return plain(low), plain(high)

    def record(self) -> dict:
        """What is stored: the name in English, and its template if it has values."""
        stored = asdict(self) | {"name": self.english}
        values = stored.pop("values")
        return plain(stored | (dict(template=self.name, values=values) if values else {}))


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


def name_words(evidence: Evidence) -> str:
    """The evidence's name in the current language."""
    values = {key: tr_known(value) for key, value in evidence.values.items()}
    return fill(tr(evidence.name), values)


def evidence_line(evidence: Evidence) -> str:
    """ "parameters removed: 71.2% [computed]"."""
    return tr("{name}: {value}", name=name_words(evidence), value=value_line(evidence))


def value_line(evidence: Evidence) -> str:
    """ "0.975 (0.914 to 1.04) [measured]": value, unit, interval if any, and kind."""
    value = with_unit(evidence.value, evidence.unit)
    if evidence.low is not None and evidence.low != evidence.high:
        ends = dict(low=number(evidence.low), high=number(evidence.high))
        value = tr("{value} ({low} to {high})", value=value, **ends)
    return f"{value} [{tr(evidence.kind)}]"


def fill(name: str, values: Mapping) -> str:
    """A name with its fields filled; not by `str.format`, which would evaluate attributes and pad
    to any width in a file from others."""
    return FIELD.sub(lambda field: str(values[field[1]]), name)
