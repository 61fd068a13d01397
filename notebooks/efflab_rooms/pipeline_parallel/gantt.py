"""Notebook 13's pictures of time: who computes what when, simulated and on real ranks."""

from functools import lru_cache

import numpy as np

from efflab.distributed import stages
from efflab.distributed.launch import RankPool
from efflab.distributed.pipeline import simulate
from efflab.distributed.timeline import Timeline
from efflab.lab import colours, figures, number, tr

FORWARD, BACKWARD = 0.05, 0.1  # seconds that a real stage sleeps for a micro-batch
COLUMNS = 600
KINDS = ("F", "B", "I", "W")
NAMES = {
    "F": "forward",
    "B": "backward",
    "I": "backward, for the inputs",
    "W": "backward, for the weights",
}
PAIRS = (colours.BLUE, colours.SKY, colours.VERMILION, colours.ORANGE)
SOFT = (colours.PINK, colours.GREEN)
SHADES = (
    colours.FAINT_GREY,
    *PAIRS,
    *(shade for colour in SOFT for shade in (colour, colours.tint(colour, 0.5))),
)
"""Idle, then each kind in a dark and a light shade, for even and odd micro-batches."""


def raster(timeline: Timeline, until: float) -> np.ndarray:
    """(ranks, COLUMNS) of what each rank does over time: 0 idle, 1 + 2 kind + parity."""
    image = np.zeros((len(timeline.orders), COLUMNS), dtype=np.int8)
    for event in timeline.events:
        begin, end = (round(t / until * COLUMNS) for t in (event.start, event.end))
        image[event.rank, begin:end] = 1 + 2 * KINDS.index(event.kind) + event.microbatch % 2
    return image


def add_gantt(fig, timeline: Timeline, until: float, scale: float, **where) -> None:
    """Draw a timeline as one picture; `scale` turns its seconds into the axis's unit."""
    n = len(SHADES)
    steps = [(edge / n, shade) for i, shade in enumerate(SHADES) for edge in (i, i + 1)]
    width = until / COLUMNS * scale
    fig.add_heatmap(z=raster(timeline, until), x0=width / 2, dx=width, zmin=-0.5, zmax=n - 0.5,
                    y=[str(r) for r in range(len(timeline.orders))], colorscale=steps,
                    showscale=False, hoverinfo="skip", ygap=2, **where)  # fmt: skip
    fig.update_yaxes(type="category", autorange="reversed", title_text=tr("rank"), **where)


def add_key(fig, kinds) -> None:
    """A legend of the kinds that the picture has."""
    for kind in kinds:
        colour = SHADES[1 + 2 * KINDS.index(kind)]
        fig.add_scatter(x=[None], y=[None], mode="markers", name=tr(NAMES[kind]),
                        marker=dict(size=11, symbol="square", color=colour))  # fmt: skip
    fig.update_layout(legend=dict(orientation="h", x=0, y=1.02, yanchor="bottom"))


# --- Real ranks beside the simulator ---------------------------------------------------------


@lru_cache(maxsize=16)
def real(
    pool: RankPool, schedule: str, n_microbatches: int, factors: tuple[float, ...] = ()
) -> tuple[Timeline, int]:
    """(a step of real ranks whose stages sleep, the most micro-batches a rank held).

    `factors`: times of each stage over the usual ones.
    """
    factors = factors or (1.0,) * pool.n_procs
    times = [FORWARD * f for f in factors], [BACKWARD * f for f in factors]
    traces = pool.run(stages.sleep_on_rank, *times, n_microbatches, schedule, timeout=120)
    chunks = 2 if schedule == "interleaved" else 1
    return stages.timeline(traces, chunks), max(trace.held for trace in traces)


def simulated(
    n_ranks: int, schedule: str, n_microbatches: int, factors: tuple[float, ...] = ()
) -> Timeline:
    """The same step in the simulator."""
    factors = factors or (1.0,) * n_ranks
    times = [FORWARD * f for f in factors], [BACKWARD * f for f in factors]
    return simulate(*times, n_microbatches, schedule)


def formula(n_stages: int, n_microbatches: int) -> float:
    """The bubble of equal stages: (K - 1) / (M + K - 1)."""
    return (n_stages - 1) / (n_microbatches + n_stages - 1)


def bubble_rows(pools, cases) -> list[dict]:
    """Real and simulated bubbles of (schedule, micro-batches), and what a rank holds."""
    rows = []
    for pool in pools.values():
        for schedule, n in cases:
            measured, held = real(pool, schedule, n)
            expected = simulated(pool.n_procs, schedule, n)
            rows.append({
                "ranks": pool.n_procs, "schedule": schedule, "micro-batches": n,
                "bubble, real": measured.bubble_fraction,
                "simulated": expected.bubble_fraction,
                "difference": measured.bubble_fraction - expected.bubble_fraction,
                "held, real": held / measured.chunks_per_stage,
                "held, simulated": max(expected.peak_activations), "kind": "measured",
            })  # fmt: skip
    return rows


def real_figure(pool: RankPool, schedule: str, n_microbatches: int):
    """A real step over the simulated one, on one scale of time."""
    measured, _ = real(pool, schedule, n_microbatches)
    expected = simulated(pool.n_procs, schedule, n_microbatches)
    until = max(measured.makespan, expected.makespan)
    bubbles = [t.bubble_fraction for t in (measured, expected)]
    title = tr("{schedule}, {n} ranks, {m} micro-batches", schedule=schedule, n=pool.n_procs,
               m=n_microbatches)  # fmt: skip
    titles = [tr("real ranks: bubble {b}", b=number(bubbles[0])),
              tr("simulated: bubble {b}", b=number(bubbles[1]))]  # fmt: skip
    meta = {tr("bubble, real"): bubbles[0], tr("bubble, simulated"): bubbles[1]}
    fig = figures.panels(titles, title, rows=2, meta=meta, vertical_spacing=0.2)
    for row, timeline in enumerate((measured, expected), start=1):
        add_gantt(fig, timeline, until, 1e3, row=row, col=1)
    fig.update_xaxes(title_text=tr("milliseconds"), row=2, col=1)
    add_key(fig, ("F", "B"))
    return fig.update_layout(height=450, margin_t=116, legend_y=1.08)
