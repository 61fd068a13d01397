"""Notebook 05's verdict, as a function of its evidence alone."""

from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id

RULE = (
    "it adapts its range if its reach, by the gradient, differs between inputs; on a condition if "
    "only the used range moves, as a share of the width, at least half as much as attention's (by "
    "the interval's lower end); not if less; undecided in between, or if attention's own moves by "
    "less than 5%"
)


def dynamic_evidence(
    dynamic: Estimate, attention: Estimate, fixed: Estimate, reach: int
) -> list[Evidence]:
    """What the verdict rests on: spreads of three used ranges over their width, 0 to 1."""
    used = "used range of a trained DynamicConv (90% of the weight), 5th to 95th percentile"
    unmoved = "the same of a LightweightConv, whose weights are fixed (negative control)"
    farthest = "farthest token that DynamicConv depends on: difference between two inputs"
    positive = "the same of stdlib-gpt's attention (positive control)"
    return [
        Evidence.of("range-dynamic", used, _percent(dynamic), "%"),
        Evidence.of("range-attention", positive, _percent(attention), "%"),
        Evidence.of("range-fixed", unmoved, _percent(fixed), "%"),
        Evidence("reach-difference", farthest, reach, "tokens"),
    ]


def _percent(share: Estimate) -> Estimate:
    return Estimate(*(100 * x for x in (share.mean, share.low, share.high)))


def dynamic_attention(evidence) -> Outcome:
    """Whether DynamicConv adapts the attention range to the input."""
    figures = by_id(evidence)
    dynamic, attention = figures["range-dynamic"], figures["range-attention"]
    if figures["reach-difference"].value >= 1:
        return Outcome(True, evidence, rule=RULE)
    if attention.low < 5:
        reason = "attention's used range does not move here either, so the test shows nothing"
        return Outcome(None, evidence, rule=RULE, reason=reason)
    if dynamic.low >= attention.value / 2:
        condition = "range means the part of its kernel that it uses; the kernel's width is fixed"
        return Outcome(True, evidence, rule=RULE, condition=condition)
    if dynamic.high < attention.value / 2:
        reason = "its reach is fixed, and the used range moves far less than attention's"
        return Outcome(False, evidence, rule=RULE, reason=reason)
    reason = "whether the used range moves half as much as attention's lies within the noise"
    return Outcome(None, evidence, rule=RULE, reason=reason)
