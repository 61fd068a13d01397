"""Notebook 10's verdict, as a function of its figures alone."""

from collections.abc import Mapping, Sequence

from efflab.estimate import Estimate, of_median
from efflab.lab import Figure, Outcome, by_name

BITS = (3, 2, 4, 8)
"""Recorded bit widths, the deciding one first; all but 8 with several seeds."""

ERROR = {
    3: "3 bits: layers' error, GPTQ over round to nearest (all recorded seeds)",
    2: "2 bits: layers' error, GPTQ over round to nearest (all recorded seeds)",
    4: "4 bits: layers' error, GPTQ over round to nearest (all recorded seeds)",
    8: "8 bits: layers' error, GPTQ over round to nearest",
}
ADDED = {
    3: "3 bits: bits per byte added, GPTQ less round to nearest",
    2: "2 bits: bits per byte added, GPTQ less round to nearest",
    4: "4 bits: bits per byte added, GPTQ less round to nearest",
    8: "8 bits: bits per byte added, GPTQ less round to nearest",
}
HERE = "layers' error at the chosen bits, GPTQ over round to nearest, here"
LITTLE = "a layer of 768 inputs, few calibration tokens: held-out error over round to nearest's"
RULE = (
    "it lowers the error if at every recorded bit width, and at the chosen one here, GPTQ's layer "
    "error is below that of rounding to nearest (by the worst seed where there are several); on a "
    "condition if too little calibration makes a wide layer worse than rounding; not if it fails "
    "at every width; undecided if at some"
)


def gptq_figures(
    errors: Mapping[int, Sequence[float]], added: Mapping[int, float], here: float, little: float
) -> list[Figure]:
    """`errors`: bits -> ratio of layer errors by seed; `added`: bits -> difference of losses."""
    figures = []
    for bits in BITS:
        seeds = errors[bits]
        if len(seeds) > 1:
            spread = Estimate(of_median(seeds).mean, min(seeds), max(seeds))
            figures.append(Figure.of(ERROR[bits], spread, "x", "recorded"))
        else:
            figures.append(Figure(ERROR[bits], seeds[0], "x", "recorded"))
    figures += [Figure(ADDED[bits], added[bits], "", "recorded") for bits in BITS]
    return [*figures, Figure(HERE, here, "x"), Figure(LITTLE, little, "x")]


def gptq_error(figures) -> Outcome:
    """Whether GPTQ's calibration lowers the quantization error."""
    found = by_name(figures)
    errors = [found[name] for name in (*ERROR.values(), HERE)]
    lower = [(f.value if f.high is None else f.high) < 1 for f in errors]
    if not any(lower):
        reason = "its error is no smaller at any width"
        return Outcome(False, figures, rule=RULE, reason=reason)
    if not all(lower):
        reason = "its error is smaller at some widths or seeds and not at others"
        return Outcome(None, figures, rule=RULE, reason=reason)
    if found[LITTLE].value >= 1:
        condition = "calibration has more tokens than the widest layer has inputs, or is damped"
        return Outcome(True, figures, rule=RULE, condition=condition)
    return Outcome(True, figures, rule=RULE)
