"""Notebook 14's figures and explorers."""

from itertools import pairwise

from efflab.devices import DEVICES
from efflab.errors import require, require_one_of
from efflab.experiments import lighten
from efflab.experiments.case_study import SEQ_LEN
from efflab.experiments.case_study_latency import BOTH, ENGINES, FP16, SHIPPED
from efflab.lab import Choice, Slider, blank, colours, explorer, mark, number, panels, tr
from efflab.lab.figures import COLOURS, legend, log_ticks
from efflab.lab.text import tr_name
from efflab_rooms.case_study import measure
from efflab_rooms.case_study.measure import CONFIG, DAYS, GPUS, N_PARAMS

# --- Windows and heads -----------------------------------------------------------------------


def damage():
    """Nats per token that each change adds alone: windows by layer, heads by layer."""
    windows, heads = (measure.part("widths")[kind] for kind in ("windows", "heads"))
    titles = [tr("window of this width"), tr("without this head")]
    title = tr("Loss added by each change alone (nats per token, recorded)")
    meta = {tr("costliest window"): max(map(max, windows))}
    meta |= {tr("costliest head"): max(map(max, heads))}
    fig = panels(titles, title, meta=meta, horizontal_spacing=0.12)
    look = dict(y=list(range(CONFIG.n_layer)), coloraxis="coloraxis", texttemplate="%{z:.2f}")
    fig.add_heatmap(z=windows, x=lighten.WIDTHS, row=1, col=1, **look)
    fig.add_heatmap(z=heads, x=list(range(CONFIG.n_head)), row=1, col=2, **look)
    fig.update_xaxes(type="category")
    fig.update_xaxes(title_text=tr("window (tokens)"), row=1, col=1)
    fig.update_xaxes(title_text=tr("head"), row=1, col=2)
    fig.update_yaxes(type="category", autorange="reversed")
    fig.update_yaxes(title_text=tr("layer"), row=1, col=1)
    return fig.update_layout(coloraxis_colorscale=colours.ONE_HUE, height=360, margin_t=96)


COUNTS = {"computed pairs": "computed", "visible pairs": "visible"}


@explorer(
    share=Slider(0.02, 0.4, 0.3, step=0.02, label="share of the FLOPs to remove"),
    count=Choice(tuple(COUNTS), "computed pairs", label="pairs counted"),
)
def lighter(share=0.3, count="computed pairs"):
    """The cheapest windows and heads for a share of the FLOPs, layer by layer."""
    require(0.02 <= share <= 0.4, "share", share, "{low} to {high}", low=0.02, high=0.4)
    require_one_of("count", count, COUNTS)
    recipe = measure.recipe(share)
    gone = 100 * lighten.removed_share(CONFIG, recipe, SEQ_LEN, COUNTS[count])
    n = sum(map(len, recipe.removed))
    meta = {tr("FLOPs removed (%)"): gone, tr("heads removed"): n}
    meta |= {tr("sum of individual costs (nats per token)"): measure.damage_sum(recipe)}
    title = tr("{gone}% of the FLOPs removed: {n} heads, and windows of", gone=number(gone), n=n)
    title += "<br>" + ", ".join(str(w or tr("all")) for w in recipe.windows)
    titles = [tr("window (tokens)"), tr("heads kept")]
    fig = panels(titles, title, meta=meta, horizontal_spacing=0.12)
    windows = [w or SEQ_LEN for w in recipe.windows]
    for i, y in enumerate((windows, recipe.heads_left(CONFIG.n_head))):
        bars = dict(x=list(range(CONFIG.n_layer)), y=y, text=y, marker_color=COLOURS[i])
        fig.add_bar(**bars, showlegend=False, row=1, col=i + 1)
    fig.update_xaxes(type="category", title_text=tr("layer"))
    fig.update_yaxes(**log_ticks([*lighten.WIDTHS, SEQ_LEN]), range=[1, 2.9], row=1, col=1)
    fig.update_yaxes(range=[0, CONFIG.n_head + 0.6], row=1, col=2)
    return fig.update_layout(height=380, margin_t=112)


# --- Paths and engines -----------------------------------------------------------------------


def waterfall():
    """What each step adds to bits per byte, and the FLOPs that are left after it."""
    steps = measure.steps()
    bits, gflops = [step["bits"] for step in steps], [step["flops"] / 1e9 for step in steps]
    share = number(100 * gflops[-1] / gflops[0])
    ends = dict(n=len(steps) - 1, first=number(bits[0]), last=number(bits[-1]), share=share)
    title = "{n} steps: {first} to {last} bits per byte, {share}% of the FLOPs left (recorded)"
    titles = [tr("bits per byte"), tr("GFLOP for 512 tokens")]
    meta = {tr("bits per byte at the end"): bits[-1]}
    fig = panels(titles, tr(title, **ends), meta=meta, horizontal_spacing=0.14)
    look = dict(x=[f"{i} {tr(step['step'])}" for i, step in enumerate(steps)], showlegend=False)
    look |= dict(textposition="outside")
    fig.add_waterfall(
        y=[bits[0], *(after - before for before, after in pairwise(bits))],
        measure=["absolute"] + ["relative"] * (len(steps) - 1),
        text=[number(b, 4) for b in bits],
        totals_marker_color=COLOURS[0],
        increasing_marker_color=COLOURS[1],
        decreasing_marker_color=COLOURS[2],
        **look,
        row=1,
        col=1,
    )
    texts = [number(n) for n in gflops]
    fig.add_bar(y=gflops, text=texts, marker_color=COLOURS[0], **look, row=1, col=2)
    fig.update_yaxes(range=[0.9, max(bits) + 0.12 * (max(bits) - 0.9)], row=1, col=1)
    fig.update_yaxes(range=[0, 1.15 * max(gflops)], row=1, col=2)
    fig.update_xaxes(tickangle=-35)
    return fig.update_layout(height=430, margin_t=96)


MOST_TIME = 3
"""Longer times stand as text, so that the others are told apart."""


def pareto():
    """Bits per byte against time: each engine's line from the shipped model to the path's end.

    Circles are as shipped, squares lightened and pruned. Weights stored in fp16 are computed in
    fp32: their line would hide that one.
    """
    cpus, meta = measure.cpus(), {}
    title = tr("Quality against time, one text of 512 tokens (recorded)")
    fig = panels(list(map(tr, cpus.values())), title, shared_yaxes=True, horizontal_spacing=0.06)
    for column, (isa, cpu) in enumerate(cpus.items(), start=1):
        times = measure.times(isa)
        for i, engine in enumerate(name for name in ENGINES if name != FP16):
            x = [times[stage, engine]["ratio"] for stage in (SHIPPED, BOTH)]
            meta[f"{tr_name(engine)}, {tr(cpu)}"] = x[-1]
            _add_engine(fig, engine, x, COLOURS[i], column)
    ticks = log_ticks([0.25, 0.5, 1, 2])
    fig.update_xaxes(title_text=tr("time / torch fp32, as shipped"), **ticks)
    fig.update_yaxes(title_text=tr("bits per byte"), row=1, col=1)
    under = legend("below", y=-0.22, yanchor="top")
    return fig.update_layout(meta=meta, legend=under, height=480, margin_b=130)


def _add_engine(fig, engine: str, x: list[float], colour: str, column: int) -> None:
    """The engine's line in a panel, or its times as text where they are too long to draw."""
    where = dict(row=1, col=column)
    if min(x) > MOST_TIME:
        ends = dict(engine=tr_name(engine), first=number(x[0]), last=number(x[1]))
        text = tr("{engine}: {first}, then {last}", **ends)
        place = dict(xref="x domain", yref="y domain", x=0.98, y=0.98, showarrow=False)
        fig.add_annotation(text=text, **place, font_color=colour, **where)
        return
    y = [measure.quality(stage, engine) for stage in (SHIPPED, BOTH)]
    look = dict(line=dict(color=colour, width=1.5), mode="lines+markers", showlegend=column == 1)
    look |= dict(marker=dict(size=11, symbol=["circle", "square"]))
    fig.add_scatter(x=x, y=y, name=tr_name(engine), **look, **where)


# --- 72 hours --------------------------------------------------------------------------------


@explorer(
    tokens=Slider(16, 2048, 256, scale="log2", unit="B", label="tokens"),
    count=Slider(64, 16384, 2048, scale="log2", label="devices"),
    utilization=Slider(10, 70, 40, step=5, unit="%", label="utilization"),
    device=Choice(GPUS, "A100 80GB SXM", label="device"),
)
def hours(tokens=256, count=2048, utilization=40, device="A100 80GB SXM"):
    """Days of a run by its FLOPs on the chosen cluster, 72 hours, and the published runs."""
    require(16 <= tokens <= 2048, "tokens", tokens, "{low} to {high}", low="16", high="2,048")
    require(64 <= count <= 16384, "count", count, "{low} to {high}", low="64", high="16,384")
    require(10 <= utilization <= 70, "utilization", utilization, "{low} to {high}", low=10, high=70)
    require_one_of("device", device, GPUS)
    cluster = dict(peak=DEVICES[device].peak("fp16"), utilization=utilization / 100)
    n_tokens = [16e9, tokens * 1e9, 2048e9]
    days = [measure.run_days(N_PARAMS, n, count, **cluster) for n in n_tokens]
    needed = measure.devices_needed(N_PARAMS, tokens * 1e9, DAYS, **cluster)
    most = measure.tokens_possible(N_PARAMS, DAYS, count, **cluster) / 1e9
    meta = {tr("hours"): 24 * days[1], tr("devices for 72 hours"): needed}
    meta |= {tr("B tokens in 72 hours"): most}
    chosen = dict(tokens=number(tokens), n=number(count), device=device, days=number(days[1]))
    title = tr("100 B parameters, {tokens} B tokens on {n} x {device}: {days} days", **chosen)
    limits = dict(needed=number(round(needed)), most=number(most))
    title += "<br>" + tr("72 hours need {needed} devices, or at most {most} B tokens", **limits)
    fig = blank(title, tr("FLOPs, 6 x parameters x tokens"), tr("days"), meta=meta, height=440)
    flops, look = [6 * N_PARAMS * n for n in n_tokens], dict(size=13, color=COLOURS[0])
    fig.add_scatter(x=flops, y=days, mode="lines", name=tr("this cluster"), line_color=COLOURS[0])
    fig.add_scatter(x=flops[1:2], y=days[1:2], mode="markers", name=tr("chosen"), marker=look)
    return _add_published_runs(fig)


SIDES = {"GPT 1T (estimate)": "top center", "Llama 3 405B": "top center"}
SIDES |= {"GPT-3 175B (estimate)": "middle left", "BLOOM": "middle left"}
"""Where the labels of some runs stand, so that none hides another."""


def _add_published_runs(fig):
    """The published runs over their FLOPs, and the line of 72 hours."""
    runs = [run for run in measure.published_runs() if run.days]
    fig.add_scatter(
        x=[6 * run.n_params * run.n_tokens for run in runs],
        y=[run.days for run in runs],
        text=[f"{tr_name(run.name)}, {run.n_devices:,}" for run in runs],
        textposition=[SIDES.get(run.name, "bottom right") for run in runs],
        mode="markers+text",
        name=tr("published runs (own devices)"),
        marker=dict(size=10, symbol="diamond", color=COLOURS[1]),
    )
    fig.update_xaxes(type="log", exponentformat="power", dtick=1, range=[21.8, 26.2])
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, range=[-1.2, 3])
    mark(fig, tr("72 hours"), y=DAYS)
    return fig.update_layout(margin_t=96, legend=legend("below"))
