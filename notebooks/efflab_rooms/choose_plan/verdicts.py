"""Notebook 15's verdicts: rules fixed beforehand, outcomes from figures alone."""

from collections.abc import Iterable, Mapping

from efflab.lab import Figure, Outcome, by_name

LEADS = {
    "latency": "latency: the best light structure over the best other, at least",
    "memory": "training memory: the best light structure over the best other, at least",
    "training days": "training days: the best light structure over the best other, at least",
    "checkpoint": "checkpoint: the best light structure over the best other, at least",
    "quality": "quality kept: the best light structure over the best other, at least",
}
SHARED_FLOPS = "FLOPs of BERT-base with shared layers over its own"
IMAGES = "Swin-T's first stage: FLOPs of full attention over windows, 224 pixels"

COUNTS, TEXTS = (8, 64, 512), 512
"""Devices, and the texts of a step that they share."""
SMALL = {
    8: "8 devices: size up to which data parallel alone is fastest (0: none)",
    64: "64 devices: size up to which data parallel alone is fastest (0: none)",
    512: "512 devices: size up to which data parallel alone is fastest (0: none)",
}
HUGE = {
    8: "8 devices: size from which the fastest plan has a pipeline (0: none)",
    64: "64 devices: size from which the fastest plan has a pipeline (0: none)",
    512: "512 devices: size from which the fastest plan has a pipeline (0: none)",
}
TENSOR = "plans with a pipeline that split layers too (tensor)"
PLANNER = "planner's median error on published runs that it was not fitted to"
MOST_ERROR = 20

LENGTHS = (128, 512, 2048)
TIMES = {
    128: "128 tokens: time after the profile's choice over the rule of thumb's",
    512: "512 tokens: time after the profile's choice over the rule of thumb's",
    2048: "2048 tokens: time after the profile's choice over the rule of thumb's",
}
SCORES = {
    128: "128 tokens: share of the scores in the profile",
    512: "512 tokens: share of the scores in the profile",
    2048: "2048 tokens: share of the scores in the profile",
}
CHANGED = "lengths at which the profile changes the choice"
BAND = "A/A band of the times where it does, the widest"


def light_first(figures: Iterable[Figure | Mapping]) -> Outcome:
    """Choose a light structure first, such as ALBERT or Swin."""
    found = by_name(figures)
    rule = (
        "a light structure serves a budget if on every model asked its surest gain is above that "
        "of every other technique. The claim holds if it does so on all five budgets; on a "
        "condition if on at least one; not if on none"
    )
    led = [budget for budget, name in LEADS.items() if found[name].value > 1]
    deciding = {LEADS[budget] for budget in led}
    shown = tuple(sorted(found.values(), key=lambda figure: figure.name not in deciding))
    options = dict(rule=rule, values={"n": len(led)})
    if len(led) == len(LEADS):
        return Outcome(True, shown, **options)
    if led == ["checkpoint"]:
        condition = (
            "the checkpoint is the budget that binds: sharing removes parameters, and no FLOPs"
        )
        return Outcome(True, shown, condition=condition, **options)
    if led:
        condition = "one of the {n} budgets binds on which it leads"
        return Outcome(True, shown, condition=condition, **options)
    reason = "on every budget another technique gains as much or more"
    return Outcome(False, shown, reason=reason, **options)


def parallel_choice(figures: Iterable[Figure | Mapping]) -> Outcome:
    """Data parallelism suits small models; model and pipeline parallelism suit huge ones."""
    found = by_name(figures)
    value = {name: figure.value for name, figure in found.items()}
    rule = (
        "holds if for each count of devices data parallelism alone is fastest up to some size and "
        "a pipeline is in every fastest plan from some size on; on a condition if so for some "
        "counts; not if for none. Undecided if the planner's median error on published runs is "
        "over {most} %"
    )
    shown = tuple(found.values())
    parted = [n for n in COUNTS if value[SMALL[n]] > 0 and value[HUGE[n]] > 0]
    values = {"most": MOST_ERROR, "tensor": round(value[TENSOR])}
    if parted:
        values["each"] = TEXTS // max(parted)
    options = dict(rule=rule, values=values)
    if value[PLANNER] > MOST_ERROR:
        return Outcome(None, shown, reason="the planner is too far off published runs", **options)
    if len(parted) == len(COUNTS):
        return Outcome(True, shown, **options)
    if parted:
        condition = (
            "a device has {each} or more texts of a step: with fewer, small models are split too. "
            "{tensor} % of the plans with a pipeline split layers as well"
        )
        return Outcome(True, shown, condition=condition, **options)
    reason = "no count of devices parts sizes that way"
    return Outcome(False, shown, reason=reason, **options)


def profile_first(figures: Iterable[Figure | Mapping]) -> Outcome:
    """Find the bottleneck with the PyTorch Profiler, and iterate."""
    found = by_name(figures)
    value = {name: figure.value for name, figure in found.items()}
    rule = (
        "windows are the rule of thumb at every length, the profile chooses between them and fewer "
        "FFN neurons. Holds if where it chooses otherwise it is faster, beyond the A/A band, at "
        "one length at least, and slower at none; not if slower somewhere; undecided if neither "
        "shows"
    )
    shown = tuple(found.values())
    times, band = [found[TIMES[n]] for n in LENGTHS], value[BAND] / 100
    high = [t.value if t.high is None else t.high for t in times]
    low = [t.value if t.low is None else t.low for t in times]
    if max(low) > 1 + band:
        reason = "what the profile pointed to was slower than the rule of thumb"
        return Outcome(False, shown, rule=rule, reason=reason)
    if value[CHANGED] > 0 and min(high) < 1 - band:
        return Outcome(True, shown, rule=rule)
    return Outcome(None, shown, rule=rule, reason="the choices differ by no more than noise here")
