"""Notebook 15's verdicts: the evidence of each, and what to say beside its outcome."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from efflab.config import PRESETS
from efflab.cost import forward_flops
from efflab.data import read_published
from efflab.distributed import plan_fit
from efflab.distributed.split import Plan
from efflab.estimate import Estimate
from efflab.experiments import profile_first as experiment
from efflab.lab import Evidence, Outcome, judge
from efflab_rooms.choose_plan import measure
from efflab_rooms.choose_plan.measure import COUNTS

# --- light-first -----------------------------------------------------------------------------


def image_flops(side: int, *, windowed: bool) -> int:
    """FLOPs of an attention layer of Swin-T's first stage on an image of `side` pixels.

    4 h w C^2 + 2 (h w)^2 C multiply-accumulates on h w patches of 4 pixels, with M x M windows
    2 M^2 h w C for the second term (Liu et al. 2021, equations 1 and 2).
    """
    tokens, C, M = (side // 4) ** 2, 96, 7
    return 2 * (4 * tokens * C**2 + 2 * (M**2 if windowed else tokens) * tokens * C)


def light_evidence(leads: Mapping[tuple[str, str], float]) -> list[Evidence]:
    """Lead by budget and model; what sharing does to FLOPs, and windows to images.

    `leads`: (budget, model) -> best light structure's surest gain over the best other's.
    """
    name = "{model}, {budget}: gain, best light structure / best other technique"
    plain = PRESETS["bert-base"]
    shared = forward_flops(replace(plain, share="all"), 512) / forward_flops(plain, 512)
    windows = image_flops(224, windowed=False) / image_flops(224, windowed=True)
    bert = "FLOPs, BERT-base, layers shared / unshared"
    image = "FLOPs, Swin-T's first stage, full attention / windows, 224 pixels"
    return [
        *(
            Evidence(lead_id(*key), name, lead, "x", values=dict(model=key[1], budget=key[0]))
            for key, lead in leads.items()
        ),
        Evidence("shared-flops", bert, shared, "x"),
        Evidence("image-flops", image, windows, "x"),
    ]


def lead_id(budget: str, model: str) -> str:
    """The id of a lead: "training-days-gpt3-1-3b"."""
    return f"{budget}-{model}".replace(" ", "-").replace(".", "-")


def light_first(evidence: Iterable[Evidence | Mapping]) -> Outcome:
    """Choose a light structure first, such as ALBERT or Swin."""
    advisor = "by this repository's own advisor: each technique alone, none at equal quality"
    no_flops = "sharing layers removes no FLOPs; windows pay off on images, which are long texts"
    remarks = {"checkpoint": advisor, "latency": no_flops}
    return judge("light-first", evidence, remarks=remarks)


# --- parallel-choice -------------------------------------------------------------------------

BATCHES = (512, 1024, 2048, 4096)
"""Texts of a step."""
SMALL, HUGE = ("gpt2", "gpt2-xl"), ("gpt3-175b", "310.1 B", "1008 B")
ODD, ODD_COUNT, ODD_BATCHES = "529.6 B", 560, (1120, 2240, 4480)
"""Its 105 layers make up to 35 stages of three, but no power of two: it has a grid of its own."""
Grid = dict[tuple[int, int], list[tuple[Plan, float]]]
"""(devices, texts of a step) -> what `measure.choose` gives for each model that fits."""


def grid(names: Sequence[str], counts: Sequence[int], batches: Sequence[int] = BATCHES) -> Grid:
    """The choices of several models over counts of devices and batches."""
    cells = product(counts, batches)
    rows = {cell: [measure.choose(name, *cell) for name in names] for cell in cells}
    return {cell: [chosen for chosen in row if chosen] for cell, row in rows.items()}


def small_grid() -> Grid:
    """The choices of GPT-2's smallest and largest."""
    return grid(SMALL, COUNTS)


def huge_grid() -> Grid:
    """The choices of the models of 175 billion parameters and more, where any fits."""
    return grid(HUGE, COUNTS[1:]) | grid([ODD], [ODD_COUNT], ODD_BATCHES)


def parallel_evidence(
    small: Grid, huge: Grid, odd: Mapping[int, float], error: float
) -> list[Evidence]:
    """By devices and texts of a step: the speed, data parallelism only / fastest plan.

    `odd`: the same of the model whose layers do not divide, by texts of a step of 512 devices;
    `error`: the planner's median (0..1).
    """
    least = (
        "{n} devices, {texts} texts per step: speed, data parallelism only / fastest plan, minimum"
    )
    most = (
        "{n} devices, {texts} texts per step: speed, data parallelism only / fastest plan, maximum"
    )
    plans = [plan for cell in huge.values() for plan, _ in cell]
    pipelines = "share of huge models' fastest plans that use a pipeline"
    tensors = "share of huge models' fastest plans that use tensor parallelism"
    alone = (
        "529.6 B, {n} devices, {texts} texts per step: speed, data parallelism only / fastest plan"
    )
    median = "planner's median error on published runs that it was not fitted to"
    unseen = "largest error on three published runs, predicted before any fit saw them"
    errors = [abs(row["error_percent"]) for row in read_published("megatron", "predicted")]
    return [
        *(_cell("small", least, cell, min(_shares(row))) for cell, row in small.items()),
        *(_cell("huge", most, cell, max(_shares(row))) for cell, row in huge.items()),
        Evidence("pipelines", pipelines, _percent_with("pp", plans), "%"),
        Evidence("tensors", tensors, _percent_with("tp", plans), "%"),
        *(_cell("odd", alone, (512, texts), share) for texts, share in odd.items()),
        Evidence("planner-error", median, 100 * error, "%"),
        Evidence("unseen", unseen, max(errors), "%"),
    ]


def _cell(size: str, name: str, cell: tuple[int, int], share: float) -> Evidence:
    values = dict(n=cell[0], texts=cell[1])
    return Evidence(f"{size}-{cell[0]}-{cell[1]}", name, share, "x", values=values)


def _shares(row: list[tuple[Plan, float]]) -> list[float]:
    return [share for _, share in row]


def _percent_with(degree: str, plans: list[Plan]) -> float:
    return 100 * sum(getattr(plan, degree) > 1 for plan in plans) / len(plans)


def own_parallel_evidence() -> list[Evidence]:
    """The evidence by this repository's planner."""
    odd = {texts: row[0][1] for (_, texts), row in grid([ODD], [512]).items()}
    error = plan_fit.median_error(plan_fit.left_out())
    return parallel_evidence(small_grid(), huge_grid(), odd, error)


def parallel_choice(evidence: Iterable[Evidence | Mapping]) -> Outcome:
    """Data parallelism suits small models; model and pipeline parallelism suit huge ones."""
    planned = "planned, not run: by a model of A100s that was fitted to published runs"
    layers = (
        "where layers do not divide evenly over the devices, as 105 over 512, and a step has four "
        "texts per device or more, sharded data parallelism (ZeRO-3) is the fastest plan for a "
        "huge model too"
    )
    return judge("parallel-choice", evidence, remarks={"small": planned, "huge": layers})


# --- profile-first ---------------------------------------------------------------------------

CHOICES = {
    "twice": "two changes: time, profile's choices / FLOP count's (geometric mean over shapes)",
    "best-profile": "time, profile's choice / best of four changes (geometric mean over shapes)",
    "best-count": "time, FLOP count's choice / best of four changes (geometric mean over shapes)",
    "spread": "time, best of four changes / worst of four (geometric mean over shapes)",
    "differ": "shapes of ten in which the two choose differently (mean over processes)",
    "quality-difference": "stdlib-gpt: bits per byte lost by the costliest of four changes",
}


def profile_evidence(cases: Mapping[str, Estimate]) -> list[Evidence]:
    """From `profile_first.cases`."""
    name = "{width} wide, {n} tokens: time, profile's choice / FLOP count's (five processes)"
    shapes = [key.split("-")[1:] for key in cases if key.startswith("rival-")]
    keys = {f"rival-{width}-{n}": dict(width=width, n=f"{int(n):,}") for width, n in shapes}
    evidence = [Evidence.of(k, name, cases[k], "x", "recorded", **own) for k, own in keys.items()]
    units = {"differ": "", "quality-difference": "bits"}
    return evidence + [
        Evidence.of(key, name, cases[key], units.get(key, "x"), "recorded")
        for key, name in CHOICES.items()
    ]


def own_profile_evidence() -> list[Evidence]:
    """The recorded evidence."""
    return profile_evidence(experiment.cases(measure.first_runs()))


def profile_first(evidence: Iterable[Evidence | Mapping]) -> Outcome:
    """Find the bottleneck with the PyTorch Profiler, and iterate."""
    alike = (
        "where both choose the same change the ratio is 1 by construction and its interval is the "
        "A/A noise alone; a roofline, which counts bytes too, was no rival here"
    )
    return judge("profile-first", evidence, remarks={"choice": alike})
