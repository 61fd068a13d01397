"""A plain Vision Transformer (Dosovitskiy et al. 2021) of the core's blocks: Mixer's opponent.

Shapes: B batch, S patches, C channels (`d_model`). Averages the patches in place of a class
token, as Mixer does, so that the two differ in what mixes the patches and in nothing else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.config import ModelConfig
from efflab.errors import require_int
from efflab.model import Attention, FeedForward, Layer, SubBlock
from efflab.structure.mixer import PatchEmbedding, n_patches


class ViT(nn.Module):
    """Images (B, channels, h, w) -> logits (B, n_classes), or the pooled vector for 0 classes.

    Made for `image_size`; another size works too, with the position table interpolated between
    its neighbours (paper, section 3.2), since no other weight knows the number of patches.

    >>> ViT(8, 2, 2, 4, 32, 64, 10, channels=1)(torch.zeros(3, 1, 16, 16)).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        n_layer: int,
        n_head: int,
        d_model: int,
        d_ff: int,
        n_classes: int,
        *,
        channels: int = 3,
    ):
        S = n_patches(image_size, patch_size)
        require_int("n_classes", n_classes, 0)
        require_int("channels", channels)
        # no vocabulary: the patches are the tokens
        config = ModelConfig(n_layer, n_head, d_model, d_ff, 1, S, norm_first=True, norm_eps=1e-6)
        super().__init__()
        self.patches = PatchEmbedding(patch_size, d_model, channels)
        # about the size of a patch's vector: with the usual 0.02 small ones learn their places late
        self.position = nn.Parameter(0.2 * torch.randn(S, d_model))
        layers = (
            Layer(
                SubBlock(Attention(d_model, n_head), config),
                SubBlock(FeedForward(d_model, d_ff), config),
            )
            for _ in range(n_layer)
        )
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(d_model, eps=config.norm_eps)
        self.head = nn.Linear(d_model, n_classes) if n_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images)
        size = self.patches.conv.stride[0]
        x = x + self.positions(images.shape[2] // size, images.shape[3] // size)
        return self.head(self.norm(self.layers(x)).mean(1))

    def positions(self, height: int, width: int) -> Tensor:
        """The position table (height*width, C), interpolated where the grid is not its own."""
        side = int(len(self.position) ** 0.5)
        if (height, width) == (side, side):
            return self.position
        table = self.position.T.view(1, -1, side, side)
        table = F.interpolate(table, (height, width), mode="bicubic", align_corners=False)
        return table.flatten(2)[0].T


def vit_params(
    image_size: int,
    patch_size: int,
    n_layer: int,
    d_model: int,
    d_ff: int,
    n_classes: int = 0,
    *,
    channels: int = 3,
) -> int:
    """Parameters of that `ViT`, without building it; the number of heads does not matter."""
    S = n_patches(image_size, patch_size)
    embedding = (channels * patch_size**2 + 1 + S) * d_model
    attention = 4 * d_model**2 + 4 * d_model
    ffn = 2 * d_model * d_ff + d_ff + d_model
    head = (d_model + 1) * n_classes
    return embedding + n_layer * (attention + ffn + 4 * d_model) + 2 * d_model + head


def vit_flops(
    image_size: int,
    patch_size: int,
    n_layer: int,
    d_model: int,
    d_ff: int,
    n_classes: int = 0,
    *,
    channels: int = 3,
) -> int:
    """Matrix products of one image's forward pass, 2 a multiply-accumulate.

    The scores and the weighted sum are S x S: the one term that is quadratic in the patches.
    """
    S = n_patches(image_size, patch_size)
    embedding = S * channels * patch_size**2 * d_model
    projections = S * d_model * (4 * d_model + 2 * d_ff)
    scores = 2 * S**2 * d_model
    return 2 * (embedding + n_layer * (projections + scores) + d_model * n_classes)
