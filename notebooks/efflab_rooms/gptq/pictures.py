"""Notebook 10's pictures of what `layer` measured and `tables` has recorded."""

from efflab.lab import colours, figures, tr
from efflab_rooms.gptq import layer, tables

ERROR = "squared error (% of the output's square)"


def pushing(bits: int = 3, steps=layer.STEPS, n_rows: int = 32):
    """Change of each weight after some columns: the error moves into what is still free."""
    changes, width = layer.changes(bits, steps, n_rows), layer.weight(layer.SMALL).shape[1]
    titles = [tr("{k} of {n} columns rounded", k=k, n=width) for k in steps]
    limit = 3 * float(abs(changes[0][:, : steps[0]]).mean())
    meta = {tr("{k} columns: mean change of a free weight", k=k): float(abs(c[:, k:]).mean())
            for k, c in zip(steps, changes, strict=True)}  # fmt: skip
    meta[tr("mean change of a rounded weight")] = float(abs(changes[-1][:, : steps[-1]]).mean())
    title = tr("GPTQ at {bits} bits: change of each weight so far", bits=bits)
    fig = figures.panels(titles, title, rows=len(steps), meta=meta, shared_xaxes=True,
                         vertical_spacing=0.08)  # fmt: skip
    for row, (k, change) in enumerate(zip(steps, changes, strict=True), start=1):
        fig.add_heatmap(z=change.round(5), coloraxis="coloraxis", row=row, col=1)
        fig.add_vline(x=k - 0.5, line=dict(color=colours.BLACK, width=2.5), row=row, col=1)
    scale = dict(colorscale="RdBu", cmin=-limit, cmax=limit, colorbar_title_text=tr("change"))
    fig.update_layout(height=620, coloraxis=scale)
    fig.update_xaxes(title_text=tr("column (input)"), row=len(steps))
    fig.update_yaxes(title_text=tr("row"), autorange="reversed")
    return fig


def absorbed(bits: int = 3, n_steps: int = 12):
    """Error of the output while columns are rounded one after another, by both methods."""
    found = layer.absorbed(bits, n_steps)
    pushed, plain = zip(*found.values(), strict=True)
    series = {tr("round to nearest"): plain, tr("GPTQ"): pushed}
    meta = {tr("at the end, round to nearest (%)"): plain[-1],
            tr("at the end, GPTQ (%)"): pushed[-1],
            tr("ratio"): plain[-1] / pushed[-1]}  # fmt: skip
    title = tr("{layer}, {bits} bits: the output's error on held-out text", bits=bits,
               layer=layer.layer_name(layer.SMALL))  # fmt: skip
    axes = tr("columns rounded so far"), tr(ERROR)
    return figures.line(list(found), series, title, *axes, meta=meta)


def damping(bits: int = 3, few: int = 256, damps=layer.DAMPS):
    """Held-out error over damping, with little and with much calibration data."""
    base, found = layer.damping(bits, few, damps)
    series = {tr("GPTQ, {n} tokens", n=f"{n:,}"): errors for n, errors in found.items()}
    best = {n: damps[errors.index(min(errors))] for n, errors in found.items()}
    meta = {tr("round to nearest"): base}
    meta |= {tr("{n} tokens: best damping", n=f"{n:,}"): damp for n, damp in best.items()}
    name = layer.layer_name(layer.WIDE)
    title = tr("{layer}, {bits} bits: what damping does", layer=name, bits=bits)
    axes = tr("damping (share of the mean diagonal)"), tr(ERROR)
    fig = figures.line(damps, series, title, *axes, log_x=True, meta=meta)
    fig.update_yaxes(rangemode="tozero")
    return figures.mark(fig, tr("round to nearest"), y=base)


def frontier():
    """What quantization adds to the loss, over the bits that a weight really takes."""
    title = tr("stdlib-gpt: what few bits cost (recorded)")
    axes = tr("bits per weight, scales included"), tr("bits per byte added to fp32")
    fig, found = figures.blank(title, *axes), tables.frontier()
    methods, groups = (list(dict.fromkeys(part)) for part in zip(*found, strict=True))
    for (method, group), points in found.items():
        scales = tr("groups of {n}", n=group) if group else tr("a scale for each row")
        called = tr(layer.METHOD_NAMES[method])
        name = tr("{method}, {scales}", method=called, scales=scales)
        i, j = methods.index(method), groups.index(group)
        x, y = zip(*points, strict=True)
        fig.add_scatter(x=x, y=y, name=name, mode="lines+markers",
                        line=dict(color=figures.COLOURS[i], dash=figures.DASHES[j]),
                        marker=dict(symbol=figures.MARKERS[i], size=8))  # fmt: skip
    figures.log_axis(fig, [added for points in found.values() for _, added in points])
    added = tables.added_bits
    meta = {tr("3 bits, GPTQ"): added(3, None, "gptq"),
            tr("4 bits, round to nearest"): added(4, None, "rtn"),
            tr("8 bits, GPTQ"): added(8, None, "gptq"),
            tr("8 bits, round to nearest"): added(8, None, "rtn")}  # fmt: skip
    return fig.update_layout(meta=meta, legend=dict(x=1, xanchor="right", y=1))


def sizes():
    """The whole model over the amount of calibration data: layers' errors and bits per byte."""
    rows, base = tables.size_rows(), layer.recorded_point(3, None, "rtn")
    x = [row["n_tokens"] for row in rows]
    titles = [tr("error of the layers' outputs (%)"), tr("bits per byte")]
    meta = {tr("{n} tokens: bits per byte", n=f"{row['n_tokens']:,}"): row["bpb"] for row in rows}
    title = tr("How much calibration data (3 bits, recorded)")
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.12)
    lines = {
        "own": (tr("layers' error, calibration text"), 1),
        "held_out": (tr("layers' error, held-out text"), 1),
        "bpb": (tr("whole model, held-out text"), 2),
    }
    for i, (key, (name, column)) in enumerate(lines.items()):
        fig.add_scatter(x=x, y=[row[key] for row in rows], name=name, mode="lines+markers",
                        line=dict(color=figures.COLOURS[i], dash=figures.DASHES[i]),
                        marker=dict(symbol=figures.MARKERS[i], size=8),
                        row=1, col=column)  # fmt: skip
    figures.mark(fig, tr("round to nearest"), y=100 * base["layer_error"], row=1, col=1)
    figures.mark(fig, tr("round to nearest"), y=base["bits_per_byte"], row=1, col=2)
    fig.update_xaxes(type="log", title_text=tr("calibration tokens"), tickvals=x,
                     ticktext=[f"{v:,}" for v in x])  # fmt: skip
    return fig.update_layout(legend=dict(orientation="h", y=-0.25), margin_b=96)
