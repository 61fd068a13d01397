"""Notebook 02's verdict, as a function of its figures alone."""

from collections.abc import Sequence

from efflab.estimate import Estimate, paired_difference
from efflab.lab import Evidence, Outcome, by_id

PUBLISHED_POINTS = 76.44 - 79.67

RULE = (
    "simpler if both the FLOPs of the whole model and the measured time of a layer are lower with "
    "95% confidence and outside the A/A band; on a condition if the weights then depend on the "
    "image's size; not if either is higher; undecided if the time lies within the noise"
)


NAMES = {
    "flops": "FLOPs for one image of 224 pixels, Mixer-B/16 over ViT-B/16",
    "time": "time of one layer at the largest image, Mixer over ViT",
    "band": "A/A band of these times",
    "weights": "a Mixer layer's token-mixing weights at twice the image side",
    "flops-equal-params": "FLOPs at equal parameters (the digits' models), Mixer over ViT",
    "digits": "accuracy on the digits, Mixer less ViT, seed by seed",
    "imagenet": "top-1 on ImageNet alone, Mixer-B/16 less ViT-B/16 "
    "(Tolstikhin et al. 2021, Table 3)",
}


def mixer_evidence(
    flop_ratio: float,
    time: Estimate,
    band: float,
    weights: float,
    equal: float,
    accuracy: dict[str, Sequence[float]],
) -> list[Evidence]:
    """What the verdict rests on; `time`: Mixer over ViT; `accuracy`: by kind, a value a seed."""
    points = paired_difference(
        *([100 * value for value in accuracy[kind]] for kind in ("mixer", "vit"))
    )
    values = {
        "flops": (flop_ratio, "x", "computed"),
        "time": (time.mean, "x", "measured", time.low, time.high),
        "band": (100 * band, "±%"),
        "weights": (weights, "x", "computed"),
        "flops-equal-params": (equal, "x", "computed"),
        "digits": (points.mean, "points", "recorded", points.low, points.high),
        "imagenet": (PUBLISHED_POINTS, "points", "published"),
    }
    return [Evidence(key, NAMES[key], *value) for key, value in values.items()]


def mixer_simpler(evidence) -> Outcome:
    """Whether mixing tokens by a learned matrix computes less than attention."""
    figure = by_id(evidence)
    time, band = figure["time"], figure["band"].value / 100
    if figure["flops"].value >= 1 or time.low > 1 + band:
        return Outcome(False, evidence, rule=RULE, reason="it computes or takes more")
    if time.high >= 1 - band:
        reason = "fewer FLOPs, but the difference in time lies within the noise here"
        return Outcome(None, evidence, rule=RULE, reason=reason)
    if figure["weights"].value > 1:
        condition = "all images have the one size that its weights were made for"
        return Outcome(True, evidence, rule=RULE, condition=condition)
    return Outcome(True, evidence, rule=RULE)
