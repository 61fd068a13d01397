"""Notebook 05's verdict: the reach by the gradient, and the range that is used, as recorded."""

from collections.abc import Mapping

from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id, judge, number

FARTHEST = "farthest token that {layer} depends on: difference between two inputs"
RANGES = {
    "range-over-untrained": "used range, difference between two texts: trained minus untrained "
    "DynamicConv (paired by seed)",
    "range-over-fixed": "used range, difference between two texts: trained DynamicConv minus "
    "LightweightConv (paired by seed)",
    "range-dynamic": "used range, difference between two texts: trained DynamicConv "
    "(interval over seeds)",
    "range-untrained": "used range, difference between two texts: untrained DynamicConv "
    "(interval over seeds)",
    "range-fixed": "used range, difference between two texts: LightweightConv, whose weights are "
    "fixed (interval over seeds)",
    "range-attention": "used range, difference between two texts: attention trained the same way "
    "(control, interval over seeds)",
}


def dynamic_attention(evidence) -> Outcome:
    """Whether DynamicConv adapts the attention range to the input."""
    remarks = {
        "reach": "its width is a number in the constructor, and softmax weights are never zero; "
        "only a per-token adaptive span reaches further for some inputs",
        "used-range": "this is the part of a fixed-width kernel that carries most of the weight; "
        "after the same short training, the used range of attention, the control, moves by "
        "{attention} tokens from text to text, that of DynamicConv by {dynamic}",
    }
    ranges = by_id(evidence)
    values = {name: number(ranges[f"range-{name}"].value) for name in ("attention", "dynamic")}
    return judge("dynamic-attention", evidence, remarks=remarks, values=values)


def dynamic_evidence(
    reaches: Mapping[str, tuple[int, int]], ranges: Mapping[str, Estimate]
) -> list[Evidence]:
    """The farthest tokens of `measure.reaches`, and the record's `cases`."""
    layers = {"dynamic": "DynamicConv", "by-token": "adaptive span per token (untrained)"}
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
