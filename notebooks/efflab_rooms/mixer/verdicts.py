"""Notebook 02's verdict, as a function of its figures alone."""

from collections.abc import Mapping, Sequence

from efflab.estimate import Estimate, paired_difference
from efflab.lab import Evidence, Outcome, by_id, judge, number

FLOPS = "FLOPs per image, {side} pixels per side, Mixer-B/16 / ViT-B/16"
EQUAL = "FLOPs at equal parameters, {side} pixels per side, Mixer-B/16 / narrower ViT"
EQUAL_DIGITS = "FLOPs at equal parameters, our digit models, Mixer / ViT"
TIME = (
    "time of one layer, {side} pixels per side, Mixer / ViT (by repeat, widened by the A/A noise)"
)
WEIGHTS = "a Mixer layer's token-mixing weights, twice the image side / original"
DIGITS = "accuracy on the digits, Mixer minus ViT (paired by seed)"
IMAGENET = (
    "top-1, trained on ImageNet alone, Mixer-B/16 minus ViT-B/16 (Tolstikhin et al. 2021, Table 3)"
)
PUBLISHED_POINTS = 76.44 - 79.67
ONE_SIZE = (
    "its weights are for images of one size: at twice the side, with d_token kept, "
    "token mixing needs {times} times the weights"
)
SIZES = ("eighth", "quarter", "half", "largest")


def mixer_evidence(
    flops: Mapping[int, float],
    times: Mapping[int, Estimate],
    equal: Mapping[int, float],
    digits_flops: float,
    weights: float,
    accuracy: Mapping[str, Sequence[float]],
) -> list[Evidence]:
    """What the verdict rests on, Mixer / ViT.

    `flops`, `equal` (at equal parameters) and `times` by image side, times smallest first;
    `digits_flops`: at equal parameters; `weights`: growth at twice the side; `accuracy`: by kind, a
    value a seed.
    """
    points = paired_difference(
        *([100 * value for value in accuracy[kind]] for kind in ("mixer", "vit"))
    )
    return [
        *(Evidence(f"flops-{n}", FLOPS, x, "x", values={"side": n}) for n, x in flops.items()),
        *(
            Evidence.of(f"time-{size}", TIME, time, "x", side=side)
            for size, (side, time) in zip(SIZES, times.items(), strict=True)
        ),
        *(Evidence(f"equal-{n}", EQUAL, x, "x", values={"side": n}) for n, x in equal.items()),
        Evidence("equal-digits", EQUAL_DIGITS, digits_flops, "x"),
        Evidence("weights", WEIGHTS, weights, "x"),
        Evidence.of("digits", DIGITS, points, "points", "recorded"),
        Evidence("imagenet", IMAGENET, PUBLISHED_POINTS, "points", "published"),
    ]


def mixer_simpler(evidence) -> Outcome:
    """Whether mixing tokens by a learned matrix computes less than attention."""
    values = dict(times=number(by_id(evidence)["weights"].value))
    return judge("mixer-simpler", evidence, remarks={"flops": ONE_SIZE}, values=values)
