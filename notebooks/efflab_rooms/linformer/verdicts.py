"""Notebook 04's verdict, as a function of its figures alone."""

from efflab.estimate import Estimate
from efflab.lab import Figure, Outcome, by_name
from efflab.structure.linformer import attention_flops, linformer_flops

PER_QUERY = "FLOPs of a query at twice the length, Linformer"
CONTROL = "FLOPs of a query at twice the length, full attention (control)"
ERROR = "error of the last layer's output in a model not trained with E and F"
OWN = "the same with the best rank k of each text"
TIME = "time of a layer at the longest length, Linformer over the fused kernel"
BAND = "A/A band of this time"
MEMORY = "peak memory of that layer, Linformer over the fused kernel"
LIMIT = 10

RULE = (
    "the size is fixed if what a query costs stays the same at twice the length, where full "
    "attention's doubles. It then holds without a condition if a finished model can be given E and "
    "F and errs by at most 10%; on a condition if it errs by more; not if the cost grows"
)


def linformer_figures(
    n: int, k: int, errors: tuple[float, float], time: Estimate, band: float, memory: float
) -> list[Figure]:
    """`errors`: of learned E and F, and of the best rank k, in per cent; ratios over the fused."""
    shape = 64  # channels: the ratio is the same for all
    twice = linformer_flops(2 * n, k, shape) / linformer_flops(n, k, shape) / 2
    full = attention_flops(2 * n, shape) / attention_flops(n, shape) / 2
    return [
        Figure(PER_QUERY, twice, "x", "computed"),
        Figure(CONTROL, full, "x", "computed"),
        Figure(ERROR, errors[0], "%"),
        Figure(OWN, errors[1], "%"),
        Figure.of(TIME, time, "x"),
        Figure(BAND, 100 * band, "±%"),
        Figure(MEMORY, memory, "x"),
    ]


def linformer_fixed(figures) -> Outcome:
    """Whether Linformer brings the key axis of the attention matrix to a fixed size."""
    found = by_name(figures)
    if found[PER_QUERY].value > 1:
        reason = "what a query costs grows with the length"
        return Outcome(False, figures, rule=RULE, reason=reason)
    if found[ERROR].value <= LIMIT:
        return Outcome(True, figures, rule=RULE)
    condition = (
        'the "dimension" is the matrix\'s key axis, the length, and the network is trained with '
        "its projections"
    )
    return Outcome(True, figures, rule=RULE, condition=condition)
