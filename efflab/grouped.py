"""Attention and feed-forward of today's decoders: Llama, Qwen3, Gemma 3 and their like.

`efflab.model` builds them where a config asks for more than the plain ones.
"""

from operator import attrgetter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.cache import LayerCache, visible_keys
from efflab.config import Attention, ModelConfig
from efflab.errors import require
from efflab.rope import SCALINGS, frequencies, turn, turns
from efflab.rules import Size
from efflab.tensors import Heads, Hidden, Visible, require_channels


def make_norm(config: ModelConfig, width: Size, bias: bool = True) -> nn.Module:
    """LayerNorm, or RMSNorm, which has no mean and no bias (Zhang and Sennrich 2019)."""
    if config.norms.kind == "rms":
        return nn.RMSNorm(width, eps=config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.norms.bias and bias)


def is_plain(config: ModelConfig) -> bool:
    """Whether its attention is Vaswani et al.'s, at learned positions: `efflab.model.Attention`."""
    return config.attention == Attention() and config.positions == "learned"


PLAIN = """experts position_rows head_bias parallel embed_maps attention.latent attention.sinks
attention.distance_buckets norms.embedding norms.final norms.first""".split()
"""Fields of a config that `efflab.model.Transformer` computes at their defaults alone; other values
are for techniques."""
OPTIONS: dict[str, tuple] = {"attention.qk_norm": ("none", "head"), "rope.scaling": SCALINGS}
OPTIONS |= {"positions": ("learned", "rotary"), "norms.kind": ("layer", "rms")}
OPTIONS["norms.per_layer"] = (2, 4)
"""Fields of which it computes several values, and which."""


def require_computable(config: ModelConfig) -> None:
    """Refuse by name what `efflab.model.Transformer` does not compute."""
    default = ModelConfig(1, 1, 1, 1, 1, 1)
    for name in (*PLAIN, *OPTIONS):
        value, values = attrgetter(name)(config), OPTIONS.get(name, (attrgetter(name)(default),))
        options = " or ".join(map(repr, values))
        require(value in values, name, value, f"{options}: Transformer has no other")
    name, windows = "attention.windows", set(config.windows)
    is_one = config.share in ("none", "ffn") or len(windows) == 1
    require(is_one, name, config.attention.windows, "one for layers that share it")
    has_none = config.causal or windows == {None}
    require(has_none, name, config.attention.windows, "no window in an encoder")
    fits = config.is_norm_first or config.norms.per_layer == 2
    require(fits, "norms.per_layer", config.norms.per_layer, "2 where norms come last")


class GroupedAttention(nn.Module):
    """Self-attention whose n_head / n_kv_head queries share a head of keys and values: (B,T,C).

    (Ainslie et al. 2023.) As the config has it: queries and keys normalized (Henry et al. 2020) and
    turned by their positions; keys up to a window; scores bounded by a cap. The rows of `qkv` are
    ordered q, k, v, and by head inside each.
    """

    def __init__(self, config: ModelConfig, window: Size | None = None):
        super().__init__()
        c = config.attention
        self.d_model, self.causal, self.window = config.d_model, config.causal, window
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.head_dim = config.head_dim
        D, width = self.head_dim, self.n_head * self.head_dim
        n_rows = width + 2 * self.n_kv_head * D
        self.qkv = nn.Linear(config.d_model, n_rows, bias=c.bias in ("all", "qkv"))
        self.out = nn.Linear(width, config.d_model, bias=c.bias in ("all", "out"))
        has_norm, has_bias = c.qk_norm == "head", c.qk_norm_bias
        self.q_norm = make_norm(config, D, has_bias) if has_norm else nn.Identity()
        self.k_norm = make_norm(config, D, has_bias) if has_norm else nn.Identity()
        is_rotary, is_local = config.positions == "rotary", window is not None
        self.radians = frequencies(config.rope, D, is_local) if is_rotary else None
        self.scale, self.soft_cap = (c.query_dim or D) ** -0.5, c.soft_cap

    def heads(self, x: Hidden, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B,H,T,D), keys and values (B,G,T,D) of x, which begins at position `start`."""
        require_channels("x", x, self.d_model)
        groups = self.n_head, self.n_kv_head, self.n_kv_head
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.head_dim)).split(groups, dim=2)
        q, k, v = self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2), v.transpose(1, 2)
        if self.radians is not None:
            by = turns(self.radians, start, x.shape[1], x)
            q, k = turn(q, by), turn(k, by)
        return q, k, v

    def forward(
        self, x: Hidden, mask: Visible | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """`mask` (B,1,1,T) or (B,1,T,T), True = visible; with a cache x goes on where it ends."""
        q, k, v = self.heads(x, 0 if cache is None else cache.n_seen)
        # the kernel's own mask is for as many keys as queries, all of the past
        is_plain = mask is None and cache is None and self.window is None and self.soft_cap is None
        if cache is not None:
            k, v = cache.extend(k, v)
        if self.causal and not is_plain:
            seen = visible_keys(q.shape[2], k.shape[2], self.window, x.device)
            mask = seen if mask is None else mask & seen
        attend = self._attend if self.soft_cap is None else self._attend_capped
        return self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))

    def _attend(self, q: Heads, k: Heads, v: Heads, mask: Tensor | None) -> Tensor:
        """softmax(Q K^T scale) V over the keys of each query's group: (B,H,T,D)."""
        options = dict(attn_mask=mask, is_causal=self.causal and mask is None, scale=self.scale)
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options)

    def _attend_capped(self, q: Heads, k: Heads, v: Heads, mask: Tensor | None) -> Tensor:
        """The same with scores between -`soft_cap` and `soft_cap`, which no fused kernel does."""
        k, v = (t.repeat_interleave(self.n_head // self.n_kv_head, dim=1) for t in (k, v))
        scores = self.soft_cap * (q @ k.mT * (self.scale / self.soft_cap)).tanh()
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(-1) @ v


class GatedFeedForward(nn.Module):
    """down(act(gate(x)) * up(x)), as SwiGLU and GeGLU (Shazeer 2020): (B,T,C)."""

    def __init__(self, d_model: Size, d_ff: Size, act: nn.Module, bias: bool = False):
        super().__init__()
        self.d_model = d_model
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.act = act
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        require_channels("x", x, self.d_model)
        return self.down(self.act(self.gate(x)) * self.up(x))


check_module(__name__)
