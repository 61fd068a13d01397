"""Notebook 15's verdicts: what each rests on, and its rule."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from efflab.advice.case import BUDGETS
from efflab.config import PRESETS
from efflab.cost import forward_flops
from efflab.distributed import plan_fit
from efflab.lab import Evidence, Outcome, by_id
from efflab_rooms.choose_plan import measure
from efflab_rooms.choose_plan.measure import COUNTS, LENGTHS, TEXTS, THUMB

# --- light-first -----------------------------------------------------------------------------

LEADS = {
    "latency": "latency: the best light structure over the best other, at least",
    "memory": "training memory: the best light structure over the best other, at least",
    "training-days": "training days: the best light structure over the best other, at least",
    "checkpoint": "checkpoint: the best light structure over the best other, at least",
    "quality": "quality kept: the best light structure over the best other, at least",
}
"""One for each budget: id -> name."""


def image_flops(side: int, *, windowed: bool) -> int:
    """FLOPs of an attention layer of Swin-T's first stage on an image of `side` pixels.

    4 h w C^2 + 2 (h w)^2 C multiply-accumulates on h w patches of 4 pixels, with M x M windows
    2 M^2 h w C for the second term (Liu et al. 2021, equations 1 and 2).
    """
    tokens, C, M = (side // 4) ** 2, 96, 7
    return 2 * (4 * tokens * C**2 + 2 * (M**2 if windowed else tokens) * tokens * C)


def light_evidence() -> list[Evidence]:
    """Lead by budget, the least over the models; what sharing does to FLOPs, windows to images."""
    leads = []
    for (key, name), budget in zip(LEADS.items(), BUDGETS, strict=True):
        least = min(measure.lead(model, budget) for model in measure.MODELS)
        leads.append(Evidence(key, name, least, "x", "computed"))
    plain = PRESETS["bert-base"]
    shared = forward_flops(replace(plain, share="all"), 512) / forward_flops(plain, 512)
    windows = image_flops(224, windowed=False) / image_flops(224, windowed=True)
    bert = "FLOPs of BERT-base with shared layers over its own"
    image = "Swin-T's first stage: FLOPs of full attention over windows, 224 pixels"
    return [
        *leads,
        Evidence("shared-flops", bert, shared, "x", "computed"),
        Evidence("image-flops", image, windows, "x", "computed"),
    ]


def light_first(evidence: Iterable[Evidence | Mapping]) -> Outcome:
    """Choose a light structure first, such as ALBERT or Swin."""
    numbers = by_id(evidence)
    leading = [key for key in LEADS if numbers[key].value > 1]
    rule = (
        "a light structure serves a budget if on every model asked its surest gain is above that "
        "of every other technique. The claim holds if it does so on all five budgets; on a "
        "condition if on at least one; not if on none"
    )
    card = dict(rule=rule, values={"n": len(leading)})
    card |= dict(evidence=sorted(numbers.values(), key=lambda item: item.id not in leading))
    if len(leading) == len(LEADS):
        return Outcome(True, **card)
    if not leading:
        reason = "on every budget another technique gains as much or more"
        return Outcome(False, **card, reason=reason)
    checkpoint = "the checkpoint is the budget that binds: sharing removes parameters, and no FLOPs"
    several = "one of the {n} budgets binds on which it leads"
    condition = checkpoint if leading == ["checkpoint"] else several
    return Outcome(True, **card, condition=condition)


# --- parallel-choice -------------------------------------------------------------------------

MOST_ERROR = 20
"""Per cent, the planner's median on published runs."""


def parallel_evidence() -> list[Evidence]:
    """Borders by count, how many pipelines split layers too, and the planner's own error."""
    small = "{n} devices: size up to which data parallel alone is fastest (0: none)"
    huge = "{n} devices: size from which the fastest plan has a pipeline (0: none)"
    sizes = []
    for n in COUNTS:
        most, least = measure.borders(n)
        sizes.append(Evidence(f"small-{n}", small, most, "B", "computed", values={"n": n}))
        sizes.append(Evidence(f"huge-{n}", huge, least, "B", "computed", values={"n": n}))
    plans = [plan for n in COUNTS for _, plan in measure.plans(n)]
    pipelines = [plan for plan in plans if measure.way(plan) == "pipeline"]
    tensor = 100 * sum(plan.tp > 1 for plan in pipelines) / len(pipelines)
    error = 100 * plan_fit.median_error(plan_fit.left_out())
    split = "plans with a pipeline that split layers too (tensor)"
    planner = "planner's median error on published runs that it was not fitted to"
    return [
        *sizes,
        Evidence("tensor", split, tensor, "%", "computed"),
        Evidence("planner-error", planner, error, "%", "computed"),
    ]


def parallel_choice(evidence: Iterable[Evidence | Mapping]) -> Outcome:
    """Data parallelism suits small models; model and pipeline parallelism suit huge ones."""
    value = {key: item.value for key, item in by_id(evidence).items()}
    rule = (
        "holds if for each count of devices data parallelism alone is fastest up to some size and "
        "a pipeline is in every fastest plan from some size on; on a condition if so for some "
        "counts; not if for none. Undecided if the planner's median error on published runs is "
        "over {most} %"
    )
    counts = [n for n in COUNTS if value[f"small-{n}"] > 0 and value[f"huge-{n}"] > 0]
    values = {"most": MOST_ERROR, "tensor": round(value["tensor"])}
    if counts:
        values["each"] = TEXTS // max(counts)
    card = dict(evidence=evidence, rule=rule, values=values)
    if value["planner-error"] > MOST_ERROR:
        return Outcome(None, **card, reason="the planner is too far off published runs")
    if not counts:
        return Outcome(False, **card, reason="no count of devices parts sizes that way")
    if len(counts) == len(COUNTS):
        return Outcome(True, **card)
    condition = (
        "a device has {each} or more texts of a step: with fewer, the planner, which hides no sum "
        "of gradients, splits small models too. {tensor}% of its plans with a pipeline split "
        "layers as well"
    )
    return Outcome(True, **card, condition=condition)


# --- profile-first ---------------------------------------------------------------------------


def profile_evidence() -> list[Evidence]:
    """At each length: the time after the profile's choice over the rule of thumb's."""
    time_name = "{n} tokens: time after the profile's choice over the rule of thumb's"
    scores_name = "{n} tokens: share of the scores in the profile"
    times, scores, bands = [], [], []
    for n in LENGTHS:
        shares, comparison = measure.measurement(n)
        choice = measure.choice(shares, n)
        ratio = comparison.timings[choice].ratio_interval(comparison.timings[THUMB])
        times.append(Evidence.of(f"time-{n}", time_name, ratio, "x", n=n))
        share = 100 * shares.scores
        scores.append(Evidence(f"scores-{n}", scores_name, share, "%", values={"n": n}))
        if choice != THUMB:
            bands.append(comparison.band)
    changed = "lengths at which the profile changes the choice"
    band = "A/A band (±) of the times where it does, the widest"
    return [
        *times,
        *scores,
        Evidence("changed", changed, len(bands)),
        Evidence("band", band, 100 * max(bands, default=0.0), "%"),
    ]


def profile_first(evidence: Iterable[Evidence | Mapping]) -> Outcome:
    """Find the bottleneck with the PyTorch Profiler, and iterate."""
    numbers = by_id(evidence)
    rule = (
        "windows are the rule of thumb at every length, the profile chooses between them and fewer "
        "FFN neurons. Holds if where it chooses otherwise it is faster, beyond the A/A band, at "
        "one length at least, and slower at none; not if slower somewhere; undecided if neither "
        "shows"
    )
    times, band = [numbers[f"time-{n}"] for n in LENGTHS], numbers["band"].value / 100
    high = [time.value if time.high is None else time.high for time in times]
    low = [time.value if time.low is None else time.low for time in times]
    card = dict(evidence=evidence, rule=rule)
    if max(low) > 1 + band:
        reason = "what the profile pointed to was slower than the rule of thumb"
        return Outcome(False, **card, reason=reason)
    if numbers["changed"].value > 0 and min(high) < 1 - band:
        return Outcome(True, **card)
    return Outcome(None, **card, reason="the choices differ by no more than noise here")
