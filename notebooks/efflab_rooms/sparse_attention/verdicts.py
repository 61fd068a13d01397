"""Notebook 03's verdict, as a function of its evidence alone."""

import math

from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id
from efflab.structure.window import visible_pairs

LINEAR, RECALLS, CHANCE = 1.5, 0.6, 0.3

RULE = (
    "O(n) holds if the exponent of a window's time is below 1.5, nearer to 1 than to 2, with 95% "
    "confidence; on a condition if a stack of windows then cannot recall what lies beyond its "
    "reach (below 0.3, where it recalls over 0.6 within); not if the exponent is above 1.5; "
    "undecided if it lies within the noise, or the recall test fails within reach as well"
)


def pairs_exponent(max_len: int, window_size: int) -> float:
    """The exponent of a window's pairs over the last doubling of the length."""
    return math.log2(visible_pairs(max_len, window_size) / visible_pairs(max_len // 2, window_size))


def sparse_evidence(
    window: Estimate,
    full: Estimate,
    blocks: Estimate,
    pairs: float,
    recall: tuple[float, float, float],
) -> list[Evidence]:
    """Exponents with the fit's interval; `recall`: within reach, beyond, with a global block."""
    within, beyond, with_global = recall
    control = "exponent of full attention's time over the length (control)"
    last = "exponent of a window's pairs, last doubling"
    return [
        Evidence.of("window-time", "exponent of a window's time over the length", window),
        Evidence.of("full-time", control, full),
        Evidence.of("bigbird-time", "exponent of BigBird's time over the length", blocks),
        Evidence("window-pairs", last, pairs, "", "computed"),
        Evidence("recall-within", "recall inside one window, within reach (control)", within),
        Evidence("recall-beyond", "recall beyond the reach of all layers' windows", beyond),
        Evidence("recall-global", "recall as far with a global block", with_global),
    ]


def sparse_linear(evidence) -> Outcome:
    """Whether windows and blocks bring attention down to O(n), and at what price."""
    figures = by_id(evidence)
    window = figures["window-time"]
    if window.low > LINEAR:
        reason = "a window's time grows nearer to n² than to n here"
        return Outcome(False, evidence, rule=RULE, reason=reason)
    if window.high >= LINEAR:
        reason = "the exponent's interval does not tell n from n² here"
        return Outcome(None, evidence, rule=RULE, reason=reason)
    if figures["recall-beyond"].value >= CHANCE:
        return Outcome(True, evidence, rule=RULE)
    if figures["recall-within"].value < RECALLS:
        reason = "time is linear, but the recall test fails within reach as well"
        return Outcome(None, evidence, rule=RULE, reason=reason)
    condition = "nothing is needed from beyond layers × window tokens, or a global block carries it"
    return Outcome(True, evidence, rule=RULE, condition=condition)
