"""Notebook 12's verdicts: the evidence of each claim, made of what ranks did and held."""

from collections.abc import Mapping, Sequence

from efflab import cost
from efflab.distributed.zero import FP32_ADAM, RankState
from efflab.lab import Evidence, Outcome, by_id, judge, number
from efflab_rooms.data_parallel import measure
from efflab_rooms.data_parallel.measure import Comparison

SAME = 1e-5
"""Of the largest value: fp32 sums in another order differ by some 1e-7."""

# --- ddp-equal -----------------------------------------------------------------------------------

GRADIENTS = "gradients: DDP on {n} ranks vs. one process, largest difference"
WEIGHTS = "weights after training: DDP on {n} ranks vs. one process, largest difference"
CONTROL = "gradients: {n} ranks without averaging vs. one process, largest difference (control)"
SENT = "bytes sent per rank / ring formula, {n} ranks"
UNEVEN = "gradient difference: uneven shares, not weighted"
BATCH_NORM = "gradient difference: batch norm over a rank's own rows"
EQUAL_REMARK = (
    "not if ranks have unequal shares and do not weight their loss by them ({uneven}), or if the "
    "model looks across the batch, as batch norm does ({norm})"
)


def equal_evidence(
    comparisons: Mapping[tuple[int, str], Comparison], errors: Mapping[str, float]
) -> list[Evidence]:
    """DDP's distance from one process, its control, the bytes sent, and what breaks it.

    `comparisons`: by (ranks, method); `errors`: `measure.gradient_errors`.
    """
    evidence = []
    for n in sorted({n for n, _ in comparisons}):
        ddp, apart = comparisons[n, "ddp"], comparisons[n, "none"]
        evidence += [
            Evidence.exact(f"gradients-{n}", GRADIENTS, ddp.gradients, n=n),
            Evidence.exact(f"weights-{n}", WEIGHTS, ddp.weights, n=n),
            Evidence.exact(f"none-{n}", CONTROL, apart.gradients, n=n),
            Evidence.exact(f"sent-{n}", SENT, ddp.sent / ddp.formula, "x", n=n),
        ]
    return [
        *evidence,
        Evidence.exact("uneven", UNEVEN, errors["uneven shares"]),
        Evidence.exact("batch-norm", BATCH_NORM, errors["batch norm over a rank's own rows"]),
    ]


def ddp_equal(evidence) -> Outcome:
    """Data parallelism splits the batch and synchronizes the gradients."""
    value = {key: item.value for key, item in by_id(evidence).items()}
    values = dict(uneven=number(value["uneven"], 2), norm=number(value["batch-norm"], 2))
    return judge("ddp-equal", evidence, remarks={"equal": EQUAL_REMARK}, values=values)


# --- zero-memory ---------------------------------------------------------------------------------

STATE = "model state per rank, {n} ranks: stage {stage} / stage {before}"
FORMULA = "model state by the paper's formula, 4 ranks: stage {stage} / stage {before}"
STEP = "memory per rank in a whole step, {batch} sequences: ZeRO-3 / DDP"
ACTIVATIONS = "share of activations and buffers in a DDP step's memory, {batch} sequences"
FADES = "sequences from which ZeRO-3 would save less than 5% of a step's memory"
ZERO_SENT = "bytes sent per rank and step: ZeRO-3 / DDP"
STATE_REMARK = (
    "at stage 2, FSDP2 keeps a rank's own shard beside the gathered weights: with two ranks, it "
    "needs as much as stage 1 ({two}%)"
)
STEP_REMARK = (
    "what is saved stops growing with the batch, but activations do not: from about {fades} "
    "sequences, savings would be under 5%. With ZeRO-3, each rank sends {sent} times DDP's bytes "
    "here, 1.5 times by the paper"
)
STAGES = (1, 2, 3)
Held = Mapping[int, Sequence[RankState]]
"""What each rank holds, by stage."""


def zero_evidence(by_ranks: Mapping[int, Held], by_batch: Mapping[int, Held]) -> list[Evidence]:
    """State by stage on two and four ranks, and whole steps of four ranks by batch."""
    evidence = []
    for key, n in (("state", 4), ("two-ranks", 2)):
        states = {s: max(map(measure.state_bytes, held)) for s, held in by_ranks[n].items()}
        evidence += [
            Evidence.exact(f"{key}-{stage}", STATE, share, "%", n=n, stage=stage, before=stage - 1)
            for stage, share in _over_the_stage_before(states).items()
        ]
    size = cost.num_params(measure.CONFIG)
    formula = {s: cost.model_state_bytes(size, 4, s, **FP32_ADAM) for s in (0, *STAGES)}
    for stage, share in _over_the_stage_before(formula).items():
        names = dict(stage=stage, before=stage - 1)
        evidence.append(Evidence(f"formula-{stage}", FORMULA, share, "%", values=names))
    return evidence + _step_evidence(by_batch)


def _over_the_stage_before(n_bytes: Mapping[int, float]) -> dict[int, float]:
    """Per cent of the stage before that each stage needs."""
    return {stage: 100 * n_bytes[stage] / n_bytes[stage - 1] for stage in STAGES}


def _step_evidence(by_batch: Mapping[int, Held]) -> list[Evidence]:
    """Whole steps of DDP and ZeRO-3 by batch, and where the difference would fade."""
    evidence = []
    for batch, held in by_batch.items():
        ddp, cut = (max(held[stage], key=measure.step_bytes) for stage in (0, 3))
        ratio = 100 * measure.step_bytes(cut) / measure.step_bytes(ddp)
        share = 100 * ddp.step / measure.step_bytes(ddp)
        evidence += [
            Evidence.exact(f"step-{batch}", STEP, ratio, "%", batch=batch),
            Evidence.exact(f"activations-{batch}", ACTIVATIONS, share, "%", batch=batch),
        ]
    saved = measure.step_bytes(ddp) - measure.step_bytes(cut)
    fades = (saved / 0.05 - ddp.state) * max(by_batch) / ddp.step
    sent = max(rank.sent for rank in held[3]) / max(rank.sent for rank in held[0])
    return [
        *evidence,
        Evidence("fades", FADES, fades),
        Evidence.exact("sent", ZERO_SENT, sent, "x"),
    ]


def zero_memory(evidence) -> Outcome:
    """ZeRO lowers each card's memory."""
    value = {key: number(item.value) for key, item in by_id(evidence).items()}
    values = dict(two=value["two-ranks-2"], fades=value["fades"], sent=value["sent"])
    remarks = {"state": STATE_REMARK, "step": STEP_REMARK}
    return judge("zero-memory", evidence, remarks=remarks, values=values)
