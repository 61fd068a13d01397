"""Lightweight and dynamic convolutions in place of self-attention (Wu et al. 2019).

"Pay Less Attention with Lightweight and Dynamic Convolutions": each head mixes the `kernel_size`
tokens around a position with weights that a softmax makes sum to one. Lightweight convolutions
learn these weights; dynamic ones compute them from the token at each position. Both see
`kernel_size` tokens, whatever the input. Shapes: B batch, T tokens, C channels,
H heads, R = C / H channels of a head, k taps of a kernel.
"""

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_arguments, check_module
from efflab.errors import require
from efflab.rules import Size
from efflab.tensors import Hidden, Numbers, Visible

Kernels = Annotated[Tensor, "floats", "(B, T, H, k)"]
BLOCK = 32  # positions per product: larger blocks multiply more zeros, smaller ones need more calls


def band_matrix(kernels: Numbers) -> Tensor:
    """Kernels (..., n, k) of n neighbours as a band matrix (..., n, n + k - 1).

    Row i holds its kernel in columns i to i + k - 1: padding each row and reading the result back
    with rows one shorter moves every row one column further than the row above.

    >>> band_matrix(torch.ones(2, 2)).int().tolist()
    [[1, 1, 0], [0, 1, 1]]
    """
    shape = tuple(kernels.shape)
    require(len(shape) >= 2, "kernels.shape", shape, "two dimensions at least (..., n, k)")
    n, k = shape[-2:]
    width = n + k - 1
    return F.pad(kernels, (0, n)).flatten(-2)[..., : n * width].unflatten(-1, (n, width))


def convolve(x: Hidden, kernels: Kernels, causal: bool) -> Tensor:
    """Convolve x (B,T,C) with a kernel per position and head, (B,T,H,k), or per head, (1,1,H,k).

    Tap j of position i reads x at i - k + 1 + j (causal) or i - k // 2 + j (centred, equation 1);
    outside the sequence x is zero. A block of positions is one product with a band matrix, which
    takes (BLOCK + k - 1) / k times the k multiply-accumulates per value that are needed.
    """
    (B, T, C), (H, k) = x.shape, kernels.shape[2:]
    require(T > 0, "x.shape", tuple(x.shape), "at least one token")
    fits = tuple(kernels.shape[:2]) in ((B, T), (1, 1)) and C % H == 0
    allowed = f"({B}, {T}) or (1, 1), H that divides {C}, k"
    require(fits, "kernels.shape", tuple(kernels.shape), allowed)
    n_blocks = -(-T // BLOCK)
    before = k - 1 if causal else k // 2
    after = n_blocks * BLOCK + k - 1 - before - T
    windows = F.pad(x, (0, 0, before, after)).unfold(1, BLOCK + k - 1, BLOCK)  # (B,n,C,width)
    windows = windows.unflatten(2, (H, -1)).transpose(-1, -2)  # (B,n,H,width,R)
    if kernels.shape[1] == 1:
        blocks = kernels.unsqueeze(3).expand(-1, -1, -1, BLOCK, -1)  # (1,1,H,BLOCK,k)
    else:
        blocks = F.pad(kernels, (0, 0, 0, 0, 0, n_blocks * BLOCK - T))
        blocks = blocks.unflatten(1, (n_blocks, BLOCK)).transpose(2, 3)  # (B,n,H,BLOCK,k)
    y = band_matrix(blocks) @ windows  # (B,n,H,BLOCK,R)
    return y.transpose(2, 3).flatten(3).flatten(1, 2)[:, :T]


def require_key_mask(mask: Visible, x: Hidden) -> None:
    """Refuse a mask that is not one of x's tokens (B,T,C): (B,1,1,T), or (1,1,1,T) for all."""
    B, T, _ = x.shape
    allowed = f"({B} or 1, 1, 1, {T}): one value per token, for all queries"
    fits = tuple(mask.shape) in ((B, 1, 1, T), (1, 1, 1, T))
    require(fits, "mask.shape", tuple(mask.shape), allowed)


@check_arguments
class _Convolution(nn.Module):
    """Figure 2 of the paper: projection to 2C, gated linear unit, convolution, projection."""

    def __init__(self, d_model: Size, n_head: Size, kernel_size: Size, causal: bool = True):
        require(d_model % n_head == 0, "n_head", n_head, f"a divisor of d_model={d_model}")
        super().__init__()
        self.n_head, self.kernel_size, self.causal = n_head, kernel_size, causal
        self.into = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def gated(self, x: Hidden) -> Tensor:
        """The values to convolve: half of the projection times the sigmoid of the rest, (B,T,C)."""
        return F.glu(self.into(x), dim=-1)

    def forward(self, x: Hidden, mask: Visible | None = None) -> Tensor:
        """(B,T,C) -> (B,T,C). `mask` (B,1,1,T), True = a real token; others are set to zero."""
        values = self.gated(x)
        if mask is not None:
            require_key_mask(mask, x)
            values = values * mask[:, 0, 0, :, None]
        return self.out(convolve(values, self.kernels(values), self.causal))


class LightweightConv(_Convolution):
    """One kernel per head, the same at every position (equation 3): (B,T,C) -> (B,T,C)."""

    def __init__(self, d_model: Size, n_head: Size, kernel_size: Size, causal: bool = True):
        super().__init__(d_model, n_head, kernel_size, causal)
        # three dimensions, like a convolution's weight, so that Muon, for matrices, skips it
        self.weight = nn.Parameter(torch.empty(n_head, 1, kernel_size))
        nn.init.xavier_uniform_(self.weight)

    def kernels(self, values: Hidden) -> Tensor:
        """The softmax-normalized kernels, (1,1,H,k), the last tap on the newest token."""
        return self.weight.softmax(-1).view(1, 1, self.n_head, self.kernel_size)


class DynamicConv(_Convolution):
    """One kernel per head and position, a linear function of its token (equation 4)."""

    def __init__(self, d_model: Size, n_head: Size, kernel_size: Size, causal: bool = True):
        super().__init__(d_model, n_head, kernel_size, causal)
        self.predict = nn.Linear(d_model, n_head * kernel_size, bias=False)
        nn.init.xavier_uniform_(self.predict.weight)

    def kernels(self, values: Hidden) -> Tensor:
        """The softmax-normalized kernels of values (B,T,C), (B,T,H,k)."""
        return self.predict(values).unflatten(-1, (self.n_head, self.kernel_size)).softmax(-1)


def replace_attention(model: nn.Module, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Put `make(attention)` in place of every layer's attention, in place; returns the model.

    `make` gets the `efflab.model.Attention` to replace (its `n_head`, `causal` and weights).
    Layers that shared an attention share its replacement.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    for layer in model.layers:
        old = layer.attention.body
        if old not in replacements.values():
            layer.attention.body = replacements.setdefault(old, make(old))
    return model


def conv_flops(
    d_model: Size, n_head: Size, kernel_size: Size, n_tokens: Size, *, dynamic: bool = True
) -> int:
    """FLOPs (2 per multiply-accumulate) of one layer's forward on `n_tokens` tokens.

    Linear in the tokens: three C x C projections, the taps, and if `dynamic` the prediction of the
    kernels. The extra arithmetic of band matrices is not counted.
    """
    predict = d_model * n_head * kernel_size if dynamic else 0
    return 2 * n_tokens * (3 * d_model**2 + d_model * kernel_size + predict)


check_module(__name__)
