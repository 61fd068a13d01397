"""Notebook 05's verdict, as a function of its figures alone."""

from efflab.estimate import Estimate
from efflab.lab import Figure, Outcome, by_name

MOVED = "used range of a trained DynamicConv (90% of the weight), 5th to 95th percentile"
CONTROL = "the same of stdlib-gpt's attention (positive control)"
FIXED = "the same of a LightweightConv, whose weights are fixed (negative control)"
REACH = "farthest token that DynamicConv depends on: difference between two inputs"

RULE = (
    "it adapts its range if its reach, by the gradient, differs between inputs; on a condition if "
    "only the used range moves, as a share of the width, at least half as much as attention's (by "
    "the interval's lower end); not if less; undecided in between, or if attention's own moves by "
    "less than 5%"
)


def dynamic_figures(moved: Estimate, control: Estimate, fixed: Estimate, reach: int) -> list:
    """What the verdict rests on; the three moved shares of the width are 0 to 1."""
    shares = ((MOVED, moved), (CONTROL, control), (FIXED, fixed))
    percent = [
        Figure.of(name, Estimate(*(100 * x for x in (e.mean, e.low, e.high))), "%")
        for name, e in shares
    ]
    return [*percent, Figure(REACH, reach, "tokens")]


def dynamic_attention(figures) -> Outcome:
    """Whether DynamicConv adapts the attention range to the input."""
    found = by_name(figures)
    moved, control = found[MOVED], found[CONTROL]
    if found[REACH].value >= 1:
        return Outcome(True, figures, rule=RULE)
    if control.low < 5:
        reason = "attention's used range does not move here either, so the test shows nothing"
        return Outcome(None, figures, rule=RULE, reason=reason)
    if moved.low >= control.value / 2:
        condition = "range means the part of its kernel that it uses; the kernel's width is fixed"
        return Outcome(True, figures, rule=RULE, condition=condition)
    if moved.high < control.value / 2:
        reason = "its reach is fixed, and the used range moves far less than attention's"
        return Outcome(False, figures, rule=RULE, reason=reason)
    reason = "whether the used range moves half as much as attention's lies within the noise"
    return Outcome(None, figures, rule=RULE, reason=reason)
