"""Notebook 00's verdict, as a function of its figures alone."""

from collections.abc import Mapping

from efflab import cost
from efflab.config import PRESETS, ModelConfig
from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id, judge

LONG_CONTEXT = 131_072  # tokens; Dubey et al. 2024, section 3.4: Llama 3.1's context
MODELS = {
    "bert": ("BERT-base", PRESETS["bert-base"]),
    "gpt3": ("GPT-3 175B", PRESETS["gpt3-175b"]),
}
SEQUENCES = 64  # decoded side by side
CROSSING = "{model}: tokens beyond which n² exceeds half of a layer's FLOPs"
SHARE = "{model}, {n} tokens: n² share of a layer's FLOPs"
DECODING = (
    "{model}, decoding {batch} sequences: length beyond which a layer's cache exceeds its weights"
)
CLOCK = "{channels} channels, fused: crossing length by time / by FLOPs (by repeat)"
UNFUSED = "192 channels, unfused: crossing length by time / by FLOPs (by repeat)"
IN_DECODING = (
    "decoding with a cache splits the FLOPs the same way, but bytes decide there: with {batch} "
    "sequences of more than {n} tokens, GPT-3's cache exceeds its layers' weights"
)


def attention_evidence(
    clocks: Mapping[int, Estimate],
    unfused: Estimate,
    models: Mapping[str, tuple[str, ModelConfig]] = MODELS,
    long_context: int = LONG_CONTEXT,
) -> list[Evidence]:
    """What the verdict rests on.

    `clocks`: channels -> length at which fused n² takes half of a layer's time, over that at which
    it is half of its FLOPs; `unfused`: the same for 192 channels with the scores in memory.
    """
    evidence = [
        *(Evidence.of(f"clock-{c}", CLOCK, ratio, "x", channels=c) for c, ratio in clocks.items()),
        Evidence.of("clock-unfused", UNFUSED, unfused, "x"),
    ]
    for key, (model, config) in models.items():
        tokens = cost.crossing_length(config, "linear")
        values = {"model": model}
        evidence.append(Evidence(f"{key}-crossing", CROSSING, tokens, "tokens", values=values))
        for where, n in (("own", config.max_len), ("long", long_context)):
            share, values = 100 * cost.attention_share(config, n), {"model": model, "n": f"{n:,}"}
            evidence.append(Evidence(f"{key}-{where}", SHARE, share, "%", values=values))
    model, config = models["gpt3"]
    # 2 n C values a sequence against a layer's 4 C² + 2 C F: at a batch-th of 2 C + F
    n = cost.crossing_length(config, "linear") / SEQUENCES
    values = {"model": model, "batch": SEQUENCES}
    return [*evidence, Evidence("gpt3-decoding", DECODING, n, "tokens", values=values)]


def attention_quadratic(evidence) -> Outcome:
    """Whether n² is what a Transformer mostly computes."""
    n = by_id(evidence)["gpt3-decoding"].value
    values = dict(batch=SEQUENCES, n=f"{n:,.0f}")
    remarks = {"long-context": IN_DECODING}
    return judge("attention-quadratic", evidence, remarks=remarks, values=values)
