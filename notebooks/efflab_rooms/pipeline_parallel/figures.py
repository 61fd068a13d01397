"""Notebook 13's pictures of time: who computes what when, on real ranks and simulated."""

from collections.abc import Mapping, Sequence

import numpy as np

from efflab.distributed import gpipe
from efflab.distributed.launch import RankPool
from efflab.distributed.pipeline import simulate
from efflab.distributed.schedules import SCHEDULES
from efflab.distributed.timeline import Timeline
from efflab.errors import require, require_int, require_one_of
from efflab.lab import Choice, Slider, Toggle, colours, explorer, number, tr
from efflab.lab import figures as pictures
from efflab.lab.text import tr_name
from efflab_rooms.pipeline_parallel import measure

COLUMNS = 600
TASKS = {
    "F": ("forward", colours.BLUE, colours.SKY),
    "B": ("backward", colours.VERMILION, colours.ORANGE),
    "I": ("backward, for the inputs", colours.PINK, colours.tint(colours.PINK, 0.5)),
    "W": ("backward, for the weights", colours.GREEN, colours.tint(colours.GREEN, 0.5)),
}
"""Each kind of task: its name, and its shades for even and for odd micro-batches."""
KINDS = tuple(TASKS)
SHADES = (colours.FAINT_GREY, *(shade for _, *shades in TASKS.values() for shade in shades))
"""Of a raster's values; 0 is idle."""


def raster(timeline: Timeline, until: float) -> np.ndarray:
    """(ranks, COLUMNS) of what each rank does over time: 0 idle, 1 + 2 kind + parity."""
    image = np.zeros((len(timeline.orders), COLUMNS), dtype=np.int8)
    for event in timeline.events:
        begin, end = (round(t / until * COLUMNS) for t in (event.start, event.end))
        image[event.rank, begin:end] = 1 + 2 * KINDS.index(event.kind) + event.microbatch % 2
    return image


def _add_gantt(fig, timeline: Timeline, until: float, scale: float, **where) -> None:
    """Draw a timeline as one picture; `scale` turns its seconds into the axis's unit."""
    n = len(SHADES)
    steps = [(edge / n, shade) for i, shade in enumerate(SHADES) for edge in (i, i + 1)]
    width = until / COLUMNS * scale
    place = dict(x0=width / 2, dx=width, y=[str(r) for r in range(len(timeline.orders))])
    look = dict(colorscale=steps, zmin=-0.5, zmax=n - 0.5, showscale=False, ygap=2)
    fig.add_heatmap(z=raster(timeline, until), **place, **look, hoverinfo="skip", **where)
    fig.update_yaxes(type="category", autorange="reversed", title_text=tr("rank"), **where)


def _add_key(fig, kinds) -> None:
    """A legend of these kinds of task."""
    for kind in kinds:
        name, shade, _ = TASKS[kind]
        marker = dict(size=11, symbol="square", color=shade)
        fig.add_scatter(x=[None], y=[None], mode="markers", name=tr(name), marker=marker)
    fig.update_layout(legend=pictures.legend("above"))


def real_step(pool: RankPool, schedule: str, n_microbatches: int):
    """A real step over the simulated one, on one scale of time."""
    n_ranks = pool.n_procs
    real, _ = measure.run_step(pool, schedule, n_microbatches)
    simulated = measure.simulate_step(n_ranks, schedule, n_microbatches)
    words = dict(schedule=schedule, n=n_ranks, m=n_microbatches)
    title = tr("{schedule}, {n} ranks, {m} micro-batches", **words)
    panels = {
        tr("sleeping ranks: bubble {b}", b=number(real.bubble_fraction)): real,
        tr("simulated: bubble {b}", b=number(simulated.bubble_fraction)): simulated,
    }
    meta = {
        tr("bubble, sleeping ranks"): real.bubble_fraction,
        tr("bubble, simulated"): simulated.bubble_fraction,
    }
    return _two_steps(panels, title, meta)


def computing_steps(steps: Mapping[str, Sequence[Timeline]]):
    """The last repeat of the real steps with two and with eight micro-batches, one scale."""
    few, many = (steps[name][-1] for name in ("few", "many"))
    text = "{m} micro-batches: bubble {b} (formula: {formula})"
    panels, meta = {}, {}
    for m, timeline in ((2, few), (8, many)):
        bubble = timeline.bubble_fraction
        shares = dict(b=number(bubble, 2), formula=number(measure.bubble(2, m), 2))
        panels[tr(text, m=m, **shares)] = timeline
        meta[tr("bubble, {m} micro-batches", m=m)] = bubble
    return _two_steps(panels, tr("Two computing ranks, the same batch (measured)"), meta)


def _two_steps(panels: dict[str, Timeline], title: str, meta: dict):
    """Two timelines over one another, {title: timeline}, on one scale of milliseconds."""
    until = max(timeline.makespan for timeline in panels.values())
    fig = pictures.panels(list(panels), title, rows=2, meta=meta, vertical_spacing=0.2)
    for row, timeline in enumerate(panels.values(), start=1):
        _add_gantt(fig, timeline, timeline.makespan, 1e3, row=row, col=1)
        fig.update_xaxes(range=[0, 1e3 * until], row=row, col=1)
    fig.update_xaxes(title_text=tr("milliseconds"), row=2, col=1)
    _add_key(fig, ("F", "B"))
    return fig.update_layout(height=450, margin_t=116, legend_y=1.08)


IMBALANCES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)


def imbalance():
    """The price of one slow stage by its place, and, in its worst place, by how slow it is."""
    titles = [tr("by position (1.5 times the others)"), tr("in the worst position")]
    fig = pictures.panels(titles, tr("One slow stage of four: time / balanced time (simulated)"))
    places = list(range(measure.N_STAGES))
    worst = {}
    for i, schedule in enumerate(SCHEDULES):
        by_place = [measure.slowdown(schedule, place) for place in places]
        by_times = [max(measure.slowdown(schedule, p, t) for p in places) for t in IMBALANCES]
        worst[schedule] = max(by_place)
        look = pictures.style(i) | dict(name=tr_name(schedule), legendgroup=schedule)
        fig.add_scatter(x=[p + 1 for p in places], y=by_place, **look, row=1, col=1)
        fig.add_scatter(x=IMBALANCES, y=by_times, **look, showlegend=False, row=1, col=2)
    fig.update_xaxes(title_text=tr("position of the slow stage"), dtick=1, row=1, col=1)
    fig.update_xaxes(title_text=tr("slow stage / others (time)"), row=1, col=2)
    fig.update_layout(meta={tr_name(name): ratio for name, ratio in worst.items()})
    return fig.update_layout(legend=pictures.legend("below"))


def gains():
    """What equal stages could do, and each published gain beside the ideal one of its row."""
    counts = [2**i for i in range(8)]
    titles = [
        tr("vs. one device, equal stages (computed)"),
        tr("vs. two stages, same table (published)"),
    ]
    meta = {tr("8 stages, 32 micro-batches, vs. one device"): gpipe.speedup(8, 32)}
    fig = pictures.panels(titles, tr("Throughput gain"), meta=meta)
    for i, k in enumerate((2, 4, 6, 8)):
        values = [gpipe.speedup(k, m) for m in counts]
        name = tr("{n} stages", n=k)
        fig.add_scatter(x=counts, y=values, name=name, **pictures.style(i), row=1, col=1)
    _add_published(fig, first_style=4, row=1, col=2)
    label = dict(annotation_text=tr("the article's 3 to 5"), annotation_position="top left")
    fig.add_hrect(3, 5, fillcolor=colours.ORANGE, opacity=0.15, line_width=0, **label)
    fig.update_xaxes(**pictures.log_ticks(counts), title_text=tr("micro-batches"), row=1, col=1)
    fig.update_xaxes(title_text=tr("ideal gain (x)"), row=1, col=2)
    fig.update_yaxes(range=[0, 8], title_text=tr("gain (x)"))
    return fig.update_layout(height=460, legend=pictures.legend("below"))


def _add_published(fig, first_style: int, **where) -> None:
    """A marker for each published row, and the line on which it would be ideal."""
    rows = [row for row in gpipe.published_rows() if not row["is_baseline"]]
    for i, model in enumerate(dict.fromkeys(row["model"] for row in rows), start=first_style):
        own = [row for row in rows if row["model"] == model]
        text = "{k} stages, {m} micro-batches"
        words = [tr(text, k=row["n_stages"], m=row["n_microbatches"]) for row in own]
        look = pictures.style(i, size=9) | dict(mode="markers", text=words)
        gain, ideal = ([row[key] for row in own] for key in ("throughput", "ideal"))
        fig.add_scatter(x=ideal, y=gain, name=tr(model), **look, **where)
    line = dict(color=colours.DARK, dash="dot", width=1)
    look = dict(mode="lines", line=line, showlegend=False, hoverinfo="skip")
    fig.add_scatter(x=[1, 6.6], y=[1, 6.6], **look, **where)


def predictions(rows: Sequence[Mapping]):
    """Published rows of Megatron-LM against what the planner's model says of each.

    `rows`: those of `plan_fit.left_out()`.
    """
    names = {
        (1, "PTD-P"): tr("Table 1, PTD-P"),
        (2, "PTD-P"): tr("Table 2, PTD-P"),
        (2, "ZeRO-3"): tr("Table 2, ZeRO-3"),
    }
    title = tr("Megatron-LM's TFLOP/s per device, predicted from other models")
    axes = tr("published (TFLOP/s)"), tr("predicted (TFLOP/s)")
    meta = {tr("largest error (%)"): 100 * max(abs(row["error"]) for row in rows)}
    fig = pictures.blank(title, *axes, meta=meta)
    for i, (key, name) in enumerate(names.items()):
        own = [row for row in rows if (row["table"], row["scheme"]) == key]
        text = "{b} B parameters, {n} GPUs"
        words = [tr(text, b=row["params_billions"], n=row["gpus"]) for row in own]
        look = pictures.style(i, size=9) | dict(mode="markers", name=name, text=words)
        x, y = ([row[of] for row in own] for of in ("tflops_per_gpu", "predicted"))
        fig.add_scatter(x=x, y=y, **look)
    ends = [40, 200]
    line = dict(color=colours.DARK, dash="dot", width=1)
    fig.add_scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False, hoverinfo="skip")
    for update in (fig.update_xaxes, fig.update_yaxes):
        update(**pictures.round_ticks(*ends))
    return fig.update_layout(legend=pictures.legend("below"))


@explorer(
    n_microbatches=Slider(1, 64, 8, scale="log2", label="micro-batches"),
    n_stages=Slider(2, 16, 4, step=2, label="stages"),
    schedule=Choice(SCHEDULES, "gpipe", label="schedule"),
    slowest=Slider(1.0, 3.0, 1.0, step=0.25, label="second stage / others (time)"),
    recompute=Toggle(False, label="recompute activations"),
)
def pipeline(n_microbatches=8, n_stages=4, schedule="gpipe", slowest=1.0, recompute=False):
    """Who computes when, the bubble, and what a rank holds."""
    require_int("n_microbatches", n_microbatches)
    require_int("n_stages", n_stages, 2, 16)
    require_one_of("schedule", schedule, SCHEDULES)
    require(1 <= slowest <= 3, "slowest", slowest, "{low} to {high}", low=1, high=3)
    factors = [slowest if stage == 1 else 1.0 for stage in range(n_stages)]
    unit = n_stages / sum(factors)  # all stages together do the same work
    times = [[unit * factor * passes for factor in factors] for passes in (1.0, 2.0)]
    timeline = simulate(*times, n_microbatches, schedule, recompute=recompute)
    bubble, held = 100 * timeline.bubble_fraction, max(timeline.peak_activations)
    time = timeline.makespan
    meta = {
        tr("bubble (%)"): bubble,
        tr("micro-batches held"): held,
        tr("time (forward passes)"): time,
    }
    words = dict(schedule=schedule, b=number(bubble), held=number(held), t=number(time))
    title = tr("{schedule}: bubble {b}%, a rank holds {held} micro-batches, time {t}", **words)
    if recompute:
        title += "<br>" + tr("held: only the stage's input for each micro-batch")
    layout = dict(height=200 + 22 * n_stages, margin_t=110)
    fig = pictures.blank(title, tr("time (forward passes)"), meta=meta, **layout)
    _add_gantt(fig, timeline, time, 1.0)
    _add_key(fig, sorted({event.kind for event in timeline.events}, key=KINDS.index))
    return fig
