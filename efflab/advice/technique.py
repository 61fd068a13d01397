"""A technique's gains by budget in one case, its loss of quality, and the sources."""

from collections.abc import Mapping
from dataclasses import dataclass

from efflab.advice.case import BUDGETS, SERVING
from efflab.errors import require, require_one_of

KINDS = ("measured", "recorded", "computed", "published")


@dataclass(frozen=True)
class Gain:
    """How many times less of a budget is needed, at least and at most, with kind and source.

    `model`: the one that it was measured on or published for; None for a formula. `unit`: "x", or
    what there is now where there was nothing before.
    """

    low: float
    high: float
    kind: str
    source: str
    model: str | None = None
    unit: str = "x"

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
    """A technique's loss of quality: per cent of `metric`, with its interval if any.

    `model`: the one that it was measured on or published for; None where it holds for all.
    """

    value: float
    metric: str
    kind: str
    source: str
    low: float | None = None
    high: float | None = None
    model: str | None = None

    @property
    def most(self) -> float:
        """The upper end of the loss."""
        return self.value if self.high is None else self.high


@dataclass(frozen=True)
class Technique:
    """A technique in a case: for each budget a `Gain`, or in words why it does not help.

    For the budget "quality", `loss` counts. `notebook` is the one that teaches it.
    """

    name: str
    notebook: str
    budgets: Mapping[str, Gain | str]
    loss: Loss | None = None
    structural: bool = False

    def __post_init__(self):
        own, expected = sorted(self.budgets), sorted({*BUDGETS, *SERVING} - {"quality"})
        require(own == expected, "budgets", own, f"{expected}")
