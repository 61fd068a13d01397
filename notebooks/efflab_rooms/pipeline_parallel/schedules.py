"""Notebook 13's schedules: compared in the simulator, explored, and GPipe's published tables."""

from efflab.distributed import gpipe
from efflab.distributed.partition import best_split, stage_seconds
from efflab.distributed.pipeline import simulate
from efflab.distributed.schedules import SCHEDULES
from efflab.distributed.timeline import Timeline
from efflab.errors import require, require_int, require_one_of
from efflab.lab import Choice, Slider, Toggle, colours, explorer, figures, number, tr
from efflab_rooms.pipeline_parallel import gantt


def compared_rows(n_stages: int, n_microbatches: int) -> list[dict]:
    """Every schedule with equal stages; a forward pass is 1, a backward pass 2."""
    rows = []
    for schedule in SCHEDULES:
        found = simulate([1.0] * n_stages, [2.0] * n_stages, n_microbatches, schedule)
        copies = 2 if schedule == "dualpipe" else 1
        rows.append({
            "schedule": schedule, "time": found.makespan, "bubble": found.bubble_fraction,
            "micro-batches held": max(found.peak_activations), "copies of the weights": copies,
            "kind": "simulated",
        })  # fmt: skip
    return rows


def published_rows() -> list[dict]:
    """GPipe's tables beside its bubble, and beside recomputation that hides in it."""
    return [
        {
            "model": row["model"], "stages": row["n_stages"],
            "micro-batches": row["n_microbatches"], "published": row["throughput"],
            "ideal": row["ideal"], "recomputed": row["recomputed"],
            "published / ideal": row["over_ideal"], "kind": "published",
        }
        for row in gpipe.published_rows()
    ]  # fmt: skip


def speedup_figure():
    """Ideal throughput over one device by micro-batches, for several numbers of stages."""
    counts = [1, 2, 4, 8, 16, 32, 64, 128]
    lines = {tr("{n} stages", n=k): [gpipe.speedup(k, m) for m in counts] for k in (2, 4, 6, 8)}
    title = tr("Throughput over one device, equal stages, nothing else (computed)")
    fig = figures.line(counts, lines, title, tr("micro-batches"), tr("times"), log_x=True)
    fig.add_hrect(y0=3, y1=5, fillcolor=colours.ORANGE, opacity=0.15, line_width=0,
                  annotation_text=tr("the article's 3 to 5"),
                  annotation_position="top left")  # fmt: skip
    fig.layout.meta = {tr("8 stages, 32 micro-batches"): gpipe.speedup(8, 32)}
    return fig


# --- Unequal layers --------------------------------------------------------------------------

LAYERS = (1.0,) * 10 + (4.0,)
"""Ten equal layers and an output layer over a large vocabulary, in times of a layer."""


def split_rows(n_stages: int = 4, n_microbatches: int = 16) -> list[dict]:
    """As many layers a stage as can be, and the best split: slowest stage, time, bubble."""
    count, more = divmod(len(LAYERS), n_stages)
    equal = [count + (i < more) for i in range(n_stages)]
    rows = []
    for name, split in (("equal counts", equal), ("best split", best_split(LAYERS, n_stages))):
        seconds = stage_seconds(LAYERS, split)
        found = simulate(seconds, [2 * s for s in seconds], n_microbatches, "1f1b")
        rows.append({
            "split": name, "layers": " ".join(map(str, split)), "slowest stage": max(seconds),
            "time": found.makespan, "bubble": found.bubble_fraction, "kind": "simulated",
        })  # fmt: skip
    return rows


# --- The explorer ----------------------------------------------------------------------------


def timeline_of(
    n_stages: int, n_microbatches: int, schedule: str, slowest: float, recompute: bool
) -> Timeline:
    """A step whose second stage takes `slowest` times the others', all in all the same work."""
    factors = [1.0] * n_stages
    factors[1] = slowest
    unit = n_stages / sum(factors)
    times = [[unit * f * t for f in factors] for t in (1.0, 2.0)]
    return simulate(*times, n_microbatches, schedule, recompute=recompute)


@explorer(
    n_microbatches=Slider(1, 64, 8, scale="log2", label="micro-batches"),
    n_stages=Slider(2, 16, 4, step=2, label="stages"),
    schedule=Choice(SCHEDULES, "gpipe", label="schedule"),
    slowest=Slider(1.0, 3.0, 1.0, step=0.25, label="second stage, times the others"),
    recompute=Toggle(False, label="recompute activations"),
)
def pipeline(n_microbatches=8, n_stages=4, schedule="gpipe", slowest=1.0, recompute=False):
    """Who computes when, the bubble, and what a rank holds."""
    require_int("n_microbatches", n_microbatches)
    require_int("n_stages", n_stages)
    require(2 <= n_stages <= 16, "n_stages", n_stages, "{low} to {high}", low=2, high=16)
    require_one_of("schedule", schedule, SCHEDULES)
    require(1 <= slowest <= 3, "slowest", slowest, "{low} to {high}", low=1, high=3)
    found = timeline_of(n_stages, n_microbatches, schedule, slowest, recompute)
    held, bubble = max(found.peak_activations), found.bubble_fraction
    meta = {tr("bubble (%)"): 100 * bubble, tr("micro-batches held"): held,
            tr("time"): found.makespan}  # fmt: skip
    title = tr("{schedule}: bubble {b}%, a rank holds {held} micro-batches, time {t}",
               schedule=schedule, b=number(100 * bubble), held=number(held),
               t=number(found.makespan))  # fmt: skip
    if recompute:
        title += "<br>" + tr("held: only each micro-batch's input of the stage")
    fig = figures.blank(title, tr("time, in forward passes"), meta=meta,
                        height=200 + 22 * n_stages, margin_t=110)  # fmt: skip
    gantt.add_gantt(fig, found, found.makespan, 1.0)
    gantt.add_key(fig, sorted({event.kind for event in found.events}, key=gantt.KINDS.index))
    return fig
