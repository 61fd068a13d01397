"""Notebook 08's pictures: data in motion, and the explorers of arrays, of the map and of units."""

import numpy as np
import plotly.graph_objects as go

from efflab.acceleration import systolic
from efflab.config import PRESETS
from efflab.data import read_published
from efflab.errors import require, require_int, require_one_of
from efflab.experiments import fpga_synthesis
from efflab.lab import Choice, Slider, colours, explorer, line, loglog, mark, number, panels, tr
from efflab.lab import figures as pictures
from efflab_rooms.accelerators import measure

NAMES = {"os": "outputs stay (os)", "ws": "weights stay (ws)", "is": "inputs stay (is)"}

# --- Data in motion ------------------------------------------------------------------------------

SIDE = 3  # of the animated grid; the product is as large, so that one fold holds it
STILL = 5  # the cycle at which the animation stands still
CYCLES = {flow: systolic.gemm_cycles(SIDE, SIDE, SIDE, SIDE, SIDE, flow) for flow in NAMES}
"""The last cycle of each dataflow, counted from 0."""


def snapshot(dataflow: str, cycle: int) -> tuple[np.ndarray, np.ndarray]:
    """(which value of the stream each cell has, or nan; what each cell shows) at a cycle."""
    steps = systolic.schedule(SIDE, SIDE, SIDE, SIDE, SIDE, dataflow)
    waves, labels = np.full((SIDE, SIDE), np.nan), np.full((SIDE, SIDE), " ", object)
    for step in steps:
        if step.cycle == cycle:
            i, j, l = step.i, step.j, step.l  # noqa: E741 (as in papers)
            waves[step.row, step.col], labels[step.row, step.col] = {
                "os": (l, f"a{i}{l}·b{l}{j}"),
                "ws": (i, f"a{i}{l} → c{i}{j}"),
                "is": (j, f"b{l}{j} → c{i}{j}"),
            }[dataflow]
    for row, col in np.ndindex(SIDE, SIDE):
        own = stationary(dataflow, row, col, cycle)
        labels[row, col] = f"<b>{own}</b><br>{labels[row, col]}"
    return waves, labels


def stationary(dataflow: str, row: int, col: int, cycle: int) -> str:
    """What is in a cell at a cycle: an output, or a value that was pushed down from the top."""
    if dataflow == "os":
        return f"c{row}{col}"
    source = row + max(0, SIDE - 1 - cycle)  # while loading, the last row comes in first
    if source >= SIDE:
        return " "
    return f"b{source}{col}" if dataflow == "ws" else f"a{col}{source}"


def animation() -> go.Figure:
    """A 3 x 3 product on a 3 x 3 grid in all three dataflows, with a slider over the cycles."""
    title = tr("Three dataflows: bold values stay, those below pass through")
    names = {flow: tr(name) for flow, name in NAMES.items()}
    meta = {tr("{flow}: last cycle", flow=names[flow]): last for flow, last in CYCLES.items()}
    fig = panels(list(names.values()), title, meta=meta, horizontal_spacing=0.03)
    for column, grid in enumerate(_grids(STILL), start=1):
        fig.add_trace(grid, row=1, col=column)
    cycles = range(1 + max(CYCLES.values()))
    fig.frames = [go.Frame(name=str(t), data=_grids(t)) for t in cycles]
    jump = dict(mode="immediate", transition_duration=0, frame=dict(duration=0, redraw=True))
    run = dict(frame=dict(duration=700, redraw=True), transition_duration=0, fromcurrent=False)
    steps = [dict(method="animate", label=str(t), args=[[str(t)], jump]) for t in cycles]
    slider = dict(active=STILL, steps=steps, currentvalue_prefix=f"{tr('cycle')} ", pad_t=24)
    play = dict(type="buttons", buttons=[dict(method="animate", label="▶", args=[None, run])])
    play |= dict(x=0, y=-0.12, xanchor="left", yanchor="top", showactive=False)
    fig.update_layout(sliders=[slider | dict(x=0.08, len=0.92)], updatemenus=[play])
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False, autorange="reversed")
    return fig.update_layout(height=460, margin_b=110)


def _grids(cycle: int) -> list[go.Heatmap]:
    """The grid of each dataflow at a cycle."""
    scale = [colours.tint(c, 0.45) for c in (colours.BLUE, colours.ORANGE, colours.GREEN)]
    look = dict(zmin=0, zmax=SIDE - 1, showscale=False, colorscale=scale, xgap=4, ygap=4)
    look |= dict(hoverinfo="skip", texttemplate="%{text}")
    return [go.Heatmap(z=z, text=text, **look) for z, text in (snapshot(f, cycle) for f in NAMES)]


# --- A second register ---------------------------------------------------------------------------

TILES = "ABC"  # of weights, one after the other


def tile_starts(registers: int, stream: int) -> list[tuple[int, int]]:
    """(cycle in which it begins to enter, cycle of the first product) of each tile of weights."""
    if registers == 1:
        fold = systolic.fold_cycles(stream, SIDE, SIDE, "ws")
        return [(i * fold, i * fold + SIDE) for i in range(len(TILES))]
    firsts = [SIDE + i * max(stream, SIDE) for i in range(len(TILES))]
    # a tile enters right behind the front of the stream that uses the one before
    return list(zip([0, *firsts], firsts, strict=False))


def registers_snapshot(cycle: int, registers: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
    """(which tile each cell multiplies by, or nan; what its registers hold) at a cycle."""
    busy, labels = np.full((SIDE, SIDE), np.nan), np.full((SIDE, SIDE), "", object)
    for row, col in np.ndindex(SIDE, SIDE):
        used = waiting = " "
        for i, (enter, first) in enumerate(tile_starts(registers, stream)):
            clock, entered = cycle - first - row - col, cycle - enter - col
            if entered >= row:  # until its own has come, a cell hands on those of the rows below
                waiting = f"{TILES[i]}{row + max(0, SIDE - 1 - entered)}{col}"
            if clock >= 0 or registers == 1:
                used, waiting = (waiting, " ") if waiting != " " else (used, " ")
            if 0 <= clock < stream:
                busy[row, col] = i
        labels[row, col] = f"<b>{used}</b><br>{waiting}"
    return busy, labels


@explorer(
    cycle=Slider(0, 38, 7, step=1, label="cycle"),
    registers=Choice((1, 2), 2, label="weight registers per cell"),
    stream=Choice((2, 3, 6), 3, label="stream"),
)
def second_register(cycle=7, registers=2, stream=3):
    """Three tiles of weights, one after the other, in a 3 x 3 grid: who loads, who multiplies."""
    require_int("cycle", cycle, 0, maximum=1000)
    require_one_of("registers", registers, (1, 2))
    require_int("stream", stream, maximum=100)
    tiles = systolic.Product("tiles", stream, SIDE, SIDE, len(TILES))
    cycles = tiles.cycles(SIDE, SIDE, "ws", registers == 2) + 1
    used = 100 * tiles.macs / (cycles * SIDE**2)
    words = "Weight registers: {n}. Three tiles take {cycles} cycles, {used} % utilization"
    title = tr(words, n=registers, cycles=cycles, used=f"{used:.0f}")
    busy, labels = registers_snapshot(cycle, registers, stream)
    meta = {tr("cycle"): cycle, tr("cells multiplying"): int((~np.isnan(busy)).sum())}
    meta |= {tr("cycles"): cycles, tr("utilization (%)"): used}
    titles = [tr("in use (bold) and waiting"), tr("cycle")]
    fig = panels(titles, title, meta=meta, column_widths=[0.4, 0.6])
    scale = [colours.tint(colours.BLUE, share) for share in (0.2, 0.4, 0.6)]
    look = dict(zmin=0, zmax=2, showscale=False, colorscale=scale, xgap=4, ygap=4)
    look |= dict(textfont_size=13, row=1, col=1)
    fig.add_heatmap(z=busy, text=labels, texttemplate="%{text}", hoverinfo="skip", **look)
    _add_spans(fig, registers, stream)
    mark(fig, x=cycle + 0.5, row=1, col=2)
    fig.update_xaxes(visible=False, col=1).update_yaxes(visible=False, col=1)
    return fig.update_yaxes(autorange="reversed").update_xaxes(range=[0, 40], col=2)


def _add_spans(fig: go.Figure, registers: int, stream: int) -> None:
    """From when to when each tile is loaded and used, in the right panel."""
    enters, firsts = zip(*tile_starts(registers, stream), strict=True)
    loading = (tr("loading"), enters, SIDE, colours.ORANGE)
    multiplying = (tr("multiplying"), firsts, stream + 2 * (SIDE - 1), colours.BLUE)
    for name, starts, length, colour in (loading, multiplying):
        look = dict(name=name, orientation="h", marker_color=colour, row=1, col=2)
        fig.add_bar(x=[length] * len(TILES), base=starts, y=list(TILES), **look)


# --- Arrays --------------------------------------------------------------------------------------

MODELS = ("minilm-l6", "bert-base", "gpt2")
HERTZ = 700e6  # the clock of the first TPU, for times


@explorer(
    seq_len=Slider(16, 512, 128, scale="log2", unit="tokens", label="sequence length"),
    rows=Slider(4, 256, 32, scale="log2", label="rows of the array"),
    cols=Slider(4, 256, 32, scale="log2", label="columns of the array"),
    dataflow=Choice(systolic.DATAFLOWS, "ws", label="dataflow"),
    registers=Choice((1, 2), 1, label="registers per cell"),
    model=Choice(MODELS, label="model"),
)
def array_shape(seq_len=128, rows=32, cols=32, dataflow="ws", registers=1, model="minilm-l6"):
    """Cycles and utilization of each product of a Transformer block on an array."""
    for name, value in dict(seq_len=seq_len, rows=rows, cols=cols).items():
        require_int(name, value, maximum=65536)
    require_one_of("dataflow", dataflow, systolic.DATAFLOWS)
    require_one_of("registers", registers, (1, 2))
    require_one_of("model", model, MODELS)
    products = systolic.block_products(PRESETS[model], seq_len)
    names, macs = [tr(p.name) for p in products], np.array([p.macs for p in products])
    cycles = {
        flow: np.array([p.cycles(rows, cols, flow, registers == 2) for p in products])
        for flow in NAMES
    }
    totals = {flow: int(each.sum()) for flow, each in cycles.items()}
    ms = 1e3 * totals[dataflow] / HERTZ
    used = 100 * macs.sum() / (totals[dataflow] * rows * cols)
    values = dict(rows=rows, cols=cols, flow=tr(NAMES[dataflow]), used=f"{used:.1f}", ms=number(ms))
    title = tr("{rows} x {cols}, {flow}: {used} % utilization, {ms} ms per block", **values)
    meta = {tr("cycles, {flow}", flow=tr(NAMES[flow])): total for flow, total in totals.items()}
    meta |= {tr("utilization (%)"): round(used, 2), tr("ms per block at 700 MHz"): ms}
    titles = [tr("cycles per block"), tr("utilization (%)")]
    fig = panels(titles, title, meta=meta, shared_yaxes=True, horizontal_spacing=0.06)
    for i, (flow, each) in enumerate(cycles.items()):
        look = dict(name=tr(NAMES[flow]), legendgroup=flow, marker_color=pictures.COLOURS[i])
        look |= dict(y=names, orientation="h", opacity=1 if flow == dataflow else 0.4)
        fig.add_bar(x=each, row=1, col=1, **look)
        fig.add_bar(x=100 * macs / (each * rows * cols), showlegend=False, row=1, col=2, **look)
    fig.update_xaxes(range=[0, 100], col=2)
    fig.update_yaxes(autorange="reversed")
    fig.update_layout(title=dict(y=0.97, yanchor="top"), height=460, margin_t=110)
    return fig.update_layout(legend=pictures.legend("above", x=1, xanchor="right", y=1.1))


# --- The map -------------------------------------------------------------------------------------


@explorer(
    launch_us=Slider(0, 20, 7, step=1, unit="µs", label="launch per product"),
    gpu=Choice(list(measure.PRECISIONS), "A100 40GB", label="GPU"),
    against=Choice(measure.NPUS, label="NPU"),
    registers=Choice((1, 2), 2, label="weight registers per cell"),
    seq_len=Slider(32, 512, 128, scale="log2", unit="tokens", label="sequence length"),
)
def latency_map(launch_us=7, gpu="A100 40GB", against="TPUv1", registers=2, seq_len=128):
    """The NPU's time over the GPU's, by product and batch, in each of the GPU's precisions."""
    is_low = 0 <= launch_us <= 1000
    require(is_low, "launch_us", launch_us, "from {low} to {high}", low=0, high=1000)
    require_one_of("gpu", gpu, measure.PRECISIONS)
    require_one_of("registers", registers, (1, 2))
    ratios = {}
    for dtype in measure.PRECISIONS[gpu]:
        array = measure.rival(against, gpu, dtype, overlap=registers == 2)
        ratios[dtype] = measure.ratios(array, gpu, dtype, seq_len, launch_us * 1e-6)
    least = min(cells[-1].min() for cells in ratios.values())
    words = "Time ratio {npu} / {gpu}; whole block: at least {least}"
    title = tr(words, npu=tr(against), gpu=gpu, least=number(least))
    meta = {
        tr("whole block in {dtype}, batch {b}", dtype=dtype, b=b): float(cells[-1, i])
        for dtype, cells in ratios.items()
        for i, b in enumerate(measure.BATCHES)
    }
    fig = panels(list(ratios), title, meta=meta, shared_yaxes=True, horizontal_spacing=0.03)
    for column, cells in enumerate(ratios.values(), start=1):
        _add_ratios(fig, cells, column, showscale=column == len(ratios))
    fig.update_xaxes(title_text=tr("batch size"), type="category")
    fig.update_yaxes(autorange="reversed")
    return fig.update_layout(margin_l=150)


def _add_ratios(fig: go.Figure, ratios: np.ndarray, column: int, *, showscale: bool) -> None:
    """A panel of the map: (products + 1, batches) as colours and numbers."""
    names = [tr(p.name) for p in systolic.block_products(PRESETS[measure.MAP_MODEL], 1)]
    names.append(tr(measure.BLOCK))
    batches = [str(batch) for batch in measure.BATCHES]
    text = [[_two_digits(ratio) for ratio in row] for row in ratios]
    ticks = [0.01, 0.1, 0.6, 1, 10, 100]
    scale = dict(tickvals=np.log10(ticks), ticktext=[number(ratio) for ratio in ticks])
    look = dict(zmin=-2, zmax=2, colorscale=colours.DIVERGING_WARM)
    look |= dict(colorbar=scale, showscale=showscale)
    look |= dict(text=text, texttemplate="%{text}", textfont_size=10, xgap=1, ygap=1)
    fig.add_heatmap(z=np.log10(ratios), x=batches, y=names, row=1, col=column, **look)


def _two_digits(ratio: float) -> str:
    """As short as can be: .19, 6.8, 87."""
    return f"{ratio:.2f}"[1:] if ratio < 0.995 else f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


# --- Units ---------------------------------------------------------------------------------------


def clocks() -> go.Figure:
    """The clock of the routed unit by its side, each placement; the largest fills the chip."""
    sides = [side for side in range(1, 1 + measure.FULL_SIDE) if measure.clocks_mhz(side)]
    medians, side = [measure.clock_mhz(side) for side in sides], measure.SIDE
    mhz, less = medians[-1], 100 * (1 - medians[-1] / measure.clock_mhz(side))
    words = "A full chip runs at {mhz} MHz, {less} % below a single {side} x {side} unit"
    title = tr(words, mhz=number(mhz), less=number(less), side=side)
    meta = {tr("full chip's clock (MHz)"): mhz, tr("below a single unit (%)"): round(less, 1)}
    axes = tr("side of the unit ({side} fills the chip)", side=sides[-1]), tr("clock (MHz)")
    fig = line(sides, {tr("median"): medians}, title, *axes, log_x=True, markers=False, meta=meta)
    x, y = zip(*((side, mhz) for side in sides for mhz in measure.clocks_mhz(side)), strict=True)
    fig.add_scatter(x=x, y=y, mode="markers", name=tr("one placement"), marker_size=8)
    return fig.update_yaxes(rangemode="tozero").update_layout(showlegend=True)


@explorer(
    mhz=Slider(50, 400, 100, step=50, unit="MHz", label="clock"),
    side=Choice(fpga_synthesis.SIDES, 8, label="side of the unit"),
    n_units=Slider(1, 64, 1, scale="log2", label="units side by side"),
)
def serving(mhz=100, side=8, n_units=1):
    """MiniLM's matrix products over the text's length, and the chips that hold so many units."""
    require(0 < mhz <= 1000, "mhz", mhz, "above {low}, at most {high}", low=0, high=1000)
    require_int("n_units", n_units)
    require_one_of("side", side, fpga_synthesis.SIDES)
    lengths = [16, 32, 64, 128, 256, 512]
    times = [measure.model_ms(t, side, mhz, n_units) for t in lengths]
    ms = times[lengths.index(measure.TOKENS)]
    chips = read_published("fpga")
    names = [chip["device"] for chip in chips if measure.n_units(chip, side) >= n_units]
    values = dict(n=n_units, side=side, mhz=number(mhz), ms=number(ms), k=len(names))
    words = "{n} x ({side} x {side}), {mhz} MHz: {ms} ms for 128 tokens; fits on {k} of {all} chips"
    meta = {tr("ms for 128 tokens"): ms, tr("chips it fits on"): len(names)}
    meta[tr("bytes per clock")] = n_units * 2 * side
    labels = tr("sequence length (tokens)"), tr("time for MiniLM's products (ms)")
    fig = loglog(lengths, {"": times}, tr(words, **values, all=len(chips)), *labels, meta=meta)
    mark(fig, tr("100 ms"), y=measure.TARGET_MS)
    holders = tr("fits on: {names}", names=", ".join(names) or tr("no chip in the table"))
    corner = dict(x=0.01, y=1.0, xref="paper", yref="paper", xanchor="left", yanchor="top")
    fig.add_annotation(text=holders, showarrow=False, **corner)
    return fig.update_yaxes(range=[-1, 4.5], dtick=1)
