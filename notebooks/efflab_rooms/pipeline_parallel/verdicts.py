"""Notebook 13's verdicts, as functions of their figures alone."""

from efflab.distributed.schedules import SCHEDULES
from efflab.lab import Outcome, by_id, number

# --- model-parallel --------------------------------------------------------------------------

SAME, BUSY_ENOUGH = 1e-5, 50  # of the largest value; per cent
MODEL_RULE = (
    "equal means gradients within 1e-5 of the largest value. Holds if a model cut between its "
    "layers is equal to one process and four devices are in use at least half of the time with "
    "one batch at a time; on a condition if equal but less in use; not if unequal"
)


def model_parallel(evidence) -> Outcome:
    """Whether layers on several devices are the same model, and what it takes to use them."""
    found = by_id(evidence)
    if found["between"].value > SAME:
        reason = "the gradients are not those of one process"
        return Outcome(False, evidence, rule=MODEL_RULE, reason=reason)
    if found["busy"].value >= BUSY_ENOUGH:
        return Outcome(True, evidence, rule=MODEL_RULE)
    return Outcome(
        True, evidence, rule=MODEL_RULE, values=dict(busy=f"{found['busy'].value:.0f}"),
        condition="it is memory that has to be split: with one batch at a time the devices compute "
        "{busy}% of it. The large runs cut layers inside as well, which the word also means",
    )  # fmt: skip


# --- gpipe-throughput ------------------------------------------------------------------------

LEAST, MOST = 3, 5
GPIPE_RULE = (
    "over each published row's own baseline, rows with several micro-batches. Holds if every gain "
    "is 3 to 5; on a condition if some are; not if none is"
)


def gpipe_throughput(evidence) -> Outcome:
    """Whether GPipe multiplies throughput by 3 to 5."""
    found = by_id(evidence)
    inside, rows = found["rows-within"].value, found["rows"].value
    low, high, fewest = (number(found[key].value) for key in ("lowest", "highest", "fewest-stages"))
    values = dict(n=f"{inside:.0f}", rows=f"{rows:.0f}", low=low, high=high, least=fewest)
    if inside == 0:
        reason = "no published row lies there; they reach from {low} to {high}"
        return Outcome(False, evidence, rule=GPIPE_RULE, reason=reason, values=values)
    if inside == rows:
        return Outcome(True, evidence, rule=GPIPE_RULE)
    return Outcome(
        True, evidence, rule=GPIPE_RULE, values=values,
        condition="there are {least} stages or a few more, equal ones, and many micro-batches: "
        "{n} of {rows} published rows; the others reach from {low} to {high}",
    )  # fmt: skip


# --- pipe-balance ----------------------------------------------------------------------------

COSTS, AGREES = 1.10, 0.05  # of the balanced time; of it
BALANCE_RULE = (
    "one of four stages takes 1.5 times the others, all work together unchanged, 8 micro-batches. "
    "Holds if a step takes at least 1.10 times the balanced one in every schedule; on a condition "
    "in some; not in none; undecided if real ranks and the simulator differ by over 0.05"
)


def pipe_balance(evidence) -> Outcome:
    """Whether a pipeline has to be balanced."""
    found = by_id(evidence)
    slower = {name: found[f"slow-{name}"].value for name in SCHEDULES}
    if abs(found["slow-real"].value - slower["gpipe"]) > AGREES:
        reason = "real ranks and the simulator do not agree here"
        return Outcome(None, evidence, rule=BALANCE_RULE, reason=reason)
    pays = [name for name, ratio in slower.items() if ratio >= COSTS]
    if len(pays) == len(slower):
        return Outcome(True, evidence, rule=BALANCE_RULE)
    if not pays:
        reason = "no schedule loses a tenth by it"
        return Outcome(False, evidence, rule=BALANCE_RULE, reason=reason)
    condition = "the schedule is one of {names}"
    values = dict(names=", ".join(pays))
    return Outcome(True, evidence, rule=BALANCE_RULE, condition=condition, values=values)


# --- microbatch-bubble -----------------------------------------------------------------------

WITHIN, FILLED = 0.05, 0.20  # of the formula; the bubble that counts as filled, GPipe's M >= 4 K
BUBBLE_RULE = (
    "holds if the bubble of real ranks, within 0.05 of (K-1)/(M+K-1), falls to 0.20 or less with "
    "four micro-batches a stage and no rank holds more than with one; on a condition if it falls "
    "so far but more is held; not if it does not fall; undecided if real ranks are further from "
    "the formula"
)


def microbatch_bubble(evidence) -> Outcome:
    """Whether micro-batches fill the bubble."""
    found = by_id(evidence)
    if found["difference"].value > WITHIN:
        reason = "real ranks are further from the formula than the rule allows"
        return Outcome(None, evidence, rule=BUBBLE_RULE, reason=reason)
    if found["bubble-16"].value > FILLED or found["bubble-16"].value >= found["bubble-4"].value:
        reason = "more micro-batches do not bring the bubble down far enough"
        return Outcome(False, evidence, rule=BUBBLE_RULE, reason=reason)
    if found["held-gpipe"].value <= 4:
        return Outcome(True, evidence, rule=BUBBLE_RULE)
    values = dict(gpipe=f"{found['held-gpipe'].value:.0f}", other=f"{found['held-1f1b'].value:.0f}",
                  many=f"{100 * found['bubble-16'].value:.0f}")  # fmt: skip
    return Outcome(
        True, evidence, rule=BUBBLE_RULE, values=values,
        condition="there are several times as many as stages, {many}% of the time is lost all the "
        "same, and GPipe holds {gpipe} of them at once where 1F1B holds {other}",
    )  # fmt: skip
