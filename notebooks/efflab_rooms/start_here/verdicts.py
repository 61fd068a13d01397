"""Notebook 00's verdict, as a function of its figures alone."""

from efflab import cost
from efflab.config import PRESETS
from efflab.estimate import Estimate
from efflab.lab import Figure, Outcome, by_name

LONG_CONTEXT = 131_072  # tokens; Dubey et al. 2024, section 3.4: Llama 3.1's context
CROSSINGS = {
    "bert-base": "BERT-base: tokens from which n² is over half of a layer's FLOPs",
    "gpt3-175b": "GPT-3 175B: tokens from which n² is over half of a layer's FLOPs",
}
SHARES = {
    "bert-base": "BERT-base: n² share of its layers' FLOPs at its longest input",
    "gpt3-175b": "GPT-3 175B: n² share of its layers' FLOPs at its longest input",
}
CONTEXT = "a long context of today (Llama 3.1)"
CLOCK = "fused attention here: crossing by the clock over crossing by FLOPs"
UNFUSED = "unfused attention here: crossing by the clock over crossing by FLOPs"

RULE = (
    "the bottleneck is what takes over half of a layer's FLOPs (full scores). The claim holds if "
    "n² does so at these models' own longest inputs; on a condition if only at lengths that models "
    "of today take; not if beyond them. Undecided if by the clock the fused kernel crosses at less "
    "than half or over twice the length: then FLOPs do not tell the time here"
)


def attention_figures(fused: Estimate, unfused: Estimate) -> list[Figure]:
    """What the verdict rests on; `fused`, `unfused`: measured over computed crossing lengths."""
    figures = []
    for name, text in CROSSINGS.items():
        crossing = cost.crossing_length(PRESETS[name], "linear")
        figures.append(Figure(text, crossing, "tokens", "computed"))
    for name, text in SHARES.items():
        share = cost.attention_share(PRESETS[name], PRESETS[name].max_len)
        figures.append(Figure(text, 100 * share, "%", "computed"))
    figures.append(Figure(CONTEXT, LONG_CONTEXT, "tokens", "published"))
    return [*figures, Figure.of(CLOCK, fused, "x"), Figure.of(UNFUSED, unfused, "x")]


def attention_quadratic(figures) -> Outcome:
    """Whether n² is what a Transformer mostly computes, from the figures above."""
    found = by_name(figures)
    bert, gpt3 = (int(found[CROSSINGS[name]].value) for name in ("bert-base", "gpt3-175b"))
    values = dict(bert=f"{bert:,}", gpt3=f"{gpt3:,}")
    clock = found[CLOCK]
    if clock.low > 2 or clock.high < 0.5:
        return Outcome(
            None, figures, rule=RULE, reason="by this machine's clock n² crosses elsewhere"
        )
    if all(found[text].value > 50 for text in SHARES.values()):
        return Outcome(True, figures, rule=RULE)
    if bert < found[CONTEXT].value:
        return Outcome(
            True, figures, rule=RULE, values=values,
            condition="an input has over {bert} tokens in BERT-base's shape or over {gpt3} in "
            "GPT-3's, more than these models take",
        )  # fmt: skip
    reason = "even at the longest inputs of today the linear layers compute more"
    return Outcome(False, figures, rule=RULE, reason=reason)
