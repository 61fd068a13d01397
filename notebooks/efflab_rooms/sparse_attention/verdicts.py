"""Notebook 03's verdict, as a function of its figures alone."""

from efflab.estimate import Estimate
from efflab.lab import Figure, Outcome, by_name

WINDOW = "exponent of a window's time over the length"
FULL = "exponent of full attention's time over the length (control)"
BLOCKS = "exponent of BigBird's time over the length"
PAIRS = "exponent of a window's pairs, last doubling"
WITHIN = "recall within a window's reach (control)"
BEYOND = "recall beyond a window's reach"
GLOBAL = "recall as far with a global block"
LINEAR, RECALLS, CHANCE = 1.5, 0.6, 0.3

RULE = (
    "O(n) holds if the exponent of a window's time is below 1.5, nearer to 1 than to 2, with 95% "
    "confidence; on a condition if a stack of windows then cannot recall what lies beyond its "
    "reach (below 0.3, where it recalls over 0.6 within); not if the exponent is above 1.5; "
    "undecided if it lies within the noise, or the recall test fails within reach as well"
)


def sparse_figures(
    window: Estimate,
    full: Estimate,
    blocks: Estimate,
    pairs: float,
    recall: tuple[float, float, float],
) -> list[Figure]:
    """Exponents with the fit's interval; `recall`: within reach, beyond, with a global block."""
    exponents = ((WINDOW, window), (FULL, full), (BLOCKS, blocks))
    figures = [Figure.of(name, estimate) for name, estimate in exponents]
    figures.append(Figure(PAIRS, pairs, "", "computed"))
    names = (WITHIN, BEYOND, GLOBAL)
    return figures + [Figure(name, value) for name, value in zip(names, recall, strict=True)]


def sparse_linear(figures) -> Outcome:
    """Whether windows and blocks bring attention down to O(n), and at what price."""
    found = by_name(figures)
    window = found[WINDOW]
    if window.low > LINEAR:
        reason = "a window's time grows nearer to n² than to n here"
        return Outcome(False, figures, rule=RULE, reason=reason)
    if window.high >= LINEAR:
        reason = "the exponent's interval does not tell n from n² here"
        return Outcome(None, figures, rule=RULE, reason=reason)
    if found[BEYOND].value >= CHANCE:
        return Outcome(True, figures, rule=RULE)
    if found[WITHIN].value < RECALLS:
        reason = "time is linear, but the recall test fails within reach as well"
        return Outcome(None, figures, rule=RULE, reason=reason)
    condition = "nothing is needed from beyond layers × window tokens, or a global block carries it"
    return Outcome(True, figures, rule=RULE, condition=condition)
