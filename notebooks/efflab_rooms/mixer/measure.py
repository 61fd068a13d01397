"""Notebook 02's measurements: a layer of Mixer and one of ViT against the image's size."""

from dataclasses import dataclass
from functools import partial

import torch

from efflab import bench
from efflab.estimate import Estimate
from efflab.model import n_parameters
from efflab.structure.mixer import MixerConfig, MLPMixer, mixer_layer_flops
from efflab.structure.vit import ViT, ViTConfig, vit_layer_flops

NAMES = {"mixer": "MLP-Mixer", "vit": "ViT"}


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
def layer_costs(image_size: int, repeats: int = 7) -> LayerCosts:
    """Arithmetic, weights and times, measured interleaved."""
    mixer, vit = one_layer(image_size)
    layers = {"mixer": MLPMixer(**vars(mixer)).layers[0], "vit": ViT(**vars(vit)).layers[0]}
    x = torch.randn(1, mixer.n_patches, mixer.d_model)
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
