"""Notebook 00's verdict, as a function of its figures alone."""

from efflab import cost
from efflab.config import PRESETS
from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id

LONG_CONTEXT = 131_072  # tokens; Dubey et al. 2024, section 3.4: Llama 3.1's context
MODELS = {"bert": ("bert-base", "BERT-base"), "gpt3": ("gpt3-175b", "GPT-3 175B")}
CROSSING = "{model}: tokens from which n² is over half of a layer's FLOPs"
SHARE = "{model}: n² share of its layers' FLOPs at its longest input"

RULE = (
    "the bottleneck is what takes over half of a layer's FLOPs (full scores). The claim holds if "
    "n² does so at these models' own longest inputs; on a condition if only at lengths that models "
    "of today take; not if beyond them. Undecided if by the clock the fused kernel crosses at less "
    "than half or over twice the length: then FLOPs do not tell the time here"
)


def attention_evidence(fused: Estimate, unfused: Estimate) -> list[Evidence]:
    """What the verdict rests on; `fused`, `unfused`: measured over computed crossing lengths."""
    crossings, shares = [], []
    for key, (preset, name) in MODELS.items():
        config, values = PRESETS[preset], {"model": name}
        n = cost.crossing_length(config, "linear")
        share = 100 * cost.attention_share(config, config.max_len)
        crossings.append(
            Evidence(f"{key}-tokens", CROSSING, n, "tokens", "computed", values=values)
        )
        shares.append(Evidence(f"{key}-share", SHARE, share, "%", "computed", values=values))
    today = "a long context of today (Llama 3.1)"
    by_fused = "fused attention here: crossing by the clock over crossing by FLOPs"
    by_unfused = "unfused attention here: crossing by the clock over crossing by FLOPs"
    return [
        *crossings,
        *shares,
        Evidence("long-context", today, LONG_CONTEXT, "tokens", "published"),
        Evidence.of("fused-clock", by_fused, fused, "x"),
        Evidence.of("unfused-clock", by_unfused, unfused, "x"),
    ]


def attention_quadratic(evidence) -> Outcome:
    """Whether n² is what a Transformer mostly computes, from the figures above."""
    found = by_id(evidence)
    bert, gpt3 = (int(found[f"{key}-tokens"].value) for key in MODELS)
    values = dict(bert=f"{bert:,}", gpt3=f"{gpt3:,}")
    clock = found["fused-clock"]
    if clock.low > 2 or clock.high < 0.5:
        return Outcome(
            None, evidence, rule=RULE, reason="by this machine's clock n² crosses elsewhere"
        )
    if all(found[f"{key}-share"].value > 50 for key in MODELS):
        return Outcome(True, evidence, rule=RULE)
    if bert < found["long-context"].value:
        return Outcome(
            True, evidence, rule=RULE, values=values,
            condition="an input has over {bert} tokens in BERT-base's shape or over {gpt3} in "
            "GPT-3's, more than these models take",
        )  # fmt: skip
    reason = "even at the longest inputs of today the linear layers compute more"
    return Outcome(False, evidence, rule=RULE, reason=reason)
