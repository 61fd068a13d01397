"""Notebook 12's verdicts: rules fixed beforehand, outcomes from figures alone."""

from collections.abc import Iterable, Mapping

from efflab.lab import Figure, Outcome, by_name

SAME = 1e-5
"""Of the largest value: fp32 sums in another order differ by some 1e-7."""
SEEN = 1e-3
"""What the control has to differ by for the comparison to have seen anything."""
FALL = 95
"""Per cent of the stage before: what counts as less memory."""
AGREES = 0.2

GRADIENTS = "gradients: DDP against one process, largest difference"
WEIGHTS = "weights after training: DDP against one process, largest difference"
APART = "gradients: not averaged, against one process (control)"
SENT = "bytes that a rank sends over the ring's formula"
UNEVEN = "gradients: uneven shares, not weighted"
NORM = "gradients: batch norm over a rank's own rows"

WHOLE = "whole step a rank: ZeRO-3 over DDP"
STATE = "model's state a rank: ZeRO-3 over DDP"
STEPS = {
    1: "whole step a rank: stage 1 over stage 0",
    2: "whole step a rank: stage 2 over stage 1",
    3: "whole step a rank: stage 3 over stage 2",
}
STATES = {
    1: "model's state a rank: stage 1 over stage 0",
    2: "model's state a rank: stage 2 over stage 1",
    3: "model's state a rank: stage 3 over stage 2",
}
AGREEMENT = "model's state: measured over formula, furthest from 1"
SENT_3 = "bytes that a rank sends in a step: ZeRO-3 over DDP"
STAGES = (1, 2, 3)


def ddp_equal(figures: Iterable[Figure | Mapping]) -> Outcome:
    """Data parallelism splits the batch and synchronizes the gradients."""
    found = by_name(figures)
    value = {name: figure.value for name, figure in found.items()}
    rule = (
        "holds if DDP's gradients and weights differ from one process's by at most 1e-5 of the "
        "largest value; on condition if uneven shares or a batch norm then differ by more; "
        "undecided if gradients that are not averaged differ by less than 1e-3"
    )
    shown = tuple(found.values())
    if value[APART] < SEEN:
        reason = "even gradients that are not averaged look the same here"
        return Outcome(None, shown, rule=rule, reason=reason)
    if max(value[GRADIENTS], value[WEIGHTS]) > SAME:
        return Outcome(False, shown, rule=rule, reason="DDP and one process part")
    if max(value[UNEVEN], value[NORM]) > SAME:
        condition = (
            "every rank has as many rows, or weights its loss by them, and nothing in the model "
            "looks across the batch, as a batch norm does"
        )
        return Outcome(True, shown, rule=rule, condition=condition)
    return Outcome(True, shown, rule=rule)


def zero_memory(figures: Iterable[Figure | Mapping]) -> Outcome:
    """ZeRO lowers each card's memory."""
    found = by_name(figures)
    value = {name: figure.value for name, figure in found.items()}
    rule = (
        "holds if at each stage a rank's whole step needs at most {fall} % of the stage before; on "
        "condition if only the model's state does; undecided if formula and measurement differ by "
        "over 20 %"
    )
    shown = tuple(found.values())
    options = dict(rule=rule, values={"fall": FALL, "whole": round(value[WHOLE])})
    if abs(value[AGREEMENT] - 1) > AGREES:
        return Outcome(None, shown, reason="formula and measurement do not agree here", **options)
    if all(value[step_name(stage)] <= FALL for stage in STAGES):
        return Outcome(True, shown, **options)
    if all(value[state_name(stage)] <= FALL for stage in STAGES):
        condition = (
            "the model's state fills the card: the activations of a rank's own rows stay, and a "
            "whole step here still needs {whole} %"
        )
        return Outcome(True, shown, condition=condition, **options)
    return Outcome(False, shown, reason="a stage does not need less than the one before", **options)


def step_name(stage: int) -> str:
    """The figure of a stage's whole step over the stage before."""
    return STEPS[stage]


def state_name(stage: int) -> str:
    """The figure of a stage's state over the stage before."""
    return STATES[stage]
