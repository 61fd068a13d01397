"""Finer scales for an INT8 layer's input: per token, and with outlier channels in floats.

Both scale each token separately, which the product allows since tokens are its rows; LLM.int8
(Dettmers et al. 2022, section 3) also computes the few channels with outliers in floats.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.base.hooks import as_rows
from efflab.compression.affine import grid
from efflab.compression.int8 import Int8Linear
from efflab.compression.values import require_width
from efflab.rules import Positive
from efflab.tensors import require_finite


class ByToken(Int8Linear):
    """`Int8Linear` with an affine grid for each token (row) of the current x (..., in)."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear)

    def grid_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        require_width("x", x, self.weight.shape[1])
        require_finite("x", x)
        return grid(as_rows(x).float(), self.bits, symmetric=False)  # (N,1) each


class OutliersApart(nn.Module):
    """LLM.int8: channels with a magnitude of `threshold` or more in floats, the rest `ByToken`.

    The channels are determined for each input; 6 is the paper's threshold.
    """

    def __init__(self, linear: nn.Linear, threshold: Positive = 6.0):
        super().__init__()
        self.threshold = threshold
        self.exact = linear
        self.rounded = ByToken(linear)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        require_width("x", x, self.exact.in_features)
        require_finite("x", x)
        apart = (as_rows(x).abs() >= self.threshold).any(0)  # (in,)
        y = self.rounded(x.masked_fill(apart, 0.0))
        return y + F.linear(x[..., apart], self.exact.weight[:, apart])


check_module(__name__)
