"""Notebook 12's verdicts: rules fixed beforehand, outcomes from figures alone."""

from collections.abc import Mapping

from efflab import cost
from efflab.distributed.zero import FP32_ADAM, RankState
from efflab.lab import Evidence, Outcome, by_id
from efflab_rooms.data_parallel import measure
from efflab_rooms.data_parallel.measure import Comparison

SAME = 1e-5
"""Of the largest value: fp32 sums in another order differ by some 1e-7."""
SEEN = 1e-3
"""What the control has to differ by for the comparison to have seen anything."""
FALL = 95
"""Per cent of the stage before: what counts as less memory."""
AGREES = 0.2

STAGES = (1, 2, 3)

# --- ddp-equal -----------------------------------------------------------------------------------

GRADIENTS = "gradients: DDP against one process, largest difference"
WEIGHTS = "weights after training: DDP against one process, largest difference"
CONTROL = "gradients: not averaged, against one process (control)"
SENT = "bytes that a rank sends over the ring's formula"
UNEVEN = "gradients: uneven shares, not weighted"
BATCH_NORM = "gradients: batch norm over a rank's own rows"
EQUAL_RULE = (
    "holds if DDP's gradients and weights differ from one process's by at most 1e-5 of the "
    "largest value; on condition if uneven shares or a batch norm then differ by more; "
    "undecided if gradients that are not averaged differ by less than 1e-3"
)
EQUAL_CONDITION = (
    "every rank has as many rows, or weights its loss by them, and nothing in the model looks "
    "across the batch, as a batch norm does"
)


def equal_evidence(
    comparisons: Mapping[tuple[int, str], Comparison], errors: Mapping[str, float]
) -> list[Evidence]:
    """DDP's distance from one process, its control, the wire, and what breaks it.

    `comparisons`: by (ranks, method); `errors`: `measure.gradient_errors`.
    """
    ddp = [c for (_, method), c in comparisons.items() if method == "ddp"]
    apart = [c for (_, method), c in comparisons.items() if method == "none"]
    return [
        Evidence("gradients", GRADIENTS, max(c.gradients for c in ddp)),
        Evidence("weights", WEIGHTS, max(c.weights for c in ddp)),
        Evidence("control", CONTROL, min(c.gradients for c in apart)),
        Evidence("sent", SENT, max(c.sent / c.formula for c in ddp), "x"),
        Evidence("uneven", UNEVEN, errors["uneven shares"]),
        Evidence("batch-norm", BATCH_NORM, errors["batch norm over a rank's own rows"]),
    ]


def ddp_equal(evidence) -> Outcome:
    """Data parallelism splits the batch and synchronizes the gradients."""
    value = {key: item.value for key, item in by_id(evidence).items()}
    if value["control"] < SEEN:
        reason = "even gradients that are not averaged look the same here"
        return Outcome(None, evidence, rule=EQUAL_RULE, reason=reason)
    if max(value["gradients"], value["weights"]) > SAME:
        return Outcome(False, evidence, rule=EQUAL_RULE, reason="DDP and one process part")
    breaks = max(value["uneven"], value["batch-norm"]) > SAME
    condition = EQUAL_CONDITION if breaks else ""
    return Outcome(True, evidence, rule=EQUAL_RULE, condition=condition)


# --- zero-memory ---------------------------------------------------------------------------------

STEP = "whole step a rank: stage {stage} over stage {before}"
STATE = "model's state a rank: stage {stage} over stage {before}"
WHOLE_STEP = "whole step a rank: ZeRO-3 over DDP"
WHOLE_STATE = "model's state a rank: ZeRO-3 over DDP"
FORMULA = "model's state: measured over formula, furthest from 1"
ZERO_SENT = "bytes that a rank sends in a step: ZeRO-3 over DDP"
ZERO_RULE = (
    "holds if at each stage a rank's whole step needs at most {fall} % of the stage before; on "
    "condition if only the model's state does; undecided if formula and measurement differ by "
    "over 20 %"
)
ZERO_CONDITION = (
    "the model's state fills the card: the activations of a rank's own rows stay, and a whole step "
    "here still needs {whole} %"
)


def zero_evidence(by_stage: Mapping[int, list[RankState]]) -> list[Evidence]:
    """Whole step and state of each stage over the one before, and over DDP (stage 0)."""
    steps = {s: max(map(measure.step_bytes, ranks)) for s, ranks in by_stage.items()}
    states = {s: max(map(measure.state_bytes, ranks)) for s, ranks in by_stage.items()}
    sent = {s: max(held.sent for held in ranks) for s, ranks in by_stage.items()}
    sizes = cost.num_params(measure.CONFIG), len(by_stage[0])
    formula = {s: cost.model_state_bytes(*sizes, s, **FP32_ADAM) for s in by_stage}
    ratios = [states[s] / formula[s] for s in by_stage]
    evidence = [
        Evidence("step", WHOLE_STEP, 100 * steps[3] / steps[0], "%"),
        Evidence("state", WHOLE_STATE, 100 * states[3] / states[0], "%"),
    ]
    for stage in STAGES:
        values = {"stage": stage, "before": stage - 1}
        for key, name, n_bytes in (("step", STEP, steps), ("state", STATE, states)):
            share = 100 * n_bytes[stage] / n_bytes[stage - 1]
            evidence.append(Evidence(f"{key}-{stage}", name, share, "%", values=values))
    furthest = max(ratios, key=lambda ratio: abs(ratio - 1))
    return [
        *evidence,
        Evidence("formula", FORMULA, furthest, "x"),
        Evidence("sent", ZERO_SENT, sent[3] / sent[0], "x"),
    ]


def zero_memory(evidence) -> Outcome:
    """ZeRO lowers each card's memory."""
    value = {key: item.value for key, item in by_id(evidence).items()}
    options = dict(rule=ZERO_RULE, values={"fall": FALL, "whole": round(value["step"])})
    if abs(value["formula"] - 1) > AGREES:
        reason = "formula and measurement do not agree here"
        return Outcome(None, evidence, reason=reason, **options)
    if all(value[f"step-{stage}"] <= FALL for stage in STAGES):
        return Outcome(True, evidence, **options)
    if all(value[f"state-{stage}"] <= FALL for stage in STAGES):
        return Outcome(True, evidence, condition=ZERO_CONDITION, **options)
    reason = "a stage does not need less than the one before"
    return Outcome(False, evidence, reason=reason, **options)
