"""Notebook 05's verdict: the reach by the gradient, and the range that is used, text by text."""

from collections.abc import Mapping, Sequence

from efflab.estimate import Estimate, paired_difference
from efflab.lab import Evidence, Outcome, judge

FARTHEST = "farthest token that {layer} depends on: difference between two inputs"
BETWEEN = {
    "dynamic": "used range between two texts at the same position, trained DynamicConv",
    "untrained": "used range between two texts, untrained DynamicConv",
    "fixed": "used range between two texts, LightweightConv, whose weights are fixed",
    "attention": "used range between two texts, attention",
}


def dynamic_attention(evidence) -> Outcome:
    """Whether DynamicConv adapts the attention range to the input."""
    remarks = {
        "reach": "its width is a number in the constructor, and softmax weights are never zero; an "
        "adaptive span by token is what reaches further for some inputs",
        "used-range": "this is the part of a fixed kernel that carries most of the weight; beyond "
        "the kernel nothing is seen",
    }
    return judge("dynamic-attention", evidence, remarks=remarks)


def dynamic_evidence(
    reaches: Mapping[str, tuple[int, int]], ranges: Mapping[str, Sequence[float]], kind="measured"
) -> list[Evidence]:
    """The farthest tokens of `measure.reaches`, and the tokens between texts of each mixer.

    `ranges`: a number a pair of texts (measured here), or a seed (`kind` "recorded").
    """
    layers = {"dynamic": "DynamicConv", "by-token": "adaptive span, by token (untrained)"}
    trained = ranges["dynamic"]
    more = {
        "untrained": "used range between two texts, trained less untrained DynamicConv",
        "fixed": "used range between two texts, trained DynamicConv less LightweightConv",
    }
    return [
        *(
            Evidence.exact(f"reach-{key}", FARTHEST, abs(a - b), "tokens", layer=layer)
            for key, layer in layers.items()
            for a, b in [reaches[layer]]
        ),
        *(
            Evidence.of(f"range-over-{key}", name, _mean(trained, ranges[key]), "tokens", kind)
            for key, name in more.items()
        ),
        *(
            Evidence.of(f"range-{key}", name, _mean(ranges[key]), "tokens", kind)
            for key, name in BETWEEN.items()
        ),
    ]


def _mean(values: Sequence[float], less: Sequence[float] | None = None) -> Estimate:
    """Mean of values, less others of the same texts or seeds, with its interval over them."""
    return paired_difference(values, less or [0.0] * len(values))
