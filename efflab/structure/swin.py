"""Window attention over an image (Liu et al. 2021, "Swin Transformer", sections 3.1 and 3.2).

Shapes: x (B, height, width, C), windows of w x w pixels (N = w * w tokens in each), H heads of D
channels, M windows in an image. A layer with shift 0 attends inside its windows only; the next one,
shifted by w // 2, connects neighbouring windows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.errors import require, require_int
from efflab.rules import Count, Size
from efflab.tensors import Maps, NumberMaps


def relative_position_index(window_size: Size) -> Tensor:
    """Which row of the bias table query i and key j of a window use: (N,N) int64.

    Row = (dy + w - 1) * (2w - 1) + (dx + w - 1), for the offsets dy, dx = -(w-1)..(w-1) from key to
    query (section 3.2, "relative position bias").
    """
    w = window_size
    y, x = torch.arange(w).repeat_interleave(w), torch.arange(w).repeat(w)  # each (N,)
    dy, dx = y[:, None] - y + w - 1, x[:, None] - x + w - 1
    return dy * (2 * w - 1) + dx


def to_windows(x: NumberMaps, window_size: int) -> Tensor:
    """Cut (B, height, width, C) into windows (B, M, N, C), row by row."""
    B, height, width, C = x.shape
    w = window_size
    _require_whole(height, width, w)
    x = x.view(B, height // w, w, width // w, w, C).transpose(2, 3)
    return x.reshape(B, height * width // w**2, w * w, C)


def from_windows(windows: NumberMaps, window_size: int, height: Size, width: Size) -> Tensor:
    """The inverse of `to_windows`: (B, M, N, C) to (B, height, width, C)."""
    B, M, N, C = windows.shape
    w = window_size
    _require_whole(height, width, w)
    fits = M * N == height * width and N == w * w
    allowed = f"windows of {w} x {w} that fill height={height}, width={width}"
    require(fits, "windows.shape", (B, M, N, C), allowed)
    x = windows.view(B, height // w, width // w, w, w, C).transpose(2, 3)
    return x.reshape(B, height, width, C)


def _require_whole(height: int, width: int, window_size: int) -> None:
    require_int("window_size", window_size)
    for name, size in (("height", height), ("width", width)):
        require(size % window_size == 0, name, size, f"a multiple of window_size={window_size}")


def shift_mask(height: Size, width: Size, window_size: int, shift: Count) -> Tensor:
    """Which pairs of a rolled image's windows were neighbours before the roll: (M,N,N) bool.

    Rolling brings pixels from opposite borders into one window (section 3.2, figure 4). Pixels of
    the last window's kept part and of its wrapped part get different region numbers.
    """

    _require_whole(height, width, window_size)

    def region(size: int) -> Tensor:
        at = torch.arange(size)
        return (at >= size - window_size).long() + (at >= size - shift).long()

    regions = region(height)[:, None] * 3 + region(width)
    regions = to_windows(regions[None, :, :, None], window_size)[0, :, :, 0]  # (M,N)
    return regions[:, :, None] == regions[:, None, :]


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with relative position bias and optional shift.

    x (B, height, width, C) -> the same shape. height and width (they may differ) are multiples of
    `window_size`, 0 <= shift < window_size; anything else is a `ValueError`.
    """

    def __init__(self, d_model: int, n_head: int, window_size: int, shift: int = 0):
        super().__init__()
        for name, value in (("d_model", d_model), ("n_head", n_head), ("window_size", window_size)):
            require_int(name, value)
        require(d_model % n_head == 0, "n_head", n_head, f"a divisor of d_model={d_model}")
        require_int("shift", shift, 0)
        require(shift < window_size, "shift", shift, f"less than window_size={window_size}")
        self.d_model, self.n_head = d_model, n_head
        self.window_size, self.shift = window_size, shift
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        # one learned number for each offset and head, read through the fixed index
        self.bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, n_head))
        self.register_buffer("bias_index", relative_position_index(window_size), persistent=False)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def mask(self, height: Size, width: Size) -> Tensor:
        """What is added to the scores: bias, and -inf across the seam. (1,H,N,N) or (M,H,N,N)."""
        bias = self.bias_table[self.bias_index].permute(2, 0, 1)[None]
        if self.shift == 0:
            return bias
        visible = shift_mask(height, width, self.window_size, self.shift).to(bias.device)
        return bias.masked_fill(~visible[:, None], -torch.inf)

    def forward(self, x: Maps) -> Tensor:
        require(x.dim() == 4, "x.shape", tuple(x.shape), "four dimensions (B, height, width, C)")
        B, height, width, C = x.shape
        w, H = self.window_size, self.n_head
        for name, size in (("height", height), ("width", width)):
            fits = size > 0 and size % w == 0
            require(fits, f"x's {name}", size, f"a multiple of window_size={w}")
        require(C == self.d_model, "x's channels", C, f"d_model={self.d_model}")

        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = to_windows(x, w)  # (B,M,N,C)
        M, N = windows.shape[1:3]
        q, k, v = self.qkv(windows).view(B, M, N, 3, H, C // H).permute(3, 0, 1, 4, 2, 5)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(height, width))
        y = self.out(y.transpose(2, 3).reshape(B, M, N, C))  # (B,M,H,N,D) -> (B,M,N,C)
        x = from_windows(y, w, height, width)
        return x.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else x


def swin_counts(
    channels: Size,
    depths: tuple[Size, ...],
    window_size: Size,
    image: Size,
    n_classes: Count = 1000,
) -> tuple[int, int]:
    """(parameters, multiply-accumulates of one image) of a whole Swin Transformer.

    Section 3.3: patches of 4 x 4 pixels, heads of 32 channels, and between stages a merging of
    2 x 2 patches that doubles the channels. The paper's "FLOPs" are these multiply-accumulates of
    the matrix products.
    """
    require(channels % 32 == 0, "channels", channels, "a multiple of 32, a head's")
    coarsest = 4 * 2 ** max(len(depths) - 1, 0) * window_size  # pixels of the last stage's window
    require(image % coarsest == 0, "image", image, f"a multiple of {coarsest}, the last window")
    C, tokens, N = channels, (image // 4) ** 2, window_size**2
    params = (4 * 4 * 3 + 1) * C + 2 * C  # patch embedding and its LayerNorm
    macs = 4 * 4 * 3 * C * tokens
    for stage, depth in enumerate(depths):
        if stage:  # LayerNorm of 4C, then 4C -> 2C without bias
            tokens //= 4
            params += 8 * C + 8 * C * C
            macs += 8 * C * C * tokens
            C *= 2
        weights = 4 * C * C + 8 * C * C  # q, k, v, out; up, down
        # biases, norms, table
        small = 4 * C + 5 * C + 4 * C + (2 * window_size - 1) ** 2 * (C // 32)
        params += depth * (weights + small)
        macs += depth * tokens * (weights + 2 * N * C)  # each token with the N of its window
    return params + 2 * C + (C + 1) * n_classes, macs + C * n_classes


check_module(__name__)
