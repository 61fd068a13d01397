"""Notebook 00's verdict, as a function of its figures alone."""

from efflab import cost
from efflab.config import PRESETS
from efflab.estimate import Estimate
from efflab.lab import Evidence, Outcome, by_id

LONG_CONTEXT = 131_072  # tokens; Dubey et al. 2024, section 3.4: Llama 3.1's context
MODELS = {"bert": ("bert-base", "BERT-base"), "gpt3": ("gpt3-175b", "GPT-3 175B")}
CROSSING = "{model}: tokens from which n² is over half of a layer's FLOPs"
SHARE = "{model}: n² share of its layers' FLOPs at its longest input"
TODAY = "a long context of today (Llama 3.1)"
FUSED = "fused attention here: crossing by the clock over crossing by FLOPs"
UNFUSED = "unfused attention here: crossing by the clock over crossing by FLOPs"

RULE = (
    "the bottleneck is what takes over half of a layer's FLOPs (full scores). The claim holds if "
    "n² does so at these models' own longest inputs; on a condition if only at lengths that models "
    "of today take; not if beyond them. Undecided if by the clock the fused kernel crosses at less "
    "than half or over twice the length: then FLOPs do not tell the time here"
)
CONDITION = (
    "an input has over {bert} tokens in BERT-base's shape or over {gpt3} in GPT-3's, more than "
    "these models take"
)


def attention_evidence(fused: Estimate, unfused: Estimate) -> list[Evidence]:
    """What the verdict rests on; `fused`, `unfused`: measured over computed crossing lengths."""
    crossings, shares = [], []
    for key, (preset, name) in MODELS.items():
        config, options = PRESETS[preset], dict(kind="computed", values={"model": name})
        tokens = cost.crossing_length(config, "linear")
        share = 100 * cost.attention_share(config, config.max_len)
        crossings.append(Evidence(f"{key}-tokens", CROSSING, tokens, "tokens", **options))
        shares.append(Evidence(f"{key}-share", SHARE, share, "%", **options))
    return [
        *crossings,
        *shares,
        Evidence("long-context", TODAY, LONG_CONTEXT, "tokens", "published"),
        Evidence.of("fused-clock", FUSED, fused, "x"),
        Evidence.of("unfused-clock", UNFUSED, unfused, "x"),
    ]


def attention_quadratic(evidence) -> Outcome:
    """Whether n² is what a Transformer mostly computes."""
    items = by_id(evidence)
    clock, today = items["fused-clock"], items["long-context"].value
    bert, gpt3 = (items[f"{key}-tokens"].value for key in MODELS)
    if clock.low > 2 or clock.high < 0.5:
        reason = "by this machine's clock n² crosses elsewhere"
        return Outcome(None, evidence, rule=RULE, reason=reason)
    if all(items[f"{key}-share"].value > 50 for key in MODELS):
        return Outcome(True, evidence, rule=RULE)
    if bert < today:
        values = dict(bert=f"{int(bert):,}", gpt3=f"{int(gpt3):,}")
        return Outcome(True, evidence, rule=RULE, condition=CONDITION, values=values)
    reason = "even at the longest inputs of today the linear layers compute more"
    return Outcome(False, evidence, rule=RULE, reason=reason)
