"""Notebook 10's verdict, and the evidence that it rests on."""

from collections.abc import Mapping, Sequence

from efflab.estimate import Estimate, bootstrap, paired_difference
from efflab.experiments.gptq_quality import BITS, METHODS
from efflab.lab import Evidence, Outcome, judge
from efflab_rooms.gptq import measure

ERROR = "{bits} bits: layers' error, GPTQ over round to nearest (interval by seed, {n} seeds)"
HERE = "{bits} bits, here: layers' error, GPTQ over round to nearest (interval by matrix)"
ADDED = "{bits} bits: bits per byte, GPTQ less round to nearest (interval by text)"
SEEDED = "{bits} bits: bits per byte, GPTQ less round to nearest (interval by seed, {n} seeds)"


def collect_evidence(bits: int, errors: Mapping[str, Sequence[float]]) -> list[Evidence]:
    """The record's evidence, and that of `measure.matrix_errors(bits)`."""
    ratios, seeded = {}, {}
    for width in BITS:
        nearest, points = measure.recorded_point(width, None, "rtn"), measure.seeded_points(width)
        ratios[width] = [point["layer_error"] / nearest["layer_error"] for point in points]
        seeded[width] = [point["bits_per_byte"] - nearest["bits_per_byte"] for point in points]
    paired = {
        run["bits"]: Estimate.widened(run["less"], run["less low"], run["less high"])
        for run in measure.record()["paired"]
    }
    return gptq_evidence(ratios, paired, seeded, bits, errors)


def gptq_evidence(
    ratios: Mapping[int, Sequence[float]],
    paired: Mapping[int, Estimate],
    seeded: Mapping[int, Sequence[float]],
    bits: int,
    errors: Mapping[str, Sequence[float]],
) -> list[Evidence]:
    """`ratios`: bits -> ratio of the layers' errors by seed of the calibration data; `paired` and
    `seeded`: bits -> difference of the model's losses, by text and by seed; `errors`: method ->
    error of each matrix here, at `bits`.
    """
    nearest, ours = (errors[method] for method in METHODS)
    return [
        *(_by_seed(f"error-{width}", ERROR, ratios[width], "x", width) for width in BITS),
        Evidence.of("error-here", HERE, bootstrap(ours, nearest), "x", bits=bits),
        *(
            Evidence.of(f"added-{width}", ADDED, paired[width], "", "recorded", bits=width)
            for width in BITS
        ),
        *(_by_seed(f"seeds-{width}", SEEDED, seeded[width], "", width) for width in BITS),
    ]


def _by_seed(id: str, name: str, values: Sequence[float], unit: str, bits: int) -> Evidence:
    """The mean over seeds with Student's t interval."""
    mean = paired_difference(values, [0.0] * len(values))
    return Evidence.of(id, name, mean, unit, "recorded", bits=bits, n=len(values))


def gptq_error(evidence) -> Outcome:
    """Whether GPTQ's calibration lowers the quantization error."""
    remarks = {
        "layers": "with 4,096 calibration tokens; with few, a wide layer can do worse",
        "model": "with 4,096 calibration tokens of the first seed; by seed it varies less",
    }
    return judge("gptq-error", evidence, remarks=remarks)
