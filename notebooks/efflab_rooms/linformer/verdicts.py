"""Notebook 04's verdict, as a function of its evidence alone."""

from collections.abc import Mapping

from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id, judge, number

QUERY = (
    'so the "dimension" is the matrix\'s key axis, the length: shrinking the width would leave n² '
    "scores"
)
LAYER = (
    "in a finished MiniLM, one pair E and F for all heads of the last layer is {held}% off on new "
    "texts, {own}% on those it was fitted to; the paper trains the whole network with them"
)

TRAINED = {
    "trained-quarter": "loss above full attention: 32 summaries of 128 bytes, E and F trained",
    "trained-eighth": "loss above full attention: 16 summaries of 128 bytes, E and F trained",
    "trained-half": "loss above full attention: 64 summaries of 128 bytes, E and F trained",
    "trained-means": "loss above full attention: 32 segment means, network trained with them",
    "trained-started": "loss above full attention: 32 summaries, E and F trained, starting from "
    "segment means",
    "trained-over-means": "loss with 32 summaries, E and F trained, minus that with segment means",
    "started-over-means": "the same, E and F trained starting from segment means",
    "trained-uniform": "loss above full attention: mean of all bytes in its place (control)",
    "trained-fitted": "loss above full attention: only E and F fitted to the trained network "
    "(control)",
    "places-started": "loss above full attention on images: 16 summaries of 64 pixels",
    "places-uniform": "loss above full attention on images: mean of all pixels in its place "
    "(control)",
}
"""In nats per masked byte or pixel, by seed, each with its own texts."""
STARTED = (
    "the same network trained with plain segment means is {means} nats above full attention; "
    "with E and F trained starting from them, {started}"
)


def query_evidence(linformer: tuple[int, int], full: tuple[int, int]) -> list[Evidence]:
    """`linformer`, `full`: FLOPs of attention at one length and at twice that length."""
    query = "FLOPs per query, double / single length, Linformer"
    query_full = "FLOPs per query, double / single length, full attention (control)"
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
    """`costs`: per token (time, memory), by layer, double / single length; `errors`: in per cent.

    `over_fused`: time, with its A/A noise, and memory of a layer / the fused kernel's.
    """
    (time, memory), (full_time, _) = costs["Linformer"], costs["full"]
    per_token = "time per token, double / single length, Linformer layer"
    full = "time per token, double / single length, full attention layer (control)"
    kept = "peak memory per token, double / single length, Linformer layer"
    slower = (
        "time of a layer at the longest length, Linformer / fused kernel (widened by the A/A noise)"
    )
    peak = "peak memory of that layer, Linformer / fused kernel"
    held = "error of the last layer's output on new texts, E and F fitted (interval over texts)"
    own = "error of that output on the fitting texts"
    best = "error of that output on new texts, each text's best rank-k matrix"
    return [
        Evidence.of("layer-time", per_token, time, "x"),
        Evidence.exact("layer-memory", kept, memory, "x"),
        Evidence.of("full-time", full, full_time, "x"),
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
