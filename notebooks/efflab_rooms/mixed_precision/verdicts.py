"""Notebook 06's verdicts: rules fixed beforehand, outcomes from figures alone."""

from efflab.lab import Outcome, by_id

HALF = 0.6
"""What counts as a half: a saving of 40 % at least."""


def amp_memory(evidence) -> Outcome:
    """Mixed precision halves the memory that training needs."""
    found = by_id(evidence)
    value = {key: item.value for key, item in found.items()}
    rule = (
        "holds if the leanest mixed recipe's measured step needs at most {half} % of fp32's bytes; "
        "on condition if only what a batch adds falls that far; undecided if formula and "
        "measurement differ by over 20 %"
    )
    options = dict(
        rule=rule, values={"half": round(100 * HALF), "n": _two_digits(value["tokens-halved"])}
    )
    if abs(value["formula"] - 1) > 0.2:
        return Outcome(
            None, evidence, reason="formula and measurement do not agree here", **options
        )
    if value["whole"] <= 100 * HALF:
        return Outcome(True, evidence, **options)
    if value["batch"] <= 100 * HALF:
        condition = (
            "activations dominate, here from about {n:,} tokens a step: they halve, the state of "
            "weights, gradients and Adam does not shrink"
        )
        return Outcome(True, evidence, condition=condition, **options)
    reason = "neither the whole step nor what a batch adds falls to {half} %"
    return Outcome(False, evidence, reason=reason, **options)


def _two_digits(tokens: float) -> int:
    """A number of tokens as a card says it."""
    return int(float(f"{tokens:.2g}"))


def amp_speed(evidence) -> Outcome:
    """Mixed precision is 3x faster on an A100's tensor cores."""
    found = by_id(evidence)
    value = {key: item.value for key, item in found.items()}
    rule = (
        "holds if every published gain on an A100 over its default (TF32) reaches 3; undecided if "
        "only some do; on condition if none does, but the A100's roofline over FP32 and every "
        "published gain over FP32 reach 3"
    )
    ends = dict(low=f"{value['a100-least']:.1f}", high=f"{value['a100-most']:.1f}")
    options = dict(rule=rule, values=ends)
    if value["a100-least"] >= 3:
        return Outcome(True, evidence, **options)
    if value["a100-most"] >= 3:
        return Outcome(None, evidence, reason="it depends on the model: {low} to {high}", **options)
    if min(value["a100-step"], value["v100-least"]) >= 3:
        condition = (
            "compared with FP32 without tensor cores; over TF32, an A100's default, it is {low} "
            "to {high}"
        )
        return Outcome(True, evidence, condition=condition, **options)
    return Outcome(False, evidence, reason="over TF32 it is {low} to {high}", **options)
