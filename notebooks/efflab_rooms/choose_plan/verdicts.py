"""Notebook 15's verdicts: rules fixed beforehand, outcomes from figures alone."""

from collections.abc import Iterable, Mapping

from efflab.lab import Evidence, Outcome, by_id

LEADS = {
    "latency": ("latency", "latency: the best light structure over the best other, at least"),
    "memory": ("memory", "training memory: the best light structure over the best other, at least"),
    "training days": (
        "training-days",
        "training days: the best light structure over the best other, at least",
    ),
    "checkpoint": (
        "checkpoint",
        "checkpoint: the best light structure over the best other, at least",
    ),
    "quality": ("quality", "quality kept: the best light structure over the best other, at least"),
}
"""Budget -> id and name of its evidence."""

COUNTS, TEXTS = (8, 64, 512), 512
"""Devices, and the texts of a step that they share."""
MOST_ERROR = 20
LENGTHS = (128, 512, 2048)


def light_first(evidence: Iterable[Evidence | Mapping]) -> Outcome:
    """Choose a light structure first, such as ALBERT or Swin."""
    found = by_id(evidence)
    rule = (
        "a light structure serves a budget if on every model asked its surest gain is above that "
        "of every other technique. The claim holds if it does so on all five budgets; on a "
        "condition if on at least one; not if on none"
    )
    led = [key for key, _ in LEADS.values() if found[key].value > 1]
    deciding_first = sorted(found.values(), key=lambda item: item.id not in led)
    options = dict(rule=rule, values={"n": len(led)})
    if len(led) == len(LEADS):
        return Outcome(True, deciding_first, **options)
    if led == ["checkpoint"]:
        condition = (
            "the checkpoint is the budget that binds: sharing removes parameters, and no FLOPs"
        )
        return Outcome(True, deciding_first, condition=condition, **options)
    if led:
        condition = "one of the {n} budgets binds on which it leads"
        return Outcome(True, deciding_first, condition=condition, **options)
    reason = "on every budget another technique gains as much or more"
    return Outcome(False, deciding_first, reason=reason, **options)


def parallel_choice(evidence: Iterable[Evidence | Mapping]) -> Outcome:
    """Data parallelism suits small models; model and pipeline parallelism suit huge ones."""
    found = by_id(evidence)
    value = {key: item.value for key, item in found.items()}
    rule = (
        "holds if for each count of devices data parallelism alone is fastest up to some size and "
        "a pipeline is in every fastest plan from some size on; on a condition if so for some "
        "counts; not if for none. Undecided if the planner's median error on published runs is "
        "over {most} %"
    )
    parted = [n for n in COUNTS if value[f"small-{n}"] > 0 and value[f"huge-{n}"] > 0]
    values = {"most": MOST_ERROR, "tensor": round(value["tensor"])}
    if parted:
        values["each"] = TEXTS // max(parted)
    options = dict(rule=rule, values=values)
    if value["planner-error"] > MOST_ERROR:
        return Outcome(
            None, evidence, reason="the planner is too far off published runs", **options
        )
    if len(parted) == len(COUNTS):
        return Outcome(True, evidence, **options)
    if parted:
        condition = (
            "a device has {each} or more texts of a step: with fewer, small models are split too. "
            "{tensor} % of the plans with a pipeline split layers as well"
        )
        return Outcome(True, evidence, condition=condition, **options)
    reason = "no count of devices parts sizes that way"
    return Outcome(False, evidence, reason=reason, **options)


def profile_first(evidence: Iterable[Evidence | Mapping]) -> Outcome:
    """Find the bottleneck with the PyTorch Profiler, and iterate."""
    found = by_id(evidence)
    value = {key: item.value for key, item in found.items()}
    rule = (
        "windows are the rule of thumb at every length, the profile chooses between them and fewer "
        "FFN neurons. Holds if where it chooses otherwise it is faster, beyond the A/A band, at "
        "one length at least, and slower at none; not if slower somewhere; undecided if neither "
        "shows"
    )
    times, band = [found[f"time-{n}"] for n in LENGTHS], value["band"] / 100
    high = [t.value if t.high is None else t.high for t in times]
    low = [t.value if t.low is None else t.low for t in times]
    if max(low) > 1 + band:
        reason = "what the profile pointed to was slower than the rule of thumb"
        return Outcome(False, evidence, rule=rule, reason=reason)
    if value["changed"] > 0 and min(high) < 1 - band:
        return Outcome(True, evidence, rule=rule)
    return Outcome(
        None, evidence, rule=rule, reason="the choices differ by no more than noise here"
    )
