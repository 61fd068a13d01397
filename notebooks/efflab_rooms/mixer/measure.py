"""Notebook 02's measurements: a layer of Mixer and one of ViT against the image's size."""

from dataclasses import dataclass, replace
from functools import partial

import torch

from efflab import bench
from efflab.estimate import Estimate
from efflab.model import n_parameters
from efflab.structure.mixer import (
    MixerConfig,
    MLPMixer,
    mixer_flops,
    mixer_layer_flops,
    mixer_params,
)
from efflab.structure.vit import ViT, ViTConfig, vit_flops, vit_layer_flops, vit_params

NAMES = {"mixer": "MLP-Mixer", "vit": "ViT"}
SIDES = (224, 448, 672, 896)  # pixels at which the FLOPs are judged


def one_layer(image_size: int) -> tuple[MixerConfig, ViTConfig]:
    """A layer of ViT-S/16's width, with Mixer's proportions: d_token = C / 2, d_channel = 4 C."""
    return MixerConfig(image_size, 16, 1, 384, 192, 1536), ViTConfig(
        image_size, 16, 1, 6, 384, 1536
    )


@dataclass(frozen=True)
class LayerCosts:
    """What one layer of each costs at one image size: {"mixer": ..., "vit": ...}."""

    image_size: int
    n_patches: int
    flops: dict[str, int]
    n_params: dict[str, int]
    times: dict[str, bench.Timing]
    mixer_over_vit: Estimate
    """Mixer's time over ViT's."""
    band: float
    """The A/A noise of these times."""


@torch.no_grad()
def layer_costs(image_size: int, repeats: int | None = None) -> LayerCosts:
    """Arithmetic, weights and times, measured interleaved; more `repeats` for small images."""
    mixer, vit = one_layer(image_size)
    layers = {"mixer": MLPMixer(**vars(mixer)).layers[0], "vit": ViT(**vars(vit)).layers[0]}
    x = torch.randn(1, mixer.n_patches, mixer.d_model)
    repeats = repeats or max(7, 2000 // mixer.n_patches)
    calls = {kind: partial(layer, x) for kind, layer in layers.items()}
    result = bench.compare(calls["vit"], {"mixer": calls["mixer"]}, 1, repeats)
    return LayerCosts(
        image_size,
        mixer.n_patches,
        flops={"mixer": mixer_layer_flops(mixer), "vit": vit_layer_flops(vit)},
        n_params={kind: n_parameters(layer) for kind, layer in layers.items()},
        times={"mixer": result.timings["mixer"], "vit": result.timings["baseline"]},
        mixer_over_vit=result.ratios["mixer"],
        band=result.band,
    )


def token_weights_growth(image_size: int = 224) -> float:
    """How many times a layer's token-mixing weights grow when the image's side doubles."""
    configs = (one_layer(factor * image_size)[0] for factor in (1, 2))
    once, twice = (n_parameters(MLPMixer(**vars(config)).layers[0].token) for config in configs)
    return twice / once


def flop_ratio(image_size: int, d_token: int = 384) -> float:
    """FLOPs of Mixer-B/16, its token mixing `d_token` wide, over those of ViT-B/16."""
    mixer, vit = base_models(image_size)
    return mixer_flops(replace(mixer, d_token=d_token)) / vit_flops(vit)


def equal_flop_ratio(image_size: int) -> float:
    """The same over the ViT whose width brings its parameters closest to the Mixer's."""
    mixer, vit = base_models(image_size)
    widths = range(vit.n_head, 2 * vit.d_model, vit.n_head)
    vits = [replace(vit, d_model=width, d_ff=4 * width) for width in widths]
    equal = min(vits, key=lambda v: abs(vit_params(v) - mixer_params(mixer)))
    return mixer_flops(mixer) / vit_flops(equal)


def base_models(image_size: int) -> tuple[MixerConfig, ViTConfig]:
    """Mixer-B/16 and ViT-B/16, without a classifier."""
    mixer = MixerConfig(image_size, 16, 12, 768, 384, 3072)
    return mixer, ViTConfig(image_size, 16, 12, 12, 768, 3072)
