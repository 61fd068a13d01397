"""Notebook 05's verdict: the reach by the gradient, and the range that is used, as recorded."""

from collections.abc import Mapping

from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id, judge, number

FARTHEST = "farthest token that {layer} depends on: difference between two inputs"
RANGES = {
    "range-over-untrained": "used range between two texts at the same position, trained "
    "DynamicConv less untrained (by seed)",
    "range-over-fixed": "used range between two texts, trained DynamicConv less LightweightConv "
    "(by seed)",
    "range-dynamic": "used range between two texts, trained DynamicConv (by seed)",
    "range-untrained": "used range between two texts, untrained DynamicConv (by seed)",
    "range-fixed": "used range between two texts, LightweightConv, whose weights are fixed "
    "(by seed)",
    "range-attention": "control: used range between two texts, attention trained alike (by seed)",
}


def dynamic_attention(evidence) -> Outcome:
    """Whether DynamicConv adapts the attention range to the input."""
    remarks = {
        "reach": "its width is a number in the constructor, and softmax weights are never zero; an "
        "adaptive span by token is what reaches further for some inputs",
        "used-range": "this is the part of a fixed kernel that carries most of the weight; after "
        "the same short training attention, the control, moves by {attention} tokens from text to "
        "text, DynamicConv by {dynamic}",
    }
    ranges = by_id(evidence)
    values = {name: number(ranges[f"range-{name}"].value) for name in ("attention", "dynamic")}
    return judge("dynamic-attention", evidence, remarks=remarks, values=values)


def dynamic_evidence(
    reaches: Mapping[str, tuple[int, int]], ranges: Mapping[str, Estimate]
) -> list[Evidence]:
    """The farthest tokens of `measure.reaches`, and the record's `cases`."""
    layers = {"dynamic": "DynamicConv", "by-token": "adaptive span, by token (untrained)"}
    counts = {key: abs(a - b) for key, layer in layers.items() for a, b in [reaches[layer]]}
    return [
        *(
            Evidence.exact(f"reach-{key}", FARTHEST, count, "tokens", layer=layers[key])
            for key, count in counts.items()
        ),
        *(
            Evidence.of(key, RANGES[key], apart, "tokens", "recorded")
            for key, apart in ranges.items()
        ),
    ]
