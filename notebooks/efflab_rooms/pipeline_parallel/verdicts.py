"""Notebook 13's verdicts, as functions of their figures alone."""

from efflab.lab import Outcome, by_name, number

# --- model-parallel --------------------------------------------------------------------------

SAME, BUSY_ENOUGH = 1e-5, 50  # of the largest value; per cent
BETWEEN = "cut between layers: gradients' distance from one process"
INSIDE = "cut inside layers: gradients' distance from one process"
BUSY = "four stages, one batch at a time: devices' time in use (%)"
FULLEST = "cut between layers: weights of the fullest of four ranks, of all (%)"
EVEN = "cut inside layers: parameters a rank of four, of all (%)"
MODEL_RULE = (
    "equal means gradients within 1e-5 of the largest value. Holds if a model cut between its "
    "layers is equal to one process and four devices are in use at least half of the time with "
    "one batch at a time; on a condition if equal but less in use; not if unequal"
)


def model_parallel(figures) -> Outcome:
    """Whether layers on several devices are the same model, and what it takes to use them."""
    found = by_name(figures)
    if found[BETWEEN].value > SAME:
        reason = "the gradients are not those of one process"
        return Outcome(False, figures, rule=MODEL_RULE, reason=reason)
    if found[BUSY].value >= BUSY_ENOUGH:
        return Outcome(True, figures, rule=MODEL_RULE)
    return Outcome(
        True, figures, rule=MODEL_RULE, values=dict(busy=f"{found[BUSY].value:.0f}"),
        condition="it is memory that has to be split: with one batch at a time the devices compute "
        "{busy}% of it. The large runs cut layers inside as well, which the word also means",
    )  # fmt: skip


# --- gpipe-throughput ------------------------------------------------------------------------

LEAST, MOST = 3, 5
IN_RANGE = "published rows with several micro-batches whose gain is 3 to 5"
ROWS = "published rows with several micro-batches"
LOWEST, HIGHEST = "lowest published gain", "highest published gain"
FEWEST = "fewest stages that come to 3 with 32 micro-batches"
IDEAL = "8 stages, 32 micro-batches, over one device"
GPIPE_RULE = (
    "over each published row's own baseline, rows with several micro-batches. Holds if every gain "
    "is 3 to 5; on a condition if some are; not if none is"
)


def gpipe_throughput(figures) -> Outcome:
    """Whether GPipe multiplies throughput by 3 to 5."""
    found = by_name(figures)
    inside, rows = found[IN_RANGE].value, found[ROWS].value
    low, high, fewest = (number(found[name].value) for name in (LOWEST, HIGHEST, FEWEST))
    values = dict(n=f"{inside:.0f}", rows=f"{rows:.0f}", low=low, high=high, least=fewest)
    if inside == 0:
        reason = "no published row lies there; they reach from {low} to {high}"
        return Outcome(False, figures, rule=GPIPE_RULE, reason=reason, values=values)
    if inside == rows:
        return Outcome(True, figures, rule=GPIPE_RULE)
    return Outcome(
        True, figures, rule=GPIPE_RULE, values=values,
        condition="there are {least} stages or a few more, equal ones, and many micro-batches: "
        "{n} of {rows} published rows; the others reach from {low} to {high}",
    )  # fmt: skip


# --- pipe-balance ----------------------------------------------------------------------------

COSTS, AGREES = 1.10, 0.05  # of the balanced time; of it
SLOWER = {
    "gpipe": "one stage of four half as slow again, same work: time over balanced, gpipe",
    "1f1b": "one stage of four half as slow again, same work: time over balanced, 1f1b",
    "interleaved": "one stage of four half as slow again, same work: time over balanced, "
    "interleaved",
    "zero-bubble": "one stage of four half as slow again, same work: time over balanced, "
    "zero-bubble",
    "dualpipe": "one stage of four half as slow again, same work: time over balanced, dualpipe",
}
REAL = "the same on real ranks, gpipe"
SPLIT = "unequal layers: equal counts over the best split, time"
BALANCE_RULE = (
    "one of four stages takes 1.5 times the others, all work together unchanged, 8 micro-batches. "
    "Holds if a step takes at least 1.10 times the balanced one in every schedule; on a condition "
    "in some; not in none; undecided if real ranks and the simulator differ by over 0.05"
)


def pipe_balance(figures) -> Outcome:
    """Whether a pipeline has to be balanced."""
    found = by_name(figures)
    slower = {name: found[text].value for name, text in SLOWER.items()}
    if abs(found[REAL].value - slower["gpipe"]) > AGREES:
        reason = "real ranks and the simulator do not agree here"
        return Outcome(None, figures, rule=BALANCE_RULE, reason=reason)
    pays = [name for name, ratio in slower.items() if ratio >= COSTS]
    if len(pays) == len(slower):
        return Outcome(True, figures, rule=BALANCE_RULE)
    if not pays:
        reason = "no schedule loses a tenth by it"
        return Outcome(False, figures, rule=BALANCE_RULE, reason=reason)
    condition = "the schedule is one of {names}"
    values = dict(names=", ".join(pays))
    return Outcome(True, figures, rule=BALANCE_RULE, condition=condition, values=values)


# --- microbatch-bubble -----------------------------------------------------------------------

WITHIN, FILLED = 0.05, 0.20  # of the formula; the bubble that counts as filled, GPipe's M >= 4 K
APART = "real bubbles less (K-1)/(M+K-1), the largest difference"
FEW = "bubble of 4 real ranks, 4 micro-batches"
MANY = "bubble of 4 real ranks, 16 micro-batches"
HELD_GPIPE = "micro-batches held by a rank, 16 in all, gpipe"
HELD_1F1B = "micro-batches held by a rank, 16 in all, 1f1b"
BUBBLE_RULE = (
    "holds if the bubble of real ranks, within 0.05 of (K-1)/(M+K-1), falls to 0.20 or less with "
    "four micro-batches a stage and no rank holds more than with one; on a condition if it falls "
    "so far but more is held; not if it does not fall; undecided if real ranks are further from "
    "the formula"
)


def microbatch_bubble(figures) -> Outcome:
    """Whether micro-batches fill the bubble."""
    found = by_name(figures)
    if found[APART].value > WITHIN:
        reason = "real ranks are further from the formula than the rule allows"
        return Outcome(None, figures, rule=BUBBLE_RULE, reason=reason)
    if found[MANY].value > FILLED or found[MANY].value >= found[FEW].value:
        reason = "more micro-batches do not bring the bubble down far enough"
        return Outcome(False, figures, rule=BUBBLE_RULE, reason=reason)
    if found[HELD_GPIPE].value <= 4:
        return Outcome(True, figures, rule=BUBBLE_RULE)
    values = dict(gpipe=f"{found[HELD_GPIPE].value:.0f}", other=f"{found[HELD_1F1B].value:.0f}",
                  many=f"{100 * found[MANY].value:.0f}")  # fmt: skip
    return Outcome(
        True, figures, rule=BUBBLE_RULE, values=values,
        condition="there are several times as many as stages, {many}% of the time is lost all the "
        "same, and GPipe holds {gpipe} of them at once where 1F1B holds {other}",
    )  # fmt: skip
