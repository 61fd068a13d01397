"""Notebook 02's measurements: the Mixer and the ViT on the digits, and against image size."""

import torch
from torch import nn

from efflab import bench
from efflab.experiments import mixer_digits
from efflab.lab import colours, figures, tr
from efflab.model import n_parameters
from efflab.structure.mixer import MixerConfig, MLPMixer, mixer_flops, mixer_layer_flops
from efflab.structure.vit import ViT, ViTConfig, vit_flops, vit_layer_flops
from efflab_rooms.mixer.counts import COLOURS, NAMES


def one_layer(image_size: int, patch_size: int = 16) -> dict[str, MixerConfig | ViTConfig]:
    """A layer of ViT-S/16's width, with Mixer's proportions: d_token = C / 2, d_channel = 4 C."""
    return {
        "mixer": MixerConfig(image_size, patch_size, 1, 384, 192, 1536),
        "vit": ViTConfig(image_size, patch_size, 1, 6, 384, 1536),
    }


# --- On the digits ---------------------------------------------------------------------------


def compare(models: dict[str, nn.Module]) -> list[dict]:
    """The two trained models on the 360 test digits: size, arithmetic, time and accuracy."""
    images = torch.rand(360, 1, 8, 8)
    with torch.no_grad():
        times = bench.interleaved({k: lambda m=m: m(images) for k, m in models.items()}, 2, 15)
    flops = {"mixer": mixer_flops(models["mixer"].config), "vit": vit_flops(models["vit"].config)}
    return [
        dict(
            model=NAMES[kind],
            params=n_parameters(model),
            mflop=flops[kind] / 1e6,
            milliseconds=1e3 * times[kind].median,
            time_ratio=times[kind].ratio(times["vit"]),
            accuracy=100 * mixer_digits.accuracy(model),
            kind="measured",
        )
        for kind, model in models.items()
    ]


COMPARE_COLUMNS = {
    "model": "model",
    "params": "parameters",
    "mflop": "MFLOP an image (computed)",
    "milliseconds": "ms for 360 images",
    "time_ratio": "time / ViT's",
    "accuracy": "accuracy (%)",
    "kind": "kind",
}


def accuracy_figure(written: dict, live: dict[str, float]):
    """Recorded accuracy over the training set's size, its range over seeds, and `live` points.

    `written`: what `mixer_digits.run` recorded; `live`: kind -> accuracy measured just now with
    all images.
    """
    summary = mixer_digits.by_images(written["runs"])
    sizes = list(summary)
    gap = {n: 100 * (s["mixer"]["mean"] - s["vit"]["mean"]) for n, s in summary.items()}
    title = tr("Mixer and ViT of equal parameters on the digits (recorded)")
    meta = {tr("{n} images: Mixer less ViT (points)", n=n): value for n, value in gap.items()}
    fig = figures.blank(title, tr("training images"), tr("accuracy on 360 held-out digits (%)"),
                        meta=meta)  # fmt: skip
    for kind, name in NAMES.items():
        means, lows, highs = (
            [100 * summary[n][kind][what] for n in sizes] for what in ("mean", "low", "high")
        )
        bars = dict(
            array=[h - m for h, m in zip(highs, means, strict=True)],
            arrayminus=[m - low for m, low in zip(means, lows, strict=True)],
        )
        style = dict(color=COLOURS[kind], dash="solid" if kind == "mixer" else "dash")
        fig.add_scatter(x=sizes, y=means, error_y=bars, line=style, mode="lines+markers",
                        name=tr("{name}, recorded: mean and range of {n} seeds", name=name,
                                n=len(written["seeds"])))  # fmt: skip
        marker = dict(
            symbol="star", size=15, color=COLOURS[kind], line=dict(width=1, color=colours.BLACK)
        )
        fig.add_scatter(x=[mixer_digits.N_IMAGES], y=[100 * live[kind]], mode="markers",
                        marker=marker, name=tr("{name}, measured now", name=name))  # fmt: skip
    fig.update_xaxes(type="log", tickvals=sizes, ticktext=[f"{n:,}" for n in sizes])
    fig.update_layout(legend=dict(x=0.99, xanchor="right", y=0.02, yanchor="bottom"))
    return fig


# --- Against image size ----------------------------------------------------------------------


@torch.no_grad()
def cost_rows(image_sizes, patch_size: int = 16, repeats: int = 7) -> list[dict]:
    """One layer of each at several image sizes: arithmetic, time (turn and turn about), weights."""
    rows = []
    for size in image_sizes:
        mixer, vit = one_layer(size, patch_size).values()
        flops = {"mixer": mixer_layer_flops(mixer), "vit": vit_layer_flops(vit)}
        both = {"mixer": MLPMixer(**vars(mixer)).layers[0], "vit": ViT(**vars(vit)).layers[0]}
        patches = mixer.n_patches
        x = torch.randn(1, patches, mixer.d_model)
        calls = {k: lambda m=m: m(x) for k, m in both.items()}  # noqa: B023
        found = bench.compared(calls["vit"], {"mixer": calls["mixer"]}, 1, repeats)
        times = {"vit": found.timings["baseline"], "mixer": found.timings["mixer"]}
        row = dict(image_size=size, patches=patches, kind="measured")
        for kind, model in both.items():
            row[f"{kind}_gflop"] = flops[kind] / 1e9
            row[f"{kind}_ms"] = 1e3 * times[kind].median
            row[f"{kind}_params"] = n_parameters(model)
        row["flop_ratio"] = flops["vit"] / flops["mixer"]
        ratio = times["vit"].ratio_interval(times["mixer"])
        row |= dict(time_ratio=ratio.mean, low=ratio.low, high=ratio.high)
        row |= dict(mixer_over_vit=found.ratios["mixer"], band=found.band)
        row["agreement"] = row["time_ratio"] / row["flop_ratio"]
        rows.append(row)
    return rows


COST_COLUMNS = {
    "image_size": "image side (pixels)",
    "patches": "patches",
    "flop_ratio": "ViT / Mixer: FLOPs (computed)",
    "time_ratio": "ViT / Mixer: time (measured)",
    "low": "interval, low",
    "high": "interval, high",
    "agreement": "measured / computed",
    "mixer_params": "Mixer layer's weights",
    "vit_params": "ViT layer's weights",
    "kind": "kind",
}


def token_weights_growth(image_size: int = 224, patch_size: int = 16) -> float:
    """How many times a layer's token-mixing weights grow when the image's side doubles."""
    configs = (one_layer(k * image_size, patch_size)["mixer"] for k in (1, 2))
    once, twice = (n_parameters(MLPMixer(**vars(c)).layers[0].token) for c in configs)
    return twice / once


def cost_figure(rows: list[dict]):
    """Time of one layer over the number of patches, and its weights."""
    patches = [row["patches"] for row in rows]
    power = {}
    for kind in NAMES:
        first, last = rows[-2][f"{kind}_ms"], rows[-1][f"{kind}_ms"]
        power[kind] = torch.tensor(last / first).log2().item()
        power[kind] /= torch.tensor(patches[-1] / patches[-2]).log2().item()
    meta = {tr("{name}: time grows as patches to the power", name=NAMES[k]): round(p, 2)
            for k, p in power.items()}  # fmt: skip
    titles = [tr("time of one layer (measured, ms)"), tr("weights of one layer (computed)")]
    title = tr("One layer against the number of patches: its time and its weights")
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.12)
    for column, what in enumerate(("ms", "params"), start=1):
        for i, (kind, name) in enumerate(NAMES.items()):
            line = dict(color=COLOURS[kind], dash=figures.DASHES[i])
            y = [row[f"{kind}_{what}"] for row in rows]
            fig.add_scatter(x=patches, y=y, name=name, line=line, mode="lines+markers",
                            marker=dict(symbol=figures.MARKERS[i], size=8), legendgroup=kind,
                            showlegend=column == 1, row=1, col=column)  # fmt: skip
    ticks = dict(tickvals=patches, ticktext=[f"{n:,}" for n in patches])
    fig.update_xaxes(type="log", title_text=tr("patches"), **ticks)
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, col=1)
    fig.update_yaxes(rangemode="tozero", tickformat=".2s", col=2)
    fig.update_layout(legend=dict(x=0.02, y=0.98))
    return fig


# --- Another image size ----------------------------------------------------------------------


def refusal(model: MLPMixer, images: torch.Tensor) -> str:
    """What the model says to images that it cannot take."""
    try:
        model(images)
    except ValueError as error:
        return str(error)
    return "accepted"


def enlarged_rows(models: dict[str, nn.Module], larger: dict[str, nn.Module]) -> list[dict]:
    """Accuracy on digits of 8 x 8 and of 16 x 16 pixels, and the weights of each model."""
    return [
        dict(
            model=NAMES[kind],
            small=100 * mixer_digits.accuracy(models[kind]),
            large=100 * mixer_digits.accuracy(larger[kind], 2),
            small_params=n_parameters(models[kind]),
            large_params=n_parameters(larger[kind]),
            kind="measured",
        )
        for kind in NAMES
    ]


ENLARGED_COLUMNS = {
    "model": "model",
    "small": "accuracy at 8 x 8 (%)",
    "large": "accuracy at 16 x 16, not retrained (%)",
    "small_params": "parameters at 8 x 8",
    "large_params": "parameters at 16 x 16",
    "kind": "kind",
}
