"""Linformer: attention over k summaries of the sequence (Wang et al. 2020).

Keys and values are multiplied from the left by learned matrices E and F of shape (k, n): their
*length* shrinks from n to k, each head's D channels stay. Shapes: B batch, T tokens, C channels
(`d_model`), H heads, D channels of a head.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from efflab.arguments import check_module
from efflab.errors import require, require_one_of
from efflab.model import Attention, Transformer
from efflab.rules import Size
from efflab.structure.dynamic_conv import replace_attention, require_key_mask
from efflab.tensors import Heads, Hidden, Visible

SHARING = ("none", "heads", "kv")


class LinformerAttention(Attention):
    """softmax(Q (E K)^T / sqrt(D)) F V, by head (equation 7): x (B,T,C) -> (B,T,C), T <= max_len.

    `share`: "none" gives every head its own E and F, "heads" one E and one F to all heads, "kv"
    one matrix to all heads for both (section 4, headwise and key-value sharing). A shorter
    sequence uses the first T columns. With k = T and E = F = 1 this is full attention.
    Not causal: each of the k summaries holds every token, later ones too.
    """

    def __init__(self, d_model: Size, n_head: Size, max_len: Size, k: Size, share: str = "none"):
        require(k <= max_len, "k", k, f"at most max_len={max_len}: E and F make it shorter")
        require_one_of("share", share, SHARING)
        super().__init__(d_model, n_head)
        self.max_len, self.k = max_len, k
        shape = (n_head if share == "none" else 1, k, max_len)
        # with this scale, a summary's entries are as large as a key's
        self.E = nn.Parameter(torch.randn(shape) * max_len**-0.5)
        self.F = self.E if share == "kv" else nn.Parameter(torch.randn(shape) * max_len**-0.5)

    def forward(self, x: Hidden, mask: Visible | None = None) -> Tensor:  # type: ignore[override]
        """`mask` (B,1,1,T), True = a real token; a mask by query (B,1,T,T) is a `ValueError`.

        A summary of no real token (its row of E is zero at all of them) is left out.
        """
        T = x.shape[1]
        require(T <= self.max_len, "sequence length", T, f"at most max_len={self.max_len}")
        q, k, v = self.heads(x)
        E, F, filled = self.E[..., :T], self.F[..., :T], None
        if mask is None and T < self.max_len:
            mask = torch.ones(1, 1, 1, T, dtype=torch.bool, device=x.device)
        if mask is not None:
            require_key_mask(mask, x)  # summaries mix all tokens, so no query can skip some
            k, v = k * mask.mT, v * mask.mT  # zeros, so padding adds nothing
            # an empty summary's score is 0, which would still take exp(0) of the softmax
            filled = ((E != 0) & mask).any(-1)[..., None, :]
        y = linformer_attention(q, k, v, E, F, filled)
        return self.out(y.transpose(1, 2).flatten(2))


def linformer_attention(
    q: Heads, k: Heads, v: Heads, E: Tensor, F: Tensor, filled: Visible | None = None
) -> Tensor:
    """Queries (B,H,T,D) attend to k summaries of keys and values (B,H,T,D): (B,H,T,D).

    E and F (k, T) or (H or 1, k, T) multiply the length of keys and values. `filled` (B, H or 1,
    1, k): the summaries that count; by default all.
    """
    for name, x in (("E", E), ("F", F)):
        H, T = q.shape[1], k.shape[2]
        fits = x.dim() in (2, 3) and x.shape[-1] == T and x.shape[:-2] in ((), (1,), (H,))
        require(fits, f"{name}.shape", tuple(x.shape), f"(k, {T}) or ({H} or 1, k, {T})")
    return scaled_dot_product_attention(q, E @ k, F @ v, attn_mask=filled)


@torch.no_grad()
def from_attention(
    attention: Attention, max_len: Size, k: Size, share: str = "none"
) -> LinformerAttention:
    """A Linformer layer with a plain layer's projections; E and F are random, to be trained.

    A causal layer is a `ValueError`: no choice of E and F hides the future.
    """
    name = type(attention).__name__
    require(type(attention) is Attention, "attention", name, "the plain Attention")
    require(not attention.causal, "attention.causal", True, "False: E and F mix all positions")
    d_model = attention.qkv.in_features
    same = attention.n_head * attention.head_dim == d_model
    require(same, "attention.head_dim", attention.head_dim, "heads that fill d_model (none pruned)")
    layer = LinformerAttention(d_model, attention.n_head, max_len, k, share)
    layer.load_state_dict(layer.state_dict() | attention.state_dict())
    return layer.to(attention.qkv.weight)


def linformer(model: Transformer, max_len: Size, k: Size, share: str = "none") -> Transformer:
    """A copy of the encoder with every attention converted by `from_attention`.

    Shared sub-blocks stay shared. A causal model is a `ValueError`.
    """
    return replace_attention(deepcopy(model), lambda body: from_attention(body, max_len, k, share))


def segment_means(k: Size, seq_len: Size) -> Tensor:
    """The simplest E and F (section 4, mean pooling): row j averages the j-th of k equal stretches.

    Shape (k, seq_len).
    """
    require(seq_len % k == 0, "k", k, "a divisor of {n}", n=seq_len)
    return torch.eye(k).repeat_interleave(seq_len // k, 1) * (k / seq_len)


def linformer_params(n_head: Size, max_len: Size, k: Size, share: str = "none") -> int:
    """Parameters that E and F add to one layer."""
    require_one_of("share", share, SHARING)
    return {"none": 2 * n_head, "heads": 2, "kv": 1}[share] * k * max_len


def attention_flops(seq_len: Size, d_model: Size) -> int:
    """FLOPs of full attention's scores and weighted sum for one sequence and layer."""
    return 4 * seq_len**2 * d_model


def linformer_flops(seq_len: Size, k: Size, d_model: Size) -> int:
    """The same for Linformer: E K and F V, then scores and weighted sum over k summaries.

    The summaries are half of it, so it equals full attention's at k = seq_len / 2.
    """
    return 8 * seq_len * k * d_model


check_module(__name__)
