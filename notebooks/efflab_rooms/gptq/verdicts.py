"""Notebook 10's verdict, and the evidence that it rests on."""

from collections.abc import Mapping, Sequence

from efflab.estimate import Estimate, of_mean
from efflab.experiments import gptq_crossing as crossing
from efflab.experiments.gptq_quality import BITS
from efflab.lab import Evidence, Outcome, judge
from efflab_rooms.gptq import measure

TOKENS = "{n} calibration tokens, 3 bits: layers' error, GPTQ / round to nearest (by seed)"
WIDE = (
    "{n} calibration tokens, 3 bits: six widest matrices' error, GPTQ / round to nearest (by seed)"
)
ERROR = "{bits} bits: layers' error, GPTQ / round to nearest (interval by seed, {n} seeds)"
ADDED = "{bits} bits: bits per byte, GPTQ minus round to nearest (interval by text)"
SEEDED = "{bits} bits: bits per byte, GPTQ minus round to nearest (interval by seed, {n} seeds)"


def collect_evidence() -> list[Evidence]:
    """The two records' evidence."""
    ratios, seeded = {}, {}
    for width in BITS:
        nearest, points = measure.recorded_point(width, None, "rtn"), measure.seeded_points(width)
        ratios[width] = [point["layer_error"] / nearest["layer_error"] for point in points]
        seeded[width] = [point["bits_per_byte"] - nearest["bits_per_byte"] for point in points]
    paired = {
        run["bits"]: Estimate.widened(run["less"], run["less low"], run["less high"])
        for run in measure.record()["paired"]
    }
    return gptq_evidence(measure.crossing_ratios(), ratios, paired, seeded)


def gptq_evidence(
    crossing_ratios: Mapping[str, Mapping[int, Estimate]],
    ratios: Mapping[int, Sequence[float]],
    paired: Mapping[int, Estimate],
    seeded: Mapping[int, Sequence[float]],
) -> list[Evidence]:
    """`crossing_ratios`: those of `measure`; `ratios`: bits -> ratio of the layers' errors by seed
    of the calibration data; `paired` and `seeded`: bits -> difference of the model's losses, by
    text and by seed.
    """
    by_tokens, wide = crossing_ratios["all"], crossing_ratios["down"]
    return [
        *(_crossing("tokens", TOKENS, by_tokens[n], n) for n in crossing.TOKENS),
        *(_crossing("wide", WIDE, wide[n], n) for n in (512, 4096)),
        *(_by_seed(f"error-{width}", ERROR, ratios[width], "x", width) for width in (2, 4, 8)),
        *(
            Evidence.of(f"added-{width}", ADDED, paired[width], "", "recorded", bits=width)
            for width in BITS
        ),
        *(_by_seed(f"seeds-{width}", SEEDED, seeded[width], "", width) for width in BITS),
    ]


def _crossing(id: str, name: str, ratio: Estimate, n: int) -> Evidence:
    return Evidence.of(f"{id}-{n}", name, ratio, "x", "recorded", n=f"{n:,}")


def _by_seed(id: str, name: str, values: Sequence[float], unit: str, bits: int) -> Evidence:
    """The mean over seeds with Student's t interval."""
    mean = of_mean(values)
    return Evidence.of(id, name, mean, unit, "recorded", bits=bits, n=len(values))


def gptq_error(evidence) -> Outcome:
    """Whether GPTQ's calibration lowers the quantization error."""
    remarks = {
        "layers": "with 512 tokens or fewer, all matrices together still gain, but the widest ones "
        "err more on average than with rounding to nearest",
        "model": "with 4,096 calibration tokens from the first seed; for results by seed see the "
        "last values",
    }
    return judge("gptq-error", evidence, remarks=remarks)
