"""Notebook 10's verdict, and the evidence that it rests on."""

from collections.abc import Mapping, Sequence

from efflab.estimate import Estimate, of_median
from efflab.experiments.gptq_quality import METHODS
from efflab.lab import Evidence, Outcome, by_id
from efflab_rooms.gptq import measure

BITS = (3, 2, 4, 8)
"""Recorded bit widths, the deciding one first; all but 8 with several seeds."""

ERROR = "{bits} bits: layers' error, GPTQ over round to nearest"
ERROR_BY_SEED = "{bits} bits: layers' error, GPTQ over round to nearest (all recorded seeds)"
ADDED = "{bits} bits: bits per byte added, GPTQ less round to nearest"
RULE = (
    "it lowers the error if at every recorded bit width, and at the chosen one here, GPTQ's layer "
    "error is below that of rounding to nearest (by the worst seed where there are several); on a "
    "condition if too little calibration makes a wide layer worse than rounding; not if it fails "
    "at every width; undecided if at some"
)


def collect_evidence(
    live: Mapping[str, Mapping], errors: Mapping[str, tuple[float | None, float]]
) -> list[Evidence]:
    """The record's evidence, that of `measure.live_points` and of `measure.calibration_errors`."""
    ratios, added = {}, {}
    for bits in BITS:
        nearest, ours = (measure.recorded_point(bits, None, method) for method in METHODS)
        seeded = measure.seeded_points(bits)
        ratios[bits] = [point["layer_error"] / nearest["layer_error"] for point in seeded]
        added[bits] = ours["bits_per_byte"] - nearest["bits_per_byte"]
    here = live["gptq"]["layer_error"] / live["rtn"]["layer_error"]
    return gptq_evidence(ratios, added, here, errors["few"][1] / errors["nearest"][1])


def gptq_evidence(
    ratios: Mapping[int, Sequence[float]], added: Mapping[int, float], here: float, little: float
) -> list[Evidence]:
    """`ratios`: bits -> ratio of layer errors by seed; `added`: bits -> difference of losses."""
    here_name = "layers' error at the chosen bits, GPTQ over round to nearest, here"
    few = "a layer of 768 inputs, few calibration tokens: held-out error over round to nearest's"
    losses = [
        Evidence(f"added-{bits}", ADDED, added[bits], "", "recorded", values={"bits": bits})
        for bits in BITS
    ]
    return [
        *(_error(bits, ratios[bits]) for bits in BITS),
        *losses,
        Evidence("error-here", here_name, here, "x"),
        Evidence("few-tokens", few, little, "x"),
    ]


def _error(bits: int, seeds: Sequence[float]) -> Evidence:
    """The ratio of layer errors; of several seeds the median, from the least to the most."""
    key = f"error-{bits}"
    if len(seeds) == 1:
        return Evidence(key, ERROR, seeds[0], "x", "recorded", values={"bits": bits})
    spread = Estimate(of_median(seeds).mean, min(seeds), max(seeds))
    return Evidence.of(key, ERROR_BY_SEED, spread, "x", "recorded", bits=bits)


def gptq_error(evidence) -> Outcome:
    """Whether GPTQ's calibration lowers the quantization error."""
    items = by_id(evidence)
    errors = [items[f"error-{bits}"] for bits in (*BITS, "here")]
    lower = [(f.value if f.high is None else f.high) < 1 for f in errors]
    if not any(lower):
        reason = "its error is no smaller at any width"
        return Outcome(False, evidence, rule=RULE, reason=reason)
    if not all(lower):
        reason = "its error is smaller at some widths or seeds and not at others"
        return Outcome(None, evidence, rule=RULE, reason=reason)
    if items["few-tokens"].value >= 1:
        condition = "calibration has several times more tokens than the widest layer has inputs"
        return Outcome(True, evidence, rule=RULE, condition=condition)
    return Outcome(True, evidence, rule=RULE)
