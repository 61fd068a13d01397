"""A plain Vision Transformer (Dosovitskiy et al. 2021) of the core's blocks, to compare with Mixer.

Shapes: B batch, S patches, C channels (`d_model`). It averages the patches instead of using a class
token, as Mixer does, so that the two differ only in what mixes the patches.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.config import ModelConfig
from efflab.model import Attention, FeedForward, Layer, SubBlock
from efflab.rules import Count, Size
from efflab.structure.mixer import PatchEmbedding, n_patches
from efflab.tensors import Images


@dataclass(frozen=True)
class ViTConfig:
    """The sizes of a `ViT`, which are also its arguments: `ViT(**vars(config))`."""

    image_size: int
    patch_size: int
    n_layer: int
    n_head: int
    d_model: int
    d_ff: int
    n_classes: Count = 0
    channels: Size = field(default=3, kw_only=True)

    def __post_init__(self):
        self.blocks  # building the ModelConfig checks the other sizes  # noqa: B018

    @property
    def n_patches(self) -> int:
        """Patches of an image."""
        return n_patches(self.image_size, self.patch_size)

    @property
    def blocks(self) -> ModelConfig:
        """The core's config of the layers; no vocabulary, since the patches are the tokens."""
        shape = self.n_layer, self.n_head, self.d_model, self.d_ff
        return ModelConfig(*shape, 1, self.n_patches, norm_first=True, norm_eps=1e-6)


class ViT(nn.Module):
    """Images (B, channels, h, w) -> logits (B, n_classes), or the pooled vector for 0 classes.

    The arguments are those of `ViTConfig`. Other image sizes than `image_size` work too, with the
    position table interpolated (paper, section 3.2), since no other weight depends on the number
    of patches.

    >>> ViT(8, 2, 2, 4, 32, 64, 10, channels=1)(torch.zeros(3, 1, 16, 16)).shape
    torch.Size([3, 10])
    """

    def __init__(self, *sizes: int, **named: int):
        config = ViTConfig(*sizes, **named)
        C, blocks = config.d_model, config.blocks
        super().__init__()
        self.config = config
        self.patches = PatchEmbedding(config.patch_size, C, config.channels)
        # about as large as a patch's vector: with the usual 0.02 small models learn positions late
        self.position = nn.Parameter(0.2 * torch.randn(config.n_patches, C))
        layers = (
            Layer(
                SubBlock(Attention(C, config.n_head), blocks),
                SubBlock(FeedForward(C, config.d_ff), blocks),
            )
            for _ in range(config.n_layer)
        )
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(C, eps=blocks.norm_eps)
        self.head = nn.Linear(C, config.n_classes) if config.n_classes else nn.Identity()

    def forward(self, images: Images) -> Tensor:
        x = self.patches(images)
        size = self.patches.conv.stride[0]
        x = x + self.positions(images.shape[2] // size, images.shape[3] // size)
        return self.head(self.norm(self.layers(x)).mean(1))

    def positions(self, height: Size, width: Size) -> Tensor:
        """The position table (height*width, C), interpolated for another grid than its own."""
        side = int(len(self.position) ** 0.5)
        if (height, width) == (side, side):
            return self.position
        table = self.position.T.view(1, -1, side, side)
        table = F.interpolate(table, (height, width), mode="bicubic", align_corners=False)
        return table.flatten(2)[0].T


def vit_params(config: ViTConfig) -> int:
    """Parameters of the `ViT` of this config, without building it (heads do not change them)."""
    S, C, F_ = config.n_patches, config.d_model, config.d_ff
    embedding = (config.channels * config.patch_size**2 + 1 + S) * C
    attention = 4 * C**2 + 4 * C
    ffn = 2 * C * F_ + F_ + C
    head = (C + 1) * config.n_classes
    return embedding + config.n_layer * (attention + ffn + 4 * C) + 2 * C + head


def vit_layer_flops(config: ViTConfig) -> int:
    """FLOPs (2 per multiply-accumulate) of one layer's matrix products on one image.

    The scores and the weighted sum are S x S: the only term that is quadratic in the patches.
    """
    S, C = config.n_patches, config.d_model
    return 2 * S * C * (4 * C + 2 * config.d_ff) + 4 * S**2 * C


def vit_flops(config: ViTConfig) -> int:
    """FLOPs (2 per multiply-accumulate) of the matrix products of one image's forward pass."""
    embedding = config.n_patches * config.channels * config.patch_size**2 * config.d_model
    head = config.d_model * config.n_classes
    return 2 * (embedding + head) + config.n_layer * vit_layer_flops(config)


check_module(__name__)
