"""Notebook 10's verdict, and the evidence that it rests on."""

from collections.abc import Mapping, Sequence

from efflab.estimate import bootstrap, paired_difference
from efflab.experiments.gptq_quality import BITS, METHODS
from efflab.lab import Evidence, Outcome, judge
from efflab_rooms.gptq import measure

ERROR = "{bits} bits: layers' error, GPTQ over round to nearest (interval by seed, {n} seeds)"
ADDED = "{bits} bits: bits per byte, GPTQ less round to nearest (interval by seed, {n} seeds)"
HERE = "{bits} bits, here: layers' error, GPTQ over round to nearest (interval by matrix)"


def collect_evidence(bits: int, errors: Mapping[str, Sequence[float]]) -> list[Evidence]:
    """The record's evidence, and that of `measure.matrix_errors(bits)`."""
    ratios, added = {}, {}
    for width in BITS:
        nearest, seeded = measure.recorded_point(width, None, "rtn"), measure.seeded_points(width)
        ratios[width] = [point["layer_error"] / nearest["layer_error"] for point in seeded]
        added[width] = [point["bits_per_byte"] - nearest["bits_per_byte"] for point in seeded]
    return gptq_evidence(ratios, added, bits, errors)


def gptq_evidence(
    ratios: Mapping[int, Sequence[float]],
    added: Mapping[int, Sequence[float]],
    bits: int,
    errors: Mapping[str, Sequence[float]],
) -> list[Evidence]:
    """`ratios`: bits -> ratio of the layers' errors by seed of the calibration data; `added`: bits
    -> difference of the model's losses; `errors`: method -> error of each matrix here, at `bits`.
    """
    nearest, ours = (errors[method] for method in METHODS)
    here = bootstrap(ours, nearest)
    return [
        *(_by_seed(f"error-{width}", ERROR, ratios[width], "x", width) for width in BITS),
        *(_by_seed(f"added-{width}", ADDED, added[width], "", width) for width in BITS),
        Evidence.of("error-here", HERE, here, "x", bits=bits),
    ]


def _by_seed(id: str, name: str, values: Sequence[float], unit: str, bits: int) -> Evidence:
    """The mean over seeds with Student's t interval."""
    mean = paired_difference(values, [0.0] * len(values))
    return Evidence.of(id, name, mean, unit, "recorded", bits=bits, n=len(values))


def gptq_error(evidence) -> Outcome:
    """Whether GPTQ's calibration lowers the quantization error."""
    remark = (
        "on our 3M model, with 4,096 calibration tokens; the intervals leave out that other "
        "held-out texts would differ too"
    )
    return judge("gptq-error", evidence, remarks={"layers": remark, "model": remark})
