"""Notebook 12's verdicts: rules fixed beforehand, outcomes from figures alone."""

from efflab.lab import Outcome, by_id

SAME = 1e-5
"""Of the largest value: fp32 sums in another order differ by some 1e-7."""
SEEN = 1e-3
"""What the control has to differ by for the comparison to have seen anything."""
FALL = 95
"""Per cent of the stage before: what counts as less memory."""
AGREES = 0.2

STAGES = (1, 2, 3)


def ddp_equal(evidence) -> Outcome:
    """Data parallelism splits the batch and synchronizes the gradients."""
    found = by_id(evidence)
    value = {key: item.value for key, item in found.items()}
    rule = (
        "holds if DDP's gradients and weights differ from one process's by at most 1e-5 of the "
        "largest value; on condition if uneven shares or a batch norm then differ by more; "
        "undecided if gradients that are not averaged differ by less than 1e-3"
    )
    if value["control"] < SEEN:
        reason = "even gradients that are not averaged look the same here"
        return Outcome(None, evidence, rule=rule, reason=reason)
    if max(value["gradients"], value["weights"]) > SAME:
        return Outcome(False, evidence, rule=rule, reason="DDP and one process part")
    if max(value["uneven"], value["batch-norm"]) > SAME:
        condition = (
            "every rank has as many rows, or weights its loss by them, and nothing in the model "
            "looks across the batch, as a batch norm does"
        )
        return Outcome(True, evidence, rule=rule, condition=condition)
    return Outcome(True, evidence, rule=rule)


def zero_memory(evidence) -> Outcome:
    """ZeRO lowers each card's memory."""
    found = by_id(evidence)
    value = {key: item.value for key, item in found.items()}
    rule = (
        "holds if at each stage a rank's whole step needs at most {fall} % of the stage before; on "
        "condition if only the model's state does; undecided if formula and measurement differ by "
        "over 20 %"
    )
    options = dict(rule=rule, values={"fall": FALL, "whole": round(value["step"])})
    if abs(value["formula"] - 1) > AGREES:
        return Outcome(
            None, evidence, reason="formula and measurement do not agree here", **options
        )
    if all(value[f"step-{stage}"] <= FALL for stage in STAGES):
        return Outcome(True, evidence, **options)
    if all(value[f"state-{stage}"] <= FALL for stage in STAGES):
        condition = (
            "the model's state fills the card: the activations of a rank's own rows stay, and a "
            "whole step here still needs {whole} %"
        )
        return Outcome(True, evidence, condition=condition, **options)
    return Outcome(
        False, evidence, reason="a stage does not need less than the one before", **options
    )
