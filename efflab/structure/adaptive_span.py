"""Attention whose heads learn how far back to look (Sukhbaatar et al. 2019).

"Adaptive Attention Span in Transformers": head h weights a key that is x tokens back by the soft
mask m(x) = clamp((ramp + span_h - x) / ramp, 0, 1) before the softmax is normalized, and the loss
penalizes long spans. Each head has one span; in the paper's extension, `dynamic`, each token
computes its own. Keys that no head reaches are not computed.
Shapes: B batch, T tokens, C channels, H heads, D channels of a head, n blocks of queries.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.errors import require
from efflab.model import Attention
from efflab.rules import Count, Size
from efflab.tensors import Hidden, Numbers, Visible

BLOCK = 32  # queries that share one window of keys


def soft_mask(distance: Numbers, span: Numbers, ramp: Size) -> Tensor:
    """Section 2's m_z(x): 1 up to `span` tokens back, then down to 0 over `ramp` tokens.

    >>> soft_mask(torch.arange(6), torch.tensor(2.0), 2).tolist()
    [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    _require_pairs(distance, "span", span)
    return ((ramp + span - distance) / ramp).clamp(0, 1)


def _require_pairs(distance: Tensor, name: str, span: Tensor) -> None:
    """Distances must be numbers, of a shape that broadcasts with that of the spans."""
    require(distance.dtype != torch.bool, "distance.dtype", distance.dtype, "numbers")
    shapes = [tuple(reversed(x.shape)) for x in (distance, span)]
    fits = all(a == b or 1 in (a, b) for a, b in zip(*shapes, strict=False))
    allowed = f"one that broadcasts with {name}.shape={tuple(span.shape)}"
    require(fits, "distance.shape", tuple(distance.shape), allowed)


class AdaptiveSpanAttention(Attention):
    """Causal self-attention with learned spans: (B,T,C) -> (B,T,C).

    Keys 0 to max_span - 1 tokens back are visible. Spans start at `initial` x max_span tokens.
    After a forward pass `spans` holds the spans used, in tokens: (1,1,H), or (B,T,H) if `dynamic`;
    `reach` is the number of keys computed per query, which the widest span decides.
    Unlike the paper's, positions are the model's absolute embeddings, not relative ones.
    """

    def __init__(
        self,
        d_model: Size,
        n_head: Size,
        max_span: Size,
        *,
        ramp: Size = 32,
        initial: float = 0.0,
        dynamic: bool = False,
    ):
        require(0 <= initial <= 1, "initial", initial, "a share of max_span, 0 to 1")
        super().__init__(d_model, n_head, causal=True)
        self.max_span, self.ramp, self.dynamic = max_span, ramp, dynamic
        # a share of max_span, so that Adam's step size means the same for any max_span
        self.share = nn.Parameter(torch.full((n_head,), float(initial)))
        self.predict = nn.Linear(d_model, n_head, bias=False) if dynamic else None
        self.spans: Any = None  # a tensor once a forward has run
        self.reach = max_span

    def __getstate__(self) -> dict:
        """Without the last spans: a tensor of a graph can be neither copied nor stored."""
        return self.__dict__ | {"spans": None}

    def find_spans(self, x: Hidden) -> Tensor:
        """Spans in tokens, (1,1,H) or, from x (B,T,C), (B,T,H)."""
        if self.training:
            with torch.no_grad():  # outside 0..1 the gradient would vanish for good
                self.share.clamp_(0, 1)
        share = self.share.clamp(0, 1)[None, None]
        if self.predict is not None:
            # the paper's sigmoid, with a bias that starts at `initial` as the plain spans do
            share = torch.sigmoid(self.predict(x) + torch.logit(share, eps=0.02))
        return self.max_span * share

    def forward(self, x: Hidden, mask: Visible | None = None) -> Tensor:  # type: ignore[override]
        """`mask` must be None: a causal model pads on the right, which no real token sees."""
        allowed = "None: pad on the right, where causal tokens never look"
        require(mask is None, "mask", mask, allowed)
        require(x.numel() > 0, "x.shape", tuple(x.shape), "at least one token")
        T = x.shape[1]
        q, k, v = self.heads(x)
        self.spans = self.find_spans(x)
        self.reach = reach = min(math.ceil(self.spans.max().item() + self.ramp), self.max_span, T)
        # if blocks would save nothing, use one block of all queries
        block, before = (BLOCK, reach - 1) if BLOCK + reach - 1 < T else (T, 0)
        n_blocks = -(-T // block)
        after = n_blocks * block - T
        q = F.pad(q, (0, 0, 0, after)).unflatten(2, (n_blocks, block))  # (B,H,n,block,D)
        k, v = (F.pad(u, (0, 0, before, after)).unfold(2, block + before, block) for u in (k, v))
        bias = self.log_mask(n_blocks, block, before).to(q.dtype)
        # blocks count as heads: the fused kernels take four dimensions
        q, k, v, bias = (u.flatten(1, 2) for u in (q, k.mT, v.mT, bias))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        y = y.unflatten(1, (self.n_head, n_blocks)).flatten(2, 3)[:, :, :T]  # (B,H,T,D)
        return self.out(y.transpose(1, 2).flatten(2))

    def log_mask(self, n_blocks: Size, block: Size, before: Count) -> Tensor:
        """log m(x) for n blocks of queries and their windows of keys, (B|1,H,n,block,width).

        Added to the scores it is the soft mask with the softmax renormalized:
        softmax(s + log m) = m exp(s) / sum(m exp(s)).
        """
        device = self.spans.device
        row, column = (torch.arange(n, device=device) for n in (block, block + before))
        distance = row[:, None] + before - column  # (block,width), the same in every block
        spans = self.spans.transpose(1, 2)  # (1,H,1), or (B,H,T) where dynamic
        if self.dynamic:
            spans = F.pad(spans, (0, n_blocks * block - spans.shape[2]))
            spans = spans.unflatten(2, (n_blocks, block))[..., None]
            log_m = self.log_soft_mask(distance, spans)
        else:  # one logarithm per distance instead of one per pair
            by_distance, at = self.log_soft_mask(column, spans), distance.clamp_min(0)
            log_m = by_distance.index_select(-1, at.flatten())
            log_m = log_m.unflatten(-1, distance.shape)[:, :, None]
        first = torch.arange(n_blocks, device=device)[:, None, None] * block - before
        visible = (distance >= 0) & (first + column >= 0)  # (n,block,width): no future, no padding
        return torch.where(visible, log_m, -torch.inf)

    def log_soft_mask(self, distance: Numbers, spans: Tensor) -> Tensor:
        """log of the soft mask; minus infinity, with a gradient of zero, where the mask is 0."""
        _require_pairs(distance, "spans", spans)
        m = soft_mask(distance, spans, self.ramp)
        hidden = (m == 0) | (distance >= self.max_span)
        return m.clamp_min(1e-30).log().masked_fill(hidden, -torch.inf)


def from_attention(attention: Attention, max_span: Size, **options: Any) -> AdaptiveSpanAttention:
    """Adaptive-span attention with a causal attention's weights; `options` are the class's.

    With `initial=1` and at most max_span tokens it computes what the attention did.
    """
    require(attention.causal, "attention.causal", False, "a causal attention")
    name = type(attention).__name__
    require(type(attention) is Attention, "attention", name, "the plain Attention")
    d_model = attention.out.out_features
    same = attention.n_head * attention.head_dim == d_model
    require(same, "attention.head_dim", attention.head_dim, "heads that fill d_model (none pruned)")
    layer = AdaptiveSpanAttention(d_model, attention.n_head, max_span, **options)
    layer.qkv.load_state_dict(attention.qkv.state_dict())
    layer.out.load_state_dict(attention.out.state_dict())
    return layer.to(attention.qkv.weight)


def span_layers(model: nn.Module) -> list[AdaptiveSpanAttention]:
    """The model's adaptive-span attentions, first layer first."""
    return [m for m in model.modules() if isinstance(m, AdaptiveSpanAttention)]


def learned_spans(model: nn.Module) -> Tensor:
    """The spans of the last forward pass in tokens, (layers, heads); dynamic ones as their mean.

    They carry gradients: the paper's penalty is a weight times
    `learned_spans(model).mean(1).sum()`, each layer's mean over its heads, summed over layers.
    """
    layers = span_layers(model)
    require(bool(layers), "model", type(model).__name__, "a model with AdaptiveSpanAttention")
    require(layers[0].spans is not None, "model", "not run yet", "a model after a forward pass")
    return torch.stack([layer.spans.mean((0, 1)) for layer in layers])


def span_flops(d_model: Size, reach: int, n_tokens: Size) -> int:
    """FLOPs (2 per multiply-accumulate) of one layer's forward pass: four projections, the scores.

    `reach` is the number of keys per query: `n_tokens` gives plain attention's full scores.
    """
    require(0 <= reach <= n_tokens, "reach", reach, f"0 to n_tokens={n_tokens}")
    return int(2 * n_tokens * (4 * d_model**2 + 2 * d_model * reach))


check_module(__name__)
