"""Notebook 02's verdict, as a function of its figures alone."""

from collections.abc import Sequence

from efflab.estimate import Estimate, paired
from efflab.lab import Figure, Outcome, by_name

FLOPS = "FLOPs for one image of 224 pixels, Mixer-B/16 over ViT-B/16"
TIME = "time of one layer at the largest image, Mixer over ViT"
BAND = "A/A band of these times"
WEIGHTS = "a Mixer layer's token-mixing weights at twice the image side"
EQUAL = "FLOPs at equal parameters (the digits' models), Mixer over ViT"
DIGITS = "accuracy on the digits, Mixer less ViT, seed by seed"
IMAGENET = "top-1 on ImageNet alone, Mixer-B/16 less ViT-B/16 (Tolstikhin et al. 2021, Table 3)"
PUBLISHED_POINTS = 76.44 - 79.67

RULE = (
    "simpler if both the FLOPs of the whole model and the measured time of a layer are lower with "
    "95% confidence and outside the A/A band; on a condition if the weights then depend on the "
    "image's size; not if either is higher; undecided if the time lies within the noise"
)


def mixer_figures(
    flop_ratio: float,
    time: Estimate,
    band: float,
    weights: float,
    equal: float,
    accuracy: dict[str, Sequence[float]],
) -> list[Figure]:
    """What the verdict rests on; `time`: Mixer over ViT; `accuracy`: by kind, a value a seed."""
    points = paired(*([100 * value for value in accuracy[kind]] for kind in ("mixer", "vit")))
    return [
        Figure(FLOPS, flop_ratio, "x", "computed"),
        Figure.of(TIME, time, "x"),
        Figure(BAND, 100 * band, "±%"),
        Figure(WEIGHTS, weights, "x", "computed"),
        Figure(EQUAL, equal, "x", "computed"),
        Figure.of(DIGITS, points, "points", "recorded"),
        Figure(IMAGENET, PUBLISHED_POINTS, "points", "published"),
    ]


def mixer_simpler(figures) -> Outcome:
    """Whether mixing tokens by a learned matrix computes less than attention."""
    found = by_name(figures)
    time, band = found[TIME], found[BAND].value / 100
    if found[FLOPS].value >= 1 or time.low > 1 + band:
        return Outcome(False, figures, rule=RULE, reason="it computes or takes more")
    if time.high >= 1 - band:
        reason = "fewer FLOPs, but the difference in time lies within the noise here"
        return Outcome(None, figures, rule=RULE, reason=reason)
    if found[WEIGHTS].value > 1:
        condition = "all images have the one size that its weights were made for"
        return Outcome(True, figures, rule=RULE, condition=condition)
    return Outcome(True, figures, rule=RULE)
