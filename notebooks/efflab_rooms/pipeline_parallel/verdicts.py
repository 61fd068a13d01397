"""Notebook 13's verdicts: what they rest on, and rules as functions of that alone."""

from collections.abc import Sequence

from efflab import cost
from efflab.distributed import gpipe
from efflab.distributed.launch import RankPool
from efflab.distributed.schedules import SCHEDULES
from efflab.distributed.stages import PassResult
from efflab.distributed.tensor_parallel import Result
from efflab.lab import Evidence, Outcome, by_id, number
from efflab_rooms.pipeline_parallel import measure

# --- model-parallel --------------------------------------------------------------------------

SAME, BUSY_ENOUGH = 1e-5, 50  # of the largest value; per cent
MODEL_RULE = (
    "equal means gradients within 1e-5 of the largest value. Holds if a model cut between its "
    "layers is equal to one process and four devices are in use at least half of the time with "
    "one batch at a time; on a condition if equal but less in use; not if unequal"
)
MODEL_CONDITION = (
    "it is memory that has to be split: with one batch at a time the devices compute {busy}% of "
    "it. The large runs cut layers inside as well, which the word also means"
)
BETWEEN = "cut between layers: gradients' distance from one process"
INSIDE = "cut inside layers: gradients' distance from one process"
BUSY = "four stages, one batch at a time: devices' time in use (%)"
FULLEST = "cut between layers: weights of the fullest of four ranks, of all (%)"
EVEN = "cut inside layers: parameters a rank of four, of all (%)"


def model_evidence(
    between: Sequence[PassResult], alone: PassResult, inside: Sequence[Result]
) -> list[Evidence]:
    """Both cuts on four ranks, and how much of the time one batch keeps them busy."""
    apart = max(rank.gradients_error for rank in inside)
    busy = 100 * (1 - measure.simulate_step(4, "gpipe", 1).bubble_fraction)
    fullest = 100 * max(rank.weight_bytes for rank in between) / alone.weight_bytes
    even = 100 * max(rank.params for rank in inside) / cost.num_params(measure.CONFIG)
    return [
        Evidence("between", BETWEEN, measure.gradient_distance(between, alone)),
        Evidence("inside", INSIDE, apart),
        Evidence("busy", BUSY, busy, "%", "simulated"),
        Evidence("fullest", FULLEST, fullest, "%"),
        Evidence("even", EVEN, even, "%"),
    ]


def model_parallel(evidence) -> Outcome:
    """Whether layers on several devices are the same model, and what it takes to use them."""
    items = by_id(evidence)
    busy = items["busy"].value
    if items["between"].value > SAME:
        reason = "the gradients are not those of one process"
        return Outcome(False, evidence, rule=MODEL_RULE, reason=reason)
    if busy >= BUSY_ENOUGH:
        return Outcome(True, evidence, rule=MODEL_RULE)
    options = dict(condition=MODEL_CONDITION, values=dict(busy=f"{busy:.0f}"))
    return Outcome(True, evidence, rule=MODEL_RULE, **options)


# --- gpipe-throughput ------------------------------------------------------------------------

LEAST, MOST = 3, 5
GPIPE_RULE = (
    "over each published row's own baseline, rows with several micro-batches. Holds if every gain "
    "is 3 to 5; on a condition if some are; not if none is"
)
GPIPE_CONDITION = (
    "there are {least} stages or more, which is not enough by itself: {n} of the {rows} rows "
    "shown, each over two devices with the same model; all of them reach from {low} to {high}"
)
WITHIN_CLAIM = "rows shown with several micro-batches whose gain is 3 to 5"
FEWEST = "fewest stages that come to 3 with 32 micro-batches"
IDEAL = "8 stages, 32 micro-batches, over one device"


def gpipe_evidence() -> list[Evidence]:
    """Published rows with several micro-batches, and what equal stages could do."""
    gains, baselines = [], set()
    for row in gpipe.published_rows():  # a model's first row is what its others are measured by
        model = row["table"], row["model"]
        if model in baselines and row["n_microbatches"] > 1:
            gains.append(row["throughput"])
        baselines.add(model)
    n_within = sum(LEAST <= gain <= MOST for gain in gains)
    fewest = next(k for k in range(2, 33) if gpipe.speedup(k, 32) >= LEAST)
    return [
        Evidence("rows-within", WITHIN_CLAIM, n_within, "", "published"),
        Evidence("rows", "rows shown with several micro-batches", len(gains), "", "published"),
        Evidence("lowest", "lowest gain of the rows shown", min(gains), "x", "published"),
        Evidence("highest", "highest gain of the rows shown", max(gains), "x", "published"),
        Evidence("fewest-stages", FEWEST, fewest, "", "computed"),
        Evidence("ideal", IDEAL, gpipe.speedup(8, 32), "x", "computed"),
    ]


def gpipe_throughput(evidence) -> Outcome:
    """Whether GPipe multiplies throughput by 3 to 5."""
    value = {key: item.value for key, item in by_id(evidence).items()}
    within, rows = value["rows-within"], value["rows"]
    low, high, fewest = (number(value[key]) for key in ("lowest", "highest", "fewest-stages"))
    values = dict(n=f"{within:.0f}", rows=f"{rows:.0f}", low=low, high=high, least=fewest)
    options = dict(rule=GPIPE_RULE, values=values)
    if within == 0:
        reason = "no published row lies there; they reach from {low} to {high}"
        return Outcome(False, evidence, reason=reason, **options)
    condition = "" if within == rows else GPIPE_CONDITION
    return Outcome(True, evidence, condition=condition, **options)


# --- pipe-balance ----------------------------------------------------------------------------

COSTS, AGREES = 1.10, 0.05  # of the balanced time; of it
BALANCE_RULE = (
    "one of four stages takes 1.5 times the others, all work together unchanged, 8 micro-batches. "
    "Holds if a step takes at least 1.10 times the balanced one in every schedule; on a condition "
    "in some; not in none; undecided if real ranks and the simulator differ by over 0.05"
)
SLOW = "one stage of four half as slow again, same work: time over balanced, {schedule}"
SLOW_REAL = "the same on real ranks that sleep, gpipe"
SPLIT = "unequal layers: equal counts over the best split, time"


def balance_evidence(slow_real: float, split_gain: float) -> list[Evidence]:
    """The price of one slow stage, by schedule and on real ranks; the best split's gain."""
    options = dict(unit="x", kind="simulated")
    return [
        *(
            Evidence(f"slow-{s}", SLOW, measure.slowdown(s), values={"schedule": s}, **options)
            for s in SCHEDULES
        ),
        Evidence("slow-real", SLOW_REAL, slow_real, "x"),
        Evidence("split", SPLIT, split_gain, **options),
    ]


def pipe_balance(evidence) -> Outcome:
    """Whether a pipeline has to be balanced."""
    items = by_id(evidence)
    slowdowns = {name: items[f"slow-{name}"].value for name in SCHEDULES}
    if abs(items["slow-real"].value - slowdowns["gpipe"]) > AGREES:
        reason = "real ranks and the simulator do not agree here"
        return Outcome(None, evidence, rule=BALANCE_RULE, reason=reason)
    names = [name for name, ratio in slowdowns.items() if ratio >= COSTS]
    if not names:
        reason = "no schedule loses a tenth by it"
        return Outcome(False, evidence, rule=BALANCE_RULE, reason=reason)
    if len(names) == len(slowdowns):
        return Outcome(True, evidence, rule=BALANCE_RULE)
    options = dict(condition="the schedule is one of {names}", values=dict(names=", ".join(names)))
    return Outcome(True, evidence, rule=BALANCE_RULE, **options)


# --- microbatch-bubble -----------------------------------------------------------------------

WITHIN, FILLED = 0.05, 0.20  # of the formula; the bubble that counts as filled, GPipe's M >= 4 K
BUBBLE_RULE = (
    "holds if the bubble of real ranks, within 0.05 of (K-1)/(M+K-1), falls to 0.20 or less with "
    "four micro-batches a stage and no rank holds more than with one; on a condition if it falls "
    "so far but more is held; not if it does not fall; undecided if real ranks are further from "
    "the formula"
)
BUBBLE_CONDITION = (
    "there are several times as many as stages, {many}% of the time is lost all the same, and "
    "GPipe holds {gpipe} of them at once where 1F1B holds {other}"
)
DIFFERENCE = "real bubbles less (K-1)/(M+K-1), the largest difference"


def bubble_evidence(pool: RankPool) -> list[Evidence]:
    """Real bubbles of four ranks with few and many micro-batches, and what ranks then hold."""
    few, many = (measure.run_step(pool, "gpipe", n)[0].bubble_fraction for n in (4, 16))
    apart = max(abs(few - measure.bubble(4, 4)), abs(many - measure.bubble(4, 16)))
    gpipe_held, other_held = (measure.run_step(pool, name, 16)[1] for name in ("gpipe", "1f1b"))
    return [
        Evidence("bubble-16", "bubble of 4 real ranks that sleep, 16 micro-batches", many),
        Evidence("bubble-4", "bubble of 4 real ranks that sleep, 4 micro-batches", few),
        Evidence("difference", DIFFERENCE, apart),
        Evidence("held-gpipe", "micro-batches held by a rank, 16 in all, gpipe", gpipe_held),
        Evidence("held-1f1b", "micro-batches held by a rank, 16 in all, 1f1b", other_held),
    ]


def microbatch_bubble(evidence) -> Outcome:
    """Whether micro-batches fill the bubble."""
    value = {key: item.value for key, item in by_id(evidence).items()}
    many, held = value["bubble-16"], value["held-gpipe"]
    if value["difference"] > WITHIN:
        reason = "real ranks are further from the formula than the rule allows"
        return Outcome(None, evidence, rule=BUBBLE_RULE, reason=reason)
    if many > FILLED or many >= value["bubble-4"]:
        reason = "more micro-batches do not bring the bubble down far enough"
        return Outcome(False, evidence, rule=BUBBLE_RULE, reason=reason)
    if held <= 4:
        return Outcome(True, evidence, rule=BUBBLE_RULE)
    other = f"{value['held-1f1b']:.0f}"
    values = dict(gpipe=f"{held:.0f}", other=other, many=f"{100 * many:.0f}")
    return Outcome(True, evidence, rule=BUBBLE_RULE, condition=BUBBLE_CONDITION, values=values)
