"""Notebook 02's pictures and explorer: MLP-Mixer beside a Vision Transformer."""

from collections.abc import Mapping, Sequence
from math import log

from efflab.errors import require_int, require_one_of
from efflab.experiments import mixer_digits
from efflab.lab import Choice, Slider, colours, explorer, number, tr
from efflab.lab.figures import (
    blank,
    colour,
    error_bars,
    legend,
    log_axis,
    log_ticks,
    panels,
    round_ticks,
    style,
)
from efflab.structure.mixer import MixerConfig, mixer_flops, n_patches
from efflab.structure.vit import ViTConfig, vit_flops
from efflab_rooms.mixer.measure import NAMES, LayerCosts


def accuracy_figure(record: Mapping, live: Mapping[str, float]):
    """Recorded accuracy over the training set's size, its range over seeds, and `live` points.

    `record`: what `mixer_digits.run` recorded; `live`: kind -> accuracy measured just now with
    all images.
    """
    summary = mixer_digits.by_images(record["runs"])
    sizes, title = list(summary), tr("Mixer and ViT of about equal size on the digits (recorded)")
    fig = blank(title, tr("training images"), tr("accuracy on 360 held-out digits (%)"))
    for n, stats in summary.items():
        less = 100 * (stats["mixer"]["mean"] - stats["vit"]["mean"])
        fig.layout.meta |= {tr("{n} images: Mixer minus ViT (points)", n=n): less}
    for i, (kind, model) in enumerate(NAMES.items()):
        means, lows, highs = (
            [100 * summary[n][kind][what] for n in sizes] for what in ("mean", "low", "high")
        )
        template, n_seeds = "{name}, recorded: mean and range over {n} seeds", len(record["seeds"])
        look = dict(name=tr(template, name=model, n=n_seeds), mode="lines+markers", **style(i))
        fig.add_scatter(x=sizes, y=means, error_y=error_bars(means, lows, highs), **look)
        star = dict(
            symbol="star", size=15, color=colour(i), line=dict(width=1, color=colours.BLACK)
        )
        look = dict(name=tr("{name}, measured now", name=model), mode="markers", marker=star)
        fig.add_scatter(x=[mixer_digits.N_IMAGES], y=[100 * live[kind]], **look)
    fig.update_xaxes(**log_ticks(sizes))
    return fig.update_layout(legend=legend("bottom right"))


def cost_figure(costs: Sequence[LayerCosts]):
    """Time of one layer over the number of patches, and its weights."""
    patches = [cost.n_patches for cost in costs]
    titles = [tr("time of one layer (measured, ms)"), tr("weights of one layer (computed)")]
    title = tr("Time and weights of one layer against the number of patches")
    fig = panels(titles, title, horizontal_spacing=0.12)
    for i, (kind, model) in enumerate(NAMES.items()):
        times = [1e3 * cost.times[kind].median for cost in costs]
        power = log(times[-1] / times[-2]) / log(patches[-1] / patches[-2])
        label = tr("{name}: exponent of time in the number of patches", name=model)
        fig.layout.meta |= {label: round(power, 2)}
        look = dict(name=model, legendgroup=kind, mode="lines+markers", **style(i, size=8))
        fig.add_scatter(x=patches, y=times, row=1, col=1, **look)
        weights = [cost.n_params[kind] for cost in costs]
        fig.add_scatter(x=patches, y=weights, showlegend=False, row=1, col=2, **look)
    fig.update_xaxes(title_text=tr("patches"), **log_ticks(patches))
    seconds = [cost.times[kind].median for cost in costs for kind in NAMES]
    fig.update_yaxes(**round_ticks(500 * min(seconds), 2e3 * max(seconds)), col=1)
    fig.update_yaxes(rangemode="tozero", tickformat=".2s", col=2)
    return fig.update_layout(legend=legend("top left"))


def gflops(image_size: int, patch_size: int, d_model: int) -> dict[str, float]:
    """GFLOP of twelve layers for one image, by kind."""
    mixer = MixerConfig(image_size, patch_size, 12, d_model, d_model // 2, 4 * d_model)
    vit = ViTConfig(image_size, patch_size, 12, 1, d_model, 4 * d_model)  # heads cost nothing
    return {"mixer": mixer_flops(mixer) / 1e9, "vit": vit_flops(vit) / 1e9}


@explorer(
    image_size=Slider(32, 1024, 224, step=32, unit="pixels", label="image side"),
    patch_size=Choice((8, 16, 32), 16, label="patch side (pixels)"),
    d_model=Slider(128, 2048, 768, step=128, label="width (d_model)"),
)
def mixer_or_vit(image_size=224, patch_size=16, d_model=768):
    """Arithmetic of twelve layers over the image's side, and where a layer's weights are."""
    require_one_of("patch_size", patch_size, (8, 16, 32))
    require_int("image_size", image_size, patch_size)
    require_int("d_model", d_model, 2)
    image_size -= image_size % patch_size  # a rest at the edge is cut off
    n, now = n_patches(image_size, patch_size), gflops(image_size, patch_size, d_model)
    token, attention, channel = 2 * n * (d_model // 2), 4 * d_model**2, 8 * d_model**2
    ratio = now["vit"] / now["mixer"]
    meta = {"patches": n, "Mixer GFLOP": now["mixer"], "ViT GFLOP": now["vit"], "ratio": ratio}
    meta |= {"token-mixing weights per layer": token, "attention weights per layer": attention}
    template = "{n} patches: the ViT needs {ratio} times the Mixer's FLOPs"
    title = tr(template, n=number(n), ratio=number(ratio, 2))
    titles = [tr("12 layers, GFLOP per image"), tr("matrix weights per layer (millions)")]
    places = dict(horizontal_spacing=0.12, column_widths=[0.6, 0.4])
    fig = panels(titles, title, meta=meta, **places)
    add_curves(fig, image_size, patch_size, d_model)
    parts = {tr("mixes patches"): (token, attention), tr("mixes channels"): (channel, channel)}
    for i, (part, sizes) in enumerate(parts.items(), start=2):
        look = dict(name=part, marker_color=colour(i))
        fig.add_bar(x=list(NAMES.values()), y=[n / 1e6 for n in sizes], row=1, col=2, **look)
    return fig.update_layout(barmode="stack", legend=legend("bottom right", x=0.53))


def add_curves(fig, image_size: int, patch_size: int, d_model: int) -> None:
    """GFLOP of both models over the image's side, marked at `image_size`."""
    sides = [side for side in range(32, 1025, 32) if side % patch_size == 0]
    curves = [gflops(side, patch_size, d_model) for side in sides]
    now = gflops(image_size, patch_size, d_model)
    for i, (kind, model) in enumerate(NAMES.items()):
        y, look = [curve[kind] for curve in curves], style(i, size=12)
        fig.add_scatter(x=sides, y=y, mode="lines", name=model, row=1, col=1, **look)
        here = dict(x=[image_size], y=[now[kind]], mode="markers", marker=look["marker"])
        fig.add_scatter(**here, showlegend=False, row=1, col=1)
    fig.update_xaxes(title_text=tr("image side (pixels)"), col=1)
    log_axis(fig, [gflop for curve in curves for gflop in curve.values()], row=1, col=1)
