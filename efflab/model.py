"""One plain Transformer for every chapter.

A causal pre-norm decoder (GPT) or a post-norm encoder (BERT), by configuration, or a decoder of
today (its parts: `efflab.grouped`). Techniques change it from outside; nothing here knows them.
Shapes: B batch, T tokens, C channels (`d_model`), H heads, D channels of a head, V vocabulary.
"""

from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.cache import Cache, LayerCache, visible_keys
from efflab.config import ModelConfig
from efflab.embedding import Embedding
from efflab.errors import require, require_int, require_one_of
from efflab.grouped import (
    GatedFeedForward,
    GroupedAttention,
    is_plain,
    make_norm,
    require_computable,
)
from efflab.rules import Count, NonNegative, Size
from efflab.tensors import Heads, Hidden, Ids, Mask, Matrix, Visible, require_channels


def n_parameters(model: nn.Module) -> int:
    """Distinct parameters of any module; a shared one counts once."""
    return sum(p.numel() for p in model.parameters())


def activation_fn(activation: str) -> nn.Module:
    """The activation of that name: exact GELU, its tanh approximation (GPT-2), ReLU or SiLU."""
    activations = {"gelu": nn.GELU(), "gelu_tanh": nn.GELU(approximate="tanh"), "relu": nn.ReLU()}
    activations["silu"] = nn.SiLU()
    require_one_of("activation", activation, activations)
    return activations[activation]


def attention_written_out(q: Heads, k: Heads, v: Heads) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V as the formula is written: the scores (B,H,T,T) stand in memory.

    The fused kernel that `Attention` calls gives the same without them.
    """
    return attention_weights(q, k) @ v


def attention_weights(q: Heads, k: Heads) -> Tensor:
    """softmax(Q K^T / sqrt(D)): how much each query (row) takes of each key, (B,H,T,T)."""
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2): (B,T,C) -> (B,T,C).

    `qkv` makes queries, keys and values in one product; their rows are ordered q, k, v, and by
    head inside each. `n_head` and `head_dim` may be set apart from C, as pruned heads need.
    """

    def __init__(
        self, d_model: Size, n_head: Size, causal: bool = False, head_dim: Size | None = None
    ):
        divides = head_dim is not None or d_model % n_head == 0
        require(divides, "n_head", n_head, f"a divisor of d_model={d_model}")
        super().__init__()
        self.d_model, self.n_head, self.causal = d_model, n_head, causal
        self.head_dim = head_dim or d_model // n_head
        self.qkv = nn.Linear(d_model, 3 * n_head * self.head_dim)
        self.out = nn.Linear(n_head * self.head_dim, d_model)

    def heads(self, x: Hidden) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x, each (B,H,T,D)."""
        require_channels("x", x, self.d_model)
        B, T, _ = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, self.head_dim)
        return tuple(qkv.permute(2, 0, 3, 1, 4))

    def forward(
        self, x: Hidden, mask: Visible | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """`mask` (B,1,1,T) or (B,1,T,T), True = visible; with a cache x goes on where it ends."""
        q, k, v = self.heads(x)
        is_causal = self.causal and mask is None and cache is None
        if cache is not None:
            k, v = cache.extend(k, v)
        if self.causal and not is_causal:
            seen = visible_keys(q.shape[2], k.shape[2], None, x.device)
            mask = seen if mask is None else mask & seen
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
        return self.out(y.transpose(1, 2).flatten(2))  # (B,H,T,D) -> (B,T,H*D) -> (B,T,C)


class FeedForward(nn.Module):
    """Two linear maps with an activation between (Vaswani et al. 2017, equation 2)."""

    def __init__(self, d_model: Size, d_ff: Size, activation: str = "gelu", bias: bool = True):
        super().__init__()
        self.d_model = d_model
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.act = activation_fn(activation)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        require_channels("x", x, self.d_model)
        return self.down(self.act(self.up(x)))


class SubBlock(nn.Module):
    """A residual branch and its norm, before the branch (and after it: Gemma) or after the sum."""

    def __init__(self, body: nn.Module, config: ModelConfig):
        super().__init__()
        self.body = body
        self.norm = make_norm(config, config.d_model)
        self.norm_first = config.is_norm_first
        has_two = config.norms.per_layer == 4
        self.norm_after = make_norm(config, config.d_model) if has_two else nn.Identity()

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        require_channels("x", x, self.norm.normalized_shape[0])
        if self.norm_first:
            return x + self.norm_after(self.body(self.norm(x), *args))
        return self.norm(x + self.body(x, *args))


class Layer(nn.Module):
    """Attention, then feed-forward; either may be a sub-block that other layers use too."""

    def __init__(self, attention: SubBlock, ffn: SubBlock):
        super().__init__()
        self.attention = attention
        self.ffn = ffn

    def forward(
        self, x: Hidden, mask: Visible | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        args = (mask,) if cache is None else (mask, cache)
        return self.ffn(self.attention(x, *args))


class Transformer(nn.Module):
    """The model of every chapter; its parameter count is `cost.num_params(config)`.

    >>> model = Transformer(ModelConfig(2, 4, 64, 256, 1000, 128, causal=True))
    >>> model(torch.zeros(1, 16, dtype=torch.long)).shape
    torch.Size([1, 16, 1000])
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        require_computable(config)
        self.config = config
        self.embedding = Embedding(config)
        shared_attention, shared_ffn = self._attention(), self._ffn()
        self.layers = nn.ModuleList(
            Layer(
                shared_attention if config.share in ("attention", "all") else self._attention(i),
                shared_ffn if config.share in ("ffn", "all") else self._ffn(),
            )
            for i in range(config.n_layer)
        )
        final = make_norm(config, config.d_model)
        self.final_norm = final if config.is_norm_first else nn.Identity()
        self.pooler: Any = nn.Linear(config.d_model, config.d_model) if config.pooler else None
        self.apply(self._init)

    def _attention(self, layer: int = 0) -> SubBlock:
        c = self.config
        if is_plain(c):
            return SubBlock(Attention(c.d_model, c.n_head, c.causal), c)
        return SubBlock(GroupedAttention(c, c.windows[layer]), c)

    def _ffn(self) -> SubBlock:
        c, sizes = self.config, (self.config.d_model, self.config.d_ff)
        if not c.feed_forward.gated:
            return SubBlock(FeedForward(*sizes, c.activation, c.feed_forward.bias), c)
        act = activation_fn(c.activation)
        return SubBlock(GatedFeedForward(*sizes, act, c.feed_forward.bias), c)

    @staticmethod
    def _init(module: nn.Module) -> None:
        """GPT-2's and BERT's initialization: normal with 0.02, biases zero."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def encode(
        self,
        ids: Ids,
        attention_mask: Mask | None = None,
        type_ids: Ids | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states (B,T,C) of ids (B,T). `attention_mask` (B,T): nonzero = a real token.

        With a cache (`new_cache`) the ids go on after those that it has seen, and are added to it.
        An id outside the vocabulary, or more than `max_len` tokens, is a `ValueError`.
        """
        if attention_mask is not None:
            shape = tuple(attention_mask.shape)
            require(shape == tuple(ids.shape), "attention_mask.shape", shape, "that of ids")
            require(cache is None, "attention_mask", shape, "None with a cache")
        n, n_own = len(self.layers), len(self.layers if cache is None else cache.layers)
        require(n == n_own, "cache.layers", n_own, f"{n}")
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        x = self.embedding(ids, type_ids, 0 if cache is None else cache.n_seen)
        for i, layer in enumerate(self.layers):
            x = layer(x, mask) if cache is None else layer(x, mask, cache.layers[i])
        return self.final_norm(x)

    def forward(
        self, ids: Ids, attention_mask: Mask | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Logits (B,T,V): of the next token for a causal model, of the token itself otherwise."""
        return self.embedding.logits(self.encode(ids, attention_mask, cache=cache))

    def new_cache(self, n_spare: Count = 0) -> Cache:
        """An empty cache for `encode`; its last `n_spare` tokens can be taken back."""
        require(self.config.causal, "causal", False, "a causal model")
        for layer in self.layers:
            body = layer.attention.body
            takes_one = "cache" in signature(body.forward).parameters
            require(takes_one, "attention", type(body).__name__, "one that takes a cache")
        return Cache(self.config.windows, n_spare)

    def pool(self, hidden: Hidden) -> Tensor:
        """BERT's sentence vector (B,C): a tanh layer on the first token's hidden state."""
        require(self.pooler is not None, "pooler", None, "a config with pooler=True")
        return torch.tanh(self.pooler(hidden[:, 0]))

    @torch.no_grad()
    def generate(
        self,
        ids: Ids,
        n_new: Count,
        *,
        cache: bool | Cache = True,
        temperature: NonNegative = 1.0,
        top_k: int | None = None,
        seed: Count = 0,
    ) -> Tensor:
        """Continue ids (B,T) by `n_new` sampled tokens: (B, T + n_new). temperature 0 is greedy.

        With a cache each token is computed once, and there are at most `max_len`; a cache of the
        caller's may have seen the first of the ids. Without one the last `max_len` tokens are
        computed anew for each new one. `top_k`: sample only among the k likeliest tokens.
        """
        require(self.config.causal, "causal", False, "a causal model")
        if top_k is not None:
            require_int("top_k", top_k, 1, self.config.vocab_size)
        require(ids.numel() > 0, "ids.shape", tuple(ids.shape), "at least one token to go on from")
        most = self.config.max_len - ids.shape[1]
        allowed = "at most {most}, up to max_len, or cache=False"
        require(not cache or n_new <= most, "n_new", n_new, allowed, most=most)
        require(isinstance(cache, bool | Cache), "cache", cache, "True, False or a Cache")
        seen = self.new_cache() if cache is True else cache or None
        n_seen = seen.n_seen if seen is not None else 0
        require(n_seen < ids.shape[1], "cache", n_seen, "fewer tokens seen than there are ids")
        rng = torch.Generator(ids.device).manual_seed(int(seed))
        for _ in range(n_new):
            unseen = ids[:, -self.config.max_len :] if seen is None else ids[:, seen.n_seen :]
            hidden = self.encode(unseen, cache=seen)[:, -1:]
            logits = self.embedding.logits(hidden)[:, 0]
            new = torch.multinomial(probabilities(logits, temperature, top_k), 1, generator=rng)
            ids = torch.cat([ids, new], dim=1)
        return ids


def probabilities(
    logits: Matrix, temperature: NonNegative = 1.0, top_k: Size | None = None
) -> Tensor:
    """What the next token is drawn from, (B,V): 1 for the likeliest at temperature 0."""
    if top_k is not None:
        require_int("top_k", top_k, 1, logits.shape[-1])
        kth = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if temperature < torch.finfo(logits.dtype).tiny:  # greedy: the quotient would overflow
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    below = logits - logits.amax(-1, keepdim=True)  # at most 0: no inf - inf in softmax
    return (below / float(temperature)).softmax(-1)


check_module(__name__)
