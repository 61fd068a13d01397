"""Notebook 10's pictures, and its explorer of calibration."""

from functools import lru_cache

from efflab.compression.affine import check_grid
from efflab.compression.gptq import gptq_hessian, output_error
from efflab.errors import require, require_int, require_one_of
from efflab.experiments.gptq_quality import METHODS
from efflab.lab import Choice, Slider, blank, colours, explorer, line, mark, number, panels, tr
from efflab.lab.figures import error_bars, legend, log_axis, log_ticks, style
from efflab_rooms.gptq import measure
from efflab_rooms.gptq.measure import MOST, SMALL, WIDE

ERROR = "squared error (% of squared output)"
PARTS = {SMALL: "out projection", WIDE: "down projection"}


def layer_name(name: str) -> str:
    """A weight as prose calls it."""
    return tr("layer {n}, {part}", n=2, part=tr(PARTS[name]))


# --- One layer -------------------------------------------------------------------------------


def changes(bits: int = 3, steps=(24, 72, 120, 168), n_rows: int = 32):
    """Change of each weight after some columns: the error moves into what is still free."""
    w = measure.weight(SMALL)[:n_rows]
    deltas = {n: (measure.round_columns(n, bits)[0][:n_rows] - w).numpy() for n in steps}
    first, last = steps[0], steps[-1]
    meta = {
        tr("{k} columns: mean absolute change, free weights", k=n): float(abs(d[:, n:]).mean())
        for n, d in deltas.items()
    }
    meta[tr("mean absolute change, rounded weights")] = float(abs(deltas[last][:, :last]).mean())
    plain = measure.nearest(SMALL, bits).dequantize()[:n_rows] - w
    meta[tr("the same, round to nearest")] = float(abs(plain[:, :last]).mean())
    titles = [tr("{k} of {n} columns rounded", k=n, n=w.shape[1]) for n in steps]
    title = tr("GPTQ at {bits} bits: change in each weight so far", bits=bits)
    options = dict(rows=len(steps), shared_xaxes=True, vertical_spacing=0.08)
    fig = panels(titles, title, meta=meta, **options)
    for row, (n, delta) in enumerate(deltas.items(), start=1):
        fig.add_heatmap(z=delta.round(5), coloraxis="coloraxis", row=row, col=1)
        fig.add_vline(x=n - 0.5, line=dict(color=colours.BLACK, width=2.5), row=row, col=1)
    limit = 3 * float(abs(deltas[first][:, :first]).mean())
    scale = dict(colorscale=colours.DIVERGING, cmin=-limit, cmax=limit)
    scale["colorbar_title_text"] = tr("change")
    fig.update_xaxes(title_text=tr("column (input)"), row=len(steps))
    fig.update_yaxes(title_text=tr("row"), autorange="reversed")
    return fig.update_layout(height=620, coloraxis=scale)


def column_errors(bits: int = 3, n_steps: int = 12):
    """Error of the output while columns are rounded one after another, by both methods."""
    errors = measure.column_errors(bits, n_steps)
    ours, plain = zip(*errors.values(), strict=True)
    meta = {
        tr("at the end, round to nearest (%)"): plain[-1],
        tr("at the end, GPTQ (%)"): ours[-1],
        tr("ratio"): plain[-1] / ours[-1],
    }
    name = layer_name(SMALL)
    title = tr("{layer}, {bits} bits: output error on held-out text", bits=bits, layer=name)
    series = {tr("round to nearest"): plain, tr("GPTQ"): ours}
    return line(list(errors), series, title, tr("columns rounded so far"), tr(ERROR), meta=meta)


def damping(bits: int = 3, few: int = 256, damps=measure.DAMPS):
    """Held-out error over damping, with little and with much calibration data."""
    errors = measure.damping_errors(bits, few, damps)
    base = measure.held_out_error(WIDE, measure.nearest(WIDE, bits))
    series = {tr("GPTQ, {n} tokens", n=f"{n:,}"): values for n, values in errors.items()}
    best = {n: damps[values.index(min(values))] for n, values in errors.items()}
    meta = {tr("round to nearest"): base}
    meta |= {tr("{n} tokens: best damping", n=f"{n:,}"): damp for n, damp in best.items()}
    title = tr("{layer}, {bits} bits: the effect of damping", layer=layer_name(WIDE), bits=bits)
    x_title = tr("damping (fraction of the mean diagonal)")
    fig = line(damps, series, title, x_title, tr(ERROR), log_x=True, meta=meta)
    fig.update_yaxes(rangemode="tozero")
    return mark(fig, tr("round to nearest"), y=base)


# --- Whole models ----------------------------------------------------------------------------


def frontier():
    """What quantization adds to the loss, over the bits that a weight really takes."""

    def added(bits: int, method: str) -> float:
        return measure.added_bits(measure.recorded_point(bits, None, method))

    meta = {
        tr("3 bits, GPTQ"): added(3, "gptq"),
        tr("4 bits, round to nearest"): added(4, "rtn"),
        tr("8 bits, GPTQ"): added(8, "gptq"),
        tr("8 bits, round to nearest"): added(8, "rtn"),
    }
    axes = tr("bits per weight, scales included"), tr("bits per byte above fp32")
    fig = blank(tr("stdlib-gpt: the cost of low bit widths (recorded)"), *axes, meta=meta)
    curves = measure.frontier()
    for (method, group), points in curves.items():
        scales = tr("groups of {n}", n=group) if group else tr("one scale per row")
        name = tr("{method}, {scales}", method=tr(measure.METHOD_NAMES[method]), scales=scales)
        look = style(METHODS.index(method), 1 if group else 0, size=8)
        x, y = zip(*points, strict=True)
        fig.add_scatter(x=x, y=y, name=name, mode="lines+markers", **look)
    log_axis(fig, [y for points in curves.values() for _, y in points])
    return fig.update_layout(legend=legend("top right"))


def calibration_sizes():
    """The whole model over the amount of calibration data: layers' errors and bits per byte."""
    points, base = measure.record()["sizes"], measure.recorded_point(3, None, "rtn")
    x = [point["n_tokens"] for point in points]
    losses = [point["bits_per_byte"] for point in points]
    own, held_out = ([100 * p[key] for p in points] for key in ("own_error", "layer_error"))
    titles = [tr("layers' error (%)"), tr("bits per byte")]
    meta = {tr("{n} tokens: bits per byte", n=f"{n:,}"): y for n, y in zip(x, losses, strict=True)}
    title = tr("Effect of the amount of calibration data (3 bits, recorded)")
    fig = panels(titles, title, meta=meta, horizontal_spacing=0.12)
    lines = {
        tr("layers' error, calibration text"): (own, 1),
        tr("layers' error, held-out text"): (held_out, 1),
        tr("whole model, held-out text"): (losses, 2),
    }
    for i, (name, (y, column)) in enumerate(lines.items()):
        options = dict(name=name, mode="lines+markers", row=1, col=column)
        fig.add_scatter(x=x, y=y, **options, **style(i, size=8))
    mark(fig, tr("round to nearest"), y=100 * base["layer_error"], row=1, col=1)
    mark(fig, tr("round to nearest"), y=base["bits_per_byte"], row=1, col=2)
    fig.update_xaxes(title_text=tr("calibration tokens"), **log_ticks(x))
    return fig.update_layout(legend=legend("below", y=-0.25), margin_b=96)


KINDS = {
    "all": "all matrices",
    "qkv": "q, k, v (192 inputs)",
    "out": "out projection (192 inputs)",
    "up": "up projection (192 inputs)",
    "down": "down projection (768 inputs)",
}


def crossing():
    """GPTQ's error over rounding to nearest's by calibration tokens, by kind of map."""
    ratios, x = measure.crossing_ratios(), measure.crossing.TOKENS
    means = {tr(KINDS[kind]): [e.mean for e in r.values()] for kind, r in ratios.items()}
    meta = {
        tr("{kind}, {n} tokens", kind=name, n=f"{x[i]:,}"): means[name][i]
        for name in (tr(KINDS["all"]), tr(KINDS["down"]))
        for i in (0, -1)
    }
    title = tr("3 bits: error, GPTQ / nearest, by kind of matrix (recorded)")
    axes = tr("calibration tokens"), tr("error, GPTQ / round to nearest")
    fig = line(x, means, title, *axes, log_x=True, meta=meta)
    for trace, r in zip(fig.data, ratios.values(), strict=True):
        trace.error_y = error_bars(
            trace.y, *zip(*((e.low, e.high) for e in r.values()), strict=True)
        )
    fig.update_yaxes(rangemode="tozero")
    mark(fig, tr("round to nearest"), y=1).update_annotations(x=1, xanchor="right")
    return fig.update_layout(legend=legend("below", y=-0.25), margin_b=110, height=440)


# --- The explorer ----------------------------------------------------------------------------

GROUPS = ["row", 128, 64, 32, 16]
TOKENS = [128 * 2**i for i in range(6)]


@lru_cache(maxsize=512)
def gptq_errors(bits: int, group_size: int | None, n_tokens: int) -> tuple[float, float]:
    """The wide map's error (%) by GPTQ: on its own tokens, and on held-out text."""
    w, own = measure.weight(WIDE), measure.layer_hessian(WIDE, "library", n_tokens)
    q = gptq_hessian(w, own, bits, group_size=group_size)
    return 100 * output_error(w, q, own), measure.held_out_error(WIDE, q)


@lru_cache(maxsize=64)
def nearest_error(bits: int, group_size: int | None) -> float:
    """The wide map's error (%) on held-out text when each weight is rounded to nearest."""
    return measure.held_out_error(WIDE, measure.nearest(WIDE, bits, group_size))


@explorer(
    n_tokens=Slider(TOKENS[0], TOKENS[-1], 1024, scale="log2", label="calibration tokens"),
    bits=Slider(2, 8, 3, label="bits"),
    group_size=Choice(GROUPS, "row", label="group size"),
)
def calibration(n_tokens: int = 1024, bits: int = 3, group_size="row"):
    """One real layer of `stdlib-gpt` quantized by both methods, judged on held-out text."""
    require_one_of("group_size", group_size, GROUPS)
    group = None if group_size == "row" else group_size
    check_grid(bits, 0 if group is None else None, group, 2)
    require_int("n_tokens", n_tokens)
    require(n_tokens <= MOST, "n_tokens", n_tokens, "at most {high}", high=MOST)
    x = sorted({*TOKENS, n_tokens})
    own, held_out = zip(*(gptq_errors(bits, group, n) for n in x), strict=True)
    at, plain = x.index(n_tokens), nearest_error(bits, group)
    meta = {
        tr("round to nearest (%)"): plain,
        tr("GPTQ (%)"): held_out[at],
        tr("GPTQ, calibration text (%)"): own[at],
        tr("GPTQ / round to nearest"): held_out[at] / plain,
        tr("bits per weight"): bits + 40 / (group or 768),
    }
    series = {
        tr("round to nearest, held-out text"): [plain] * len(x),
        tr("GPTQ, held-out text"): held_out,
        tr("GPTQ, calibration text"): own,
    }
    words = dict(bits=bits, n=f"{n_tokens:,}", a=number(plain), b=number(held_out[at]))
    title = tr("{bits} bits, {n} tokens: error {a}% (nearest), {b}% (GPTQ)", **words)
    axes = tr("calibration tokens"), tr("output error (%)")
    fig = line(x, series, title, *axes, log_x=True, meta=meta)
    fig.update_yaxes(rangemode="tozero")
    return mark(fig, x=n_tokens).update_layout(legend=legend("above"), margin_t=90)
