"""MLP-Mixer: two perceptrons in place of attention (Tolstikhin et al. 2021).

Shapes: B batch, S patches, C channels (`d_model`). An image of `image_size` pixels a side is cut
into S = (image_size / patch_size)^2 square patches. The token-mixing perceptron runs *along* the
patches, so its weights are S wide: the model belongs to one image size.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.errors import require
from efflab.model import FeedForward
from efflab.rules import Count, Size
from efflab.tensors import Hidden, Images


def n_patches(image_size: Size, patch_size: Size) -> int:
    """How many square patches a square image has; `patch_size` has to divide `image_size`."""
    divides = image_size % patch_size == 0
    require(divides, "patch_size", patch_size, f"a divisor of image_size={image_size}")
    return (image_size // patch_size) ** 2


@dataclass(frozen=True)
class MixerConfig:
    """The sizes of an `MLPMixer`, which are also its arguments: `MLPMixer(**vars(config))`.

    `d_token` and `d_channel` are the hidden widths of the two perceptrons. `n_classes=0` leaves
    the classifier out, as the paper's counts do.
    """

    image_size: Size
    patch_size: Size
    n_layer: Size
    d_model: Size
    d_token: Size
    d_channel: Size
    n_classes: Count = 0
    channels: Size = field(default=3, kw_only=True)

    def __post_init__(self):
        n_patches(self.image_size, self.patch_size)

    @property
    def n_patches(self) -> int:
        """Patches of an image."""
        return n_patches(self.image_size, self.patch_size)


class PatchEmbedding(nn.Module):
    """Non-overlapping patches, each a vector: images (B, channels, h, w) -> (B,S,C)."""

    def __init__(self, patch_size: Size, d_model: Size, channels: Size):
        super().__init__()
        self.conv = nn.Conv2d(channels, d_model, patch_size, stride=patch_size)

    def forward(self, images: Images) -> Tensor:
        channels, patch_size = self.conv.in_channels, self.conv.stride[0]
        fits = images.shape[1] == channels
        require(fits, "images.shape", tuple(images.shape), f"(batch, {channels}, height, width)")
        whole = images.shape[2] % patch_size == 0 and images.shape[3] % patch_size == 0
        allowed = f"height and width that are multiples of patch_size={patch_size}"
        require(whole, "images.shape", tuple(images.shape), allowed)
        return self.conv(images).flatten(2).transpose(1, 2)


class MixerLayer(nn.Module):
    """Token mixing, then channel mixing, both residual (equation 1): (B,S,C) -> (B,S,C)."""

    def __init__(self, n_patches: Size, d_model: Size, d_token: Size, d_channel: Size):
        super().__init__()
        self.token_norm = nn.LayerNorm(d_model, eps=1e-6)
        self.token = FeedForward(n_patches, d_token)
        self.channel_norm = nn.LayerNorm(d_model, eps=1e-6)
        self.channel = FeedForward(d_model, d_channel)

    def forward(self, x: Hidden) -> Tensor:
        # transposed, the same perceptron mixes patches, one channel at a time
        x = x + self.token(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel(self.channel_norm(x))


class MLPMixer(nn.Module):
    """Images (B, channels, image_size, image_size) -> logits (B, n_classes).

    The arguments are those of `MixerConfig`. Without a classifier it returns the pooled vector
    (B,C).

    >>> MLPMixer(8, 2, 2, 32, 16, 64, 10, channels=1)(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """

    def __init__(self, *sizes: int, **named: int):
        config = MixerConfig(*sizes, **named)
        C = config.d_model
        super().__init__()
        self.config = config
        self.patches = PatchEmbedding(config.patch_size, C, config.channels)
        shape = config.n_patches, C, config.d_token, config.d_channel
        self.layers = nn.Sequential(*(MixerLayer(*shape) for _ in range(config.n_layer)))
        self.norm = nn.LayerNorm(C, eps=1e-6)
        self.head = nn.Linear(C, config.n_classes) if config.n_classes else nn.Identity()

    def forward(self, images: Images) -> Tensor:
        size, shape = self.config.image_size, tuple(images.shape)
        allowed = f"images of {size} x {size}, the size its token-mixing weights were made for"
        require(shape[2:] == (size, size), "images.shape", shape, allowed)
        x = self.layers(self.patches(images))
        return self.head(self.norm(x).mean(1))


def mixer_params(config: MixerConfig) -> int:
    """Parameters of the `MLPMixer` of this config, without building it."""
    S, C = config.n_patches, config.d_model
    embedding = (config.channels * config.patch_size**2 + 1) * C
    token = 2 * S * config.d_token + config.d_token + S
    channel = 2 * C * config.d_channel + config.d_channel + C
    head = (C + 1) * config.n_classes
    return embedding + config.n_layer * (token + channel + 4 * C) + 2 * C + head


def mixer_layer_flops(config: MixerConfig) -> int:
    """FLOPs (2 per multiply-accumulate) of one layer's matrix products on one image."""
    return 4 * config.n_patches * config.d_model * (config.d_token + config.d_channel)


def mixer_flops(config: MixerConfig) -> int:
    """FLOPs (2 per multiply-accumulate) of the matrix products of one image's forward pass.

    Linear in the number of patches for a fixed `d_token`, as the paper says; the token-mixing
    *parameters* grow with it too, unlike attention's.
    """
    embedding = config.n_patches * config.channels * config.patch_size**2 * config.d_model
    head = config.d_model * config.n_classes
    return 2 * (embedding + head) + config.n_layer * mixer_layer_flops(config)


@torch.no_grad()
def enlarge(mixer: MLPMixer, factor: Annotated[int, 2]) -> MLPMixer:
    """The same network for images `factor` times as large a side (after the paper's appendix C).

    The patches form factor^2 groups, here each every factor-th patch in both directions, so that
    each still covers the whole image; the paper's are contiguous parts of it. The new token-mixing
    weights are block-diagonal: every group passes through a copy of the old perceptron. Parameters
    of that part grow by factor^4.
    """
    old = mixer.config
    side, groups = old.image_size // old.patch_size, factor**2
    larger = dict(image_size=old.image_size * factor, d_token=old.d_token * groups)
    new = MLPMixer(**vars(replace(old, **larger)))
    # index in the new grid of each patch, ordered by group
    grid = torch.arange((side * factor) ** 2).view(side, factor, side, factor)
    place = grid.permute(1, 3, 0, 2).flatten()
    weights = mixer.state_dict()
    for name, value in weights.items():
        if ".token." not in name:
            continue
        copies = [value] * groups
        value = torch.block_diag(*copies) if value.dim() == 2 else torch.cat(copies)
        if name.endswith("up.weight"):
            value = value[:, place.argsort()]
        elif "down" in name:
            value = value[place.argsort()]
        weights[name] = value
    new.to(mixer.patches.conv.weight).load_state_dict(weights)
    return new.train(mixer.training)


check_module(__name__)
