"""Notebook 04's verdict, as a function of its evidence alone."""

from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id
from efflab.structure.linformer import attention_flops, linformer_flops

LIMIT = 10

RULE = (
    "the size is fixed if what a query costs stays the same at twice the length, where full "
    "attention's doubles. It then holds without a condition if a finished model can be given E and "
    "F and errs by at most 10%; on a condition if it errs by more; not if the cost grows"
)


def linformer_evidence(
    n: int, k: int, errors: tuple[float, float], time: Estimate, band: float, memory: float
) -> list[Evidence]:
    """`errors`: of learned E and F, and of the best rank k, in per cent; ratios over the fused."""
    shape = 64  # channels: the ratio is the same for all
    twice = linformer_flops(2 * n, k, shape) / linformer_flops(n, k, shape) / 2
    full = attention_flops(2 * n, shape) / attention_flops(n, shape) / 2
    query = "FLOPs of a query at twice the length, Linformer"
    query_full = "FLOPs of a query at twice the length, full attention (control)"
    error = "error of the last layer's output in a finished model, E and F fitted in a few steps"
    best = "the same with each text's best matrix of rank k"
    slower = "time of a layer at the longest length, Linformer over the fused kernel"
    peak = "peak memory of that layer, Linformer over the fused kernel"
    return [
        Evidence("query-flops", query, twice, "x", "computed"),
        Evidence("query-flops-full", query_full, full, "x", "computed"),
        Evidence("error", error, errors[0], "%"),
        Evidence("error-best-rank", best, errors[1], "%"),
        Evidence.of("time", slower, time, "x"),
        Evidence("band", "A/A band of this time", 100 * band, "±%"),
        Evidence("memory", peak, memory, "x"),
    ]


def linformer_fixed(evidence) -> Outcome:
    """Whether Linformer brings the key axis of the attention matrix to a fixed size."""
    figures = by_id(evidence)
    if figures["query-flops"].value > 1:
        reason = "what a query costs grows with the length"
        return Outcome(False, evidence, rule=RULE, reason=reason)
    if figures["error"].value <= LIMIT:
        return Outcome(True, evidence, rule=RULE)
    condition = (
        'the "dimension" is the matrix\'s key axis, the length, and the network is trained with '
        "its projections"
    )
    return Outcome(True, evidence, rule=RULE, condition=condition)
