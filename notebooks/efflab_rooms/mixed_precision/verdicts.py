"""Notebook 06's verdicts: rules fixed beforehand, outcomes from figures alone."""

from collections.abc import Iterable, Mapping

from efflab.lab import Figure, Outcome, by_name

HALF = 0.6
"""What counts as a half: a saving of 40 % at least."""

WHOLE = "whole training step, the leanest mixed recipe over fp32"
KEPT = "what a batch adds, the leanest mixed recipe over fp32"
AUTOCAST = "whole training step, autocast over fp32"
STATE = "model's state, the leanest mixed recipe over fp32"
TOKENS = "tokens a step from which the whole counts as halved"
AGREEMENT = "whole step, measured over formula, furthest from 1"
BATCH = "batch that the published mixed runs used, at most"

MOST_TF32 = "A100, mixed over TF32, the most published"
LEAST_TF32 = "A100, mixed over TF32, the least published"
BOUND = "A100, 16 bits over TF32, roofline at any shape"
STEP_FP32 = "A100, BERT-large's step over FP32, roofline"
LEAST_FP32 = "V100, mixed over FP32, the least published"
MOST_FP32 = "V100, mixed over FP32, the most published"
HERE = "this CPU, bf16 autocast, times faster than fp32"


def amp_memory(figures: Iterable[Figure | Mapping]) -> Outcome:
    """Mixed precision halves the memory that training needs."""
    found = by_name(figures)
    value = {name: figure.value for name, figure in found.items()}
    rule = (
        "holds if the leanest mixed recipe's measured step needs at most {half} % of fp32's bytes; "
        "on condition if only what a batch adds falls that far; undecided if formula and "
        "measurement differ by over 20 %"
    )
    options = dict(rule=rule, values={"half": round(100 * HALF), "n": _two_digits(value[TOKENS])})
    shown = tuple(found.values())
    if abs(value[AGREEMENT] - 1) > 0.2:
        return Outcome(None, shown, reason="formula and measurement do not agree here", **options)
    if value[WHOLE] <= 100 * HALF:
        return Outcome(True, shown, **options)
    if value[KEPT] <= 100 * HALF:
        condition = (
            "activations dominate, here from about {n:,} tokens a step: they halve, the state of "
            "weights, gradients and Adam does not shrink"
        )
        return Outcome(True, shown, condition=condition, **options)
    reason = "neither the whole step nor what a batch adds falls to {half} %"
    return Outcome(False, shown, reason=reason, **options)


def _two_digits(tokens: float) -> int:
    """A number of tokens as a card says it."""
    return int(float(f"{tokens:.2g}"))


def amp_speed(figures: Iterable[Figure | Mapping]) -> Outcome:
    """Mixed precision is 3x faster on an A100's tensor cores."""
    found = by_name(figures)
    value = {name: figure.value for name, figure in found.items()}
    rule = (
        "holds if every published gain on an A100 over its default (TF32) reaches 3; undecided if "
        "only some do; on condition if none does, but the A100's roofline over FP32 and every "
        "published gain over FP32 reach 3"
    )
    shown = tuple(found.values())
    ends = dict(low=f"{value[LEAST_TF32]:.1f}", high=f"{value[MOST_TF32]:.1f}")
    options = dict(rule=rule, values=ends)
    if value[LEAST_TF32] >= 3:
        return Outcome(True, shown, **options)
    if value[MOST_TF32] >= 3:
        return Outcome(None, shown, reason="it depends on the model: {low} to {high}", **options)
    if min(value[STEP_FP32], value[LEAST_FP32]) >= 3:
        condition = (
            "compared with FP32 without tensor cores; over TF32, an A100's default, it is {low} "
            "to {high}"
        )
        return Outcome(True, shown, condition=condition, **options)
    return Outcome(False, shown, reason="over TF32 it is {low} to {high}", **options)
