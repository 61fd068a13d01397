"""Notebook 04's verdict, as a function of its evidence alone."""

from collections.abc import Mapping

from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id, judge, number

QUERY = (
    'so the "dimension" is the matrix\'s key axis, the length: shrinking the width would leave n² '
    "scores"
)
LAYER = (
    "in a finished MiniLM one pair E and F for all heads of the last layer is {held}% off on new "
    "texts, {own}% on those it was fitted to: the paper trains the whole network with them"
)

TRAINED = {
    "trained-quarter": "loss over full attention's: 32 summaries of 128 bytes, E and F trained",
    "trained-eighth": "the same with 16 summaries",
    "trained-half": "the same with 64 summaries",
    "trained-means": "the same with the means of 32 segments, the network trained with them",
    "trained-started": "the same with E and F trained from these means on",
    "trained-over-means": "loss with 32 summaries, E and F trained, over that with segment means",
    "started-over-means": "the same with E and F trained from the means on",
    "trained-uniform": "loss over full attention's: a mean of all bytes in its place (control)",
    "trained-fitted": "the same with E and F alone fitted to the trained network (control)",
    "places-started": "loss over full attention's on images: 16 summaries of 64 pixels",
    "places-uniform": "the same with a mean of all pixels in its place (control)",
}
"""In nats a masked byte or pixel, by seed, each with its own texts."""
STARTED = (
    "the same network trained with plain segment means comes to {means} nats over full attention, "
    "with E and F trained from these on to {started}"
)


def query_evidence(linformer: tuple[int, int], full: tuple[int, int]) -> list[Evidence]:
    """`linformer`, `full`: FLOPs of attention at one length and at twice that length."""
    query = "FLOPs of a query at twice the length, Linformer"
    query_full = "FLOPs of a query at twice the length, full attention (control)"
    once, twice = linformer
    full_once, full_twice = full
    return [
        Evidence("query-flops", query, twice / once / 2, "x"),
        Evidence("query-flops-full", query_full, full_twice / full_once / 2, "x"),
    ]


def layer_evidence(
    costs: Mapping[str, tuple[Estimate, float]],
    errors: Mapping[str, Estimate],
    over_fused: tuple[Estimate, float],
) -> list[Evidence]:
    """`costs`: of a token (time, memory), by layer, over half the length; `errors`: in per cent.

    `over_fused`: time, with its A/A noise, and memory of a layer over the fused kernel's.
    """
    (time, memory), (full_time, _) = costs["Linformer"], costs["full"]
    slower = "time of a layer at the longest length, Linformer over the fused kernel (with noise)"
    peak = "peak memory of that layer, Linformer over the fused kernel"
    held = "error of the last layer's output in a finished model, fitted E and F (by text)"
    own = "the same on the texts that they were fitted to"
    best = "the same with each text's best matrix of rank k"
    return [
        Evidence.of("layer-time", "time a token at twice the length, Linformer layer", time, "x"),
        Evidence.exact("layer-memory", "peak memory a token at twice the length", memory, "x"),
        Evidence.of("full-time", "time a token, full attention layer (control)", full_time, "x"),
        Evidence.of("over-fused", slower, over_fused[0], "x"),
        Evidence.exact("memory-over-fused", peak, over_fused[1], "x"),
        Evidence.of("error", held, errors["learned"], "%"),
        Evidence.of("error-own", own, errors["own"], "%"),
        Evidence.of("error-best-rank", best, errors["best"], "%"),
    ]


def trained_evidence(costs: Mapping[str, Estimate]) -> list[Evidence]:
    """From a record's `cases`."""
    return [Evidence.of(key, TRAINED[key], cost, "nats", "recorded") for key, cost in costs.items()]


def linformer_fixed(evidence) -> Outcome:
    """Whether Linformer brings the key axis of the attention matrix to a fixed size."""
    items = by_id(evidence)
    values = dict(own=number(items["error-own"].value), held=number(items["error"].value))
    remarks = dict(query=QUERY, layer=LAYER)
    return judge("linformer-fixed", evidence, remarks=remarks, values=values)


def linformer_trained(evidence) -> Outcome:
    """Whether a network trained with E and F is as good as with full attention."""
    items = by_id(evidence)
    ids = dict(means="trained-means", started="trained-started")
    values = {name: number(items[id].value) for name, id in ids.items()}
    return judge("linformer-trained", evidence, remarks=dict(text=STARTED), values=values)


def linformer_places(evidence) -> Outcome:
    """Whether summaries of places do as well as attention where places mean the same."""
    return judge("linformer-places", evidence)
