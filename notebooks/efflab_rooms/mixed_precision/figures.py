"""Notebook 06's pictures and explorers."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor

from efflab.acceleration import recipes
from efflab.acceleration.precision import FORMATS, FloatFormat
from efflab.acceleration.recipes import RECIPES
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.errors import require, require_int, require_one_of
from efflab.experiments import mixed_precision
from efflab.lab import Choice, Slider, colours, explorer, number, tr
from efflab.lab.figures import (
    COLOURS,
    bars,
    blank,
    legend,
    log_axis,
    log_ticks,
    mark,
    panels,
    style,
)
from efflab.lab.text import tr_name
from efflab_rooms.mixed_precision import measure

GPUS = ("V100 SXM2", "A100 80GB SXM", "H100 SXM")
MODELS = ("stdlib-gpt", "bert-base", "bert-large", "gpt2", "gpt2-xl", "gpt3-1.3b", "qwen3-8b")
POWERS = (-12, 6)
BIT_COLOURS = (
    colours.PALE_GREY,
    colours.SOFT_GREY,
    colours.tint(colours.ORANGE, 0.35),
    colours.ORANGE,
    colours.tint(colours.SKY, 0.35),
    colours.SKY,
)
"""Zero and one of the sign, the exponent and the mantissa."""
LEGEND_ABOVE_TITLES = dict(legend=legend("above", x=1, xanchor="right", y=1.1), margin_t=112)
"""Layout of a figure of panels whose legend stands above the panels' titles."""

# --- Bits ------------------------------------------------------------------------------------


@explorer(
    power=Slider(*POWERS, -1, label="power of ten"),
    times=Slider(1.0, 9.9, 1.0, step=0.1, label="coefficient"),
)
def bits_of(power=-1, times=1.0):
    """The bits that store times * 10^power in each format, and what they stand for."""
    require_int("power", power, POWERS[0])
    require(power <= POWERS[1], "power", power, "at most {high}", high=POWERS[1])
    require(1 <= times < 10, "times", times, "a number from {low} to below {high}", low=1, high=10)
    x = times * 10.0**power
    exact = torch.tensor(x, dtype=torch.float64)
    values = {name: f.cast(exact).item() for name, f in FORMATS.items()}
    errors = {name: 100 * (value - x) / x for name, value in values.items()}
    finite = {name: error for name, error in errors.items() if abs(error) < 1e9}
    meta = {tr("number shown"): x} | {
        tr("{name}: error (%)", name=n): error for n, error in finite.items()
    }
    fig = blank(tr("{x} in six formats (computed)", x=number(x, 4)), meta=meta, height=390)
    draw_bits(fig, exact)
    names = [f"<b>{n}</b><br>{number(x, 6)} ({percent(errors[n])})" for n, x in values.items()]
    rows = dict(tickvals=list(range(6)), ticktext=names, autorange="reversed")
    fig.update_yaxes(**rows, ticks="", showgrid=False, zeroline=False)
    fig.update_xaxes(visible=False)
    return fig.update_layout(legend=legend("above", x=1, xanchor="right"), margin_l=170)


def draw_bits(fig, x: Tensor) -> None:
    """A row of digits for each format, coloured by what they belong to, and the legend."""
    shades, digits = zip(*(bit_row(f, x) for f in FORMATS.values()), strict=True)
    scale = [((i + edge) / 6, colour) for i, colour in enumerate(BIT_COLOURS) for edge in (0, 1)]
    look = dict(colorscale=scale, zmin=-0.5, zmax=5.5, showscale=False, xgap=2, ygap=12)
    fig.add_heatmap(z=shades, text=digits, texttemplate="%{text}", hoverinfo="skip", **look)
    for part, colour in zip(("sign", "exponent", "mantissa"), BIT_COLOURS[1::2], strict=True):
        marker = dict(symbol="square", size=12, color=colour)
        fig.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=tr(part))


def bit_row(f: FloatFormat, x: Tensor) -> tuple[list, list]:
    """(place of each bit's colour, its digit) in 32 columns, None where a format has no bit."""
    digits = f"{f.encode(x).item():0{f.bits}b}"
    parts = [0] + [2] * f.exponent_bits + [4] * f.mantissa_bits
    shades = [part + int(digit) for part, digit in zip(parts, digits, strict=True)]
    rest = 32 - f.bits
    return shades + [None] * rest, list(digits) + [""] * rest


def percent(error: float) -> str:
    """A relative error as people read it."""
    if abs(error) > 1e9 or error != error:
        return tr("too large")
    if abs(error + 100) < 1e-9:
        return tr("becomes zero")
    digits = 2 if abs(error) < 95 else 4  # 99.96 % less is not nothing
    return f"{'+' if error > 0 else ''}{number(error, digits)}%" if error else tr("exact")


# --- Gradients -------------------------------------------------------------------------------


def floor_figure(gradients: Mapping[str, Tensor], scale: float = 2.0**14):
    """Histogram of the gradients' exponents with fp16's floor, as they are and scaled."""
    titles = [tr("unscaled"), tr("loss scaled by 2^{n}", n=round(np.log2(scale)))]
    title = tr("Gradients of one step (measured) and the range of fp16")
    fig = panels(titles, title, shared_yaxes=True, horizontal_spacing=0.05)
    edges = np.arange(-44, 18)
    for i, (name, values) in enumerate(gradients.items()):
        look = dict(name=tr(name), marker_color=COLOURS[i], opacity=0.7, row=1)
        for col, factor in enumerate((1.0, scale), start=1):
            counts, _ = np.histogram(np.log2(values.double().numpy() * factor), edges)
            share = 100 * counts / len(values)
            fig.add_bar(x=edges[:-1] + 0.5, y=share, showlegend=col == 1, col=col, **look)
            label = tr("{name}, scale {scale}: lost (%)", name=tr(name), scale=number(factor))
            lost = measure.fp16_shares(values, factor)["zero"]
            fig.layout.meta |= {label: round(lost, 3)}
    zones = {(-44, -25): colours.VERMILION, (-25, -14): colours.ORANGE, (16, 18): colours.VERMILION}
    for (low, high), colour in zones.items():
        fig.add_vrect(low, high, fillcolor=colour, opacity=0.12, line_width=0)
    top = dict(y=1, yref="y domain", yanchor="top", showarrow=False, font_size=11)
    labels = {-34: tr("zero"), -19.5: tr("fewer bits"), 3: tr("all bits")}
    for (x, text), col in product(labels.items(), (1, 2)):
        fig.add_annotation(x=x, text=text, row=1, col=col, **top)
    fig.update_xaxes(title_text=tr("log2 of the magnitude"), range=[-44, 18])
    fig.update_yaxes(title_text=tr("share (%)"), col=1)
    return fig.update_layout(barmode="overlay", bargap=0, **LEGEND_ABOVE_TITLES)


def scaler_figure(steps: Sequence[dict]):
    """Scale and loss over steps, with the skipped steps."""
    scales = [np.log2(step["scale"]) for step in steps]
    skipped = [step["step"] for step in steps if step["skipped"]]
    grown = sum(b > a for a, b in pairwise(scales))
    meta = {tr("skipped steps"): len(skipped), tr("times the scale grew"): grown}
    meta |= {tr("final scale (log2)"): float(scales[-1])}
    template = "{n} of {all} steps skipped; the scale grew {grown} times (measured)"
    title = tr(template, n=len(skipped), all=len(steps), grown=grown)
    fig = panels([tr("scale (log2)"), tr("loss (nats)")], title, meta=meta)
    cross = dict(color=COLOURS[1], symbol="x", size=10)
    for col, y in enumerate((scales, [s["loss"] for s in steps]), start=1):
        line = dict(color=COLOURS[0], shape="hv" if col == 1 else "linear")
        fig.add_scatter(y=y, mode="lines+markers", line=line, showlegend=False, row=1, col=col)
        look = dict(name=tr("overflow: step skipped"), mode="markers", showlegend=col == 1)
        fig.add_scatter(x=skipped, y=[y[i] for i in skipped], marker=cross, row=1, col=col, **look)
    fig.update_xaxes(title_text=tr("step"))
    return fig.update_layout(**LEGEND_ABOVE_TITLES)


def zeroing_figure(zeroing: np.ndarray, summing: np.ndarray):
    """Loss and gradient norm over steps, the mean of the seeds; both are (seeds, 2, steps)."""
    names = [tr("zeroed every step"), tr("never zeroed (as in the article)")]
    last = [float(run[:, 0, -10:].mean()) for run in (zeroing, summing)]
    label = "mean loss, last 10 steps: {name}"
    meta = {tr(label, name=n): round(loss, 3) for n, loss in zip(names, last, strict=True)}
    template = "Same model, batches, learning rate: loss {a} and {b} nats (measured)"
    title = tr(template, a=f"{last[0]:.2f}", b=f"{last[1]:.2f}")
    fig = panels([tr("loss (nats)"), tr("gradient norm")], title, meta=meta)
    for i, run in enumerate((zeroing, summing)):
        for col, y in enumerate(run.mean(0), start=1):
            look = dict(name=names[i], mode="lines", showlegend=col == 1, **style(i))
            fig.add_scatter(y=y, row=1, col=col, **look)
    fig.update_xaxes(title_text=tr("step"))
    log_axis(fig, [*zeroing[:, 1].flat, *summing[:, 1].flat], row=1, col=2)
    return fig.update_layout(**LEGEND_ABOVE_TITLES)


# --- Training --------------------------------------------------------------------------------


def parts_figure(batch_size: int, seq_len: int):
    """Measured bytes that a step keeps, by part, for each recipe; the peak is above their sum."""
    steps = {r: measure.step_bytes(r, batch_size, seq_len) for r in measure.STEP_RECIPES}
    parts = [part for part in steps["fp32"] if part != measure.PEAK]
    series = {tr(part): [step[part] / 1e6 for step in steps.values()] for part in parts}
    sums = {tr_name(r): sum(step[part] for part in parts) / 1e6 for r, step in steps.items()}
    full = sums["fp32"]
    names = [f"{name}<br>{mb:.0f} MB, x{mb / full:.2f}" for name, mb in sums.items()]
    template = "Memory kept by a step of {b} x {t} tokens, and ratio to fp32 (measured)"
    title = tr(template, b=batch_size, t=seq_len)
    fig = bars(names, series, title, "", tr("MB"), stacked=True)
    fig.layout.meta |= {name: round(mb / full, 3) for name, mb in sums.items()}
    return fig.update_layout(legend=legend("below", traceorder="normal"))


def loss_curves():
    """Loss over steps of the first seed, and the difference from fp32 by seed."""
    curves = {name: measure.by_seed(name, "curve") for name in mixed_precision.PRECISIONS}
    base = curves["fp32"]
    title = tr("Lower precision against fp32: {n} seeds, paired by seed (recorded)", n=len(base))
    fig = panels([tr("loss of seed 0 (nats)"), tr("difference from fp32, by seed (nats)")], title)
    x = np.arange(mixed_precision.EVERY, mixed_precision.N_STEPS + 1, mixed_precision.EVERY)
    for i, (name, runs) in enumerate(curves.items()):
        options = dict(x=x, mode="lines", row=1, name=tr_name(name))
        fig.add_scatter(y=runs[0], col=1, **options, **style(i))
        if name == "fp32":
            continue
        for seed, curve in runs.items():
            less = np.subtract(curve, base[seed])
            fig.add_scatter(y=less, col=2, showlegend=False, **options, **style(i, width=1.2))
        label = tr("{name}: held-out loss minus fp32's (nats)", name=tr_name(name))
        fig.layout.meta |= {label: round(measure.difference(name).mean, 4)}
    fig.update_xaxes(title_text=tr("step"))
    return fig.update_layout(legend=legend("below", y=-0.25))


def roofs_figure():
    """How many times faster a product is in 16 bits, by its size, over each baseline."""
    title = tr("16 bits compared with what? Square matmuls by roofline (computed)")
    fig = blank(title, tr("n (matrices of n x n)"), tr("times faster"), height=440)
    for i, device in enumerate(GPUS):
        for base in measure.baselines(device):
            gains = [measure.product_gain(n, device, base) for n in measure.SIZES]
            name = tr("{device}, vs {base}", device=device, base=base)
            look = style(i, size=8 if base == "fp32" else 12 - 3 * i)  # one tf32 hides the other
            look["line"]["dash"] = "solid" if base == "fp32" else "dot"
            fig.add_scatter(x=measure.SIZES, y=gains, name=name, mode="lines+markers", **look)
            fig.layout.meta |= {tr("{name}: max", name=name): round(max(gains), 2)}
    mark(fig, tr("the article's 3x"), y=3)
    fig.update_xaxes(**log_ticks(measure.SIZES))
    fig.update_yaxes(range=[0, 17])
    fig.add_annotation(x=3.5, y=1.2, text=tr("vs TF32: 2x at any size"), showarrow=False)
    return fig.update_layout(legend=legend("top left"))


@explorer(
    batch=Slider(1, 1024, 32, scale="log2", label="batch (sequences)"),
    recipe=Choice(tuple(RECIPES), "autocast", label="precision"),
    device=Choice(GPUS, "A100 80GB SXM", label="device"),
    model=Choice(MODELS, "bert-large", label="model"),
    seq_len=Choice((128, 512), label="sequence length (tokens)"),
)
def training(batch=32, recipe="autocast", device="A100 80GB SXM", model="bert-large", seq_len=128):
    """Least time and bytes of a training step by part, and the batch that fits."""
    require_int("batch", batch)
    require_one_of("recipe", recipe, RECIPES)
    require_one_of("device", device, GPUS)
    require_one_of("model", model, MODELS)
    require_one_of("seq_len", seq_len, (128, 512))
    config, gpu, how = PRESETS[model], DEVICES[device], RECIPES[recipe]
    ms, fp32_ms = (step_ms(config, seq_len, batch, gpu, r) for r in (how, RECIPES["fp32"]))
    n_bytes = recipes.memory_parts(config, seq_len, batch, how)
    gb = {part: n / 1e9 for part, n in n_bytes.items() if n}
    time, memory = sum(ms.values()), sum(gb.values())
    fits = recipes.largest_batch(config, seq_len, gpu, how)
    meta = {tr("batch"): batch, tr("milliseconds"): time, "GB": memory}
    meta |= {tr("largest batch that fits"): fits, tr("sequences per second"): 1e3 * batch / time}
    if recipe != "fp32":
        meta |= {tr("times faster than fp32"): sum(fp32_ms.values()) / time}
    words = dict(model=model, recipe=tr_name(recipe), device=device, time=number(time))
    words |= dict(gb=number(memory), verdict=tr("fits") if batch <= fits else tr("does not fit"))
    title = tr("{model}, {recipe} on {device}: {time} ms at best, {gb} GB: {verdict}", **words)
    title += "<br>" + tr("largest batch that fits: {n}", n=number(fits))
    titles = [tr("minimum time by part (ms)"), tr("memory by part (GB)")]
    fig = panels(titles, title, meta=meta, horizontal_spacing=0.2)
    for col, parts in enumerate((ms, gb), start=1):
        add_bars(fig, parts, col)
    limit = tr("device memory: {gb} GB", gb=number(gpu.memory_bytes / 1e9))
    below = dict(x=1, y=-0.22, xref="x2 domain", yref="y2 domain", showarrow=False)
    fig.add_annotation(text=limit, **below)
    return fig.update_layout(height=430, margin_t=112, title=dict(y=0.95, yanchor="top"))


def step_ms(*case) -> dict[str, float]:
    """The least milliseconds of a training step by part; case as of `recipes.step_seconds`."""
    return {part: 1e3 * seconds for part, seconds in recipes.step_seconds(*case).items()}


def add_bars(fig, parts: Mapping[str, float], col: int) -> None:
    """A lying bar for each part, the first on top, with its value."""
    names, values = [tr(part) for part in parts], list(parts.values())
    look = dict(text=[number(value, 2) for value in values], textposition="auto")
    look |= dict(orientation="h", marker_color=COLOURS[col - 1], showlegend=False)
    fig.add_bar(x=values, y=names, row=1, col=col, **look)
    fig.update_yaxes(autorange="reversed", col=col)
