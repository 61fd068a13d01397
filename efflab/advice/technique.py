"""What is known of a technique in one case: gains by budget, what it costs, where that stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from efflab.advice.case import BUDGETS
from efflab.errors import require, require_one_of

KINDS = ("measured", "recorded", "computed", "published")


@dataclass(frozen=True)
class Gain:
    """How many times less of a budget is needed, at least and at most, and where that stands."""

    low: float
    high: float
    kind: str
    source: str

    def __post_init__(self):
        require_one_of("kind", self.kind, KINDS)
        require(0 < self.low <= self.high, "low", self.low, f"above 0, at most high={self.high}")
        require(bool(self.source), "source", self.source, "where the number stands")

    @classmethod
    def computed(cls, value: float, source: str, other: float | None = None) -> "Gain":
        """A gain by formula, or the interval between two of them."""
        ends = sorted((value, value if other is None else other))
        return cls(ends[0], ends[1], "computed", source)


@dataclass(frozen=True)
class Loss:
    """What a technique takes from the quality: per cent of `metric`, with the interval if any."""

    value: float
    metric: str
    kind: str
    source: str
    low: float | None = None
    high: float | None = None

    @property
    def most(self) -> float:
        """The upper end of what is lost."""
        return self.value if self.high is None else self.high


@dataclass(frozen=True)
class Technique:
    """A technique in a case: for each budget a `Gain`, or in words why it does not serve it.

    Budget "quality" is judged by `loss`. `notebook` teaches it.
    """

    name: str
    notebook: str
    budgets: Mapping[str, Gain | str] = field(default_factory=dict)
    loss: Loss | None = None
    structural: bool = False

    def __post_init__(self):
        asked = set(BUDGETS) - {"quality"}
        require(set(self.budgets) == asked, "budgets", sorted(self.budgets), f"{sorted(asked)}")
