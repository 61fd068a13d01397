"""Somewhere to look: a learned sink (gpt-oss), or the first tokens beside a window (StreamingLLM).

Softmax gives away all of its weight. A head that finds nothing in its window puts it on the first
tokens, which a plain window throws away (Xiao et al. 2024).
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.cache import Cache, LayerCache, visible_keys
from efflab.config import ModelConfig
from efflab.errors import require
from efflab.grouped import GroupedAttention
from efflab.model import Attention, Transformer
from efflab.rules import Count, Size
from efflab.tensors import Heads, Hidden, Visible


class SinkAttention(GroupedAttention):
    """Grouped attention with a learned logit per head, which takes weight and gives no value.

    As in gpt-oss (OpenAI 2025).
    """

    def __init__(self, config: ModelConfig, window: Size | None = None):
        super().__init__(config, window)
        self.sinks = nn.Parameter(torch.zeros(config.n_head))

    def _attend(self, q: Heads, k: Heads, v: Heads, mask: Tensor | None) -> Tensor:
        k, v = (t.repeat_interleave(self.n_head // self.n_kv_head, dim=1) for t in (k, v))
        scores, cap = q @ k.mT * self.scale, self.soft_cap
        if cap is not None:
            scores = cap * (scores / cap).tanh()
        if mask is None and self.causal:
            mask = visible_keys(q.shape[2], k.shape[2], None, q.device)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(q.dtype).min)
        sinks = self.sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        return torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1] @ v

    _attend_capped = _attend


def with_sinks(model: Transformer) -> Transformer:
    """A copy of a model of grouped attention with a sink in each head, at 0 to begin with."""
    model = deepcopy(model)
    blocks = (layer.attention for layer in model.layers)
    # a dict: layers may share a block
    for block, window in dict(zip(blocks, model.config.windows, strict=True)).items():
        own = block.body
        require(type(own) is GroupedAttention, "attention", type(own).__name__, "GroupedAttention")
        block.body = SinkAttention(model.config, window).to(own.qkv.weight)
        for name, part in own.named_children():
            setattr(block.body, name, part)
    return model


class StreamingAttention(nn.Module):
    """Attention to the first `n_first` tokens and the last `window`, itself included."""

    def __init__(self, attention: Attention | GroupedAttention, window: Size, n_first: Count):
        super().__init__()
        self.attention, self.window, self.n_first = attention, window, n_first

    def forward(
        self, x: Hidden, mask: Visible | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """Without a cache by a mask; with a `StreamingLayerCache` token by token."""
        require(mask is None, "mask", mask, "None: texts without padding")
        if cache is not None:
            is_own = isinstance(cache, StreamingLayerCache)
            require(is_own, "cache", type(cache).__name__, "one of `streaming_cache`")
            return torch.cat([self.attention(token, None, cache) for token in x.split(1, 1)], 1)
        seen = visible_keys(x.shape[1], x.shape[1], self.window, x.device)
        seen[:, : self.n_first] = True
        return self.attention(x, seen[None, None])


class StreamingLayerCache(LayerCache):
    """The first `n_first` keys and values and the last `window`, however long the text is."""

    def __init__(self, window: Size, n_first: Count):
        super().__init__()
        self.last, self.n_first = window, n_first

    def extend(self, keys: Heads, values: Heads) -> tuple[Tensor, Tensor]:
        """What one new token may see; what is between first and last is gone."""
        require(keys.shape[2] == 1, "keys.shape", tuple(keys.shape), "one token")
        keys, values = super().extend(keys, values)
        if self.n_kept > self.n_first + self.last:
            ends = slice(self.n_first), slice(-self.last, None)
            keys, values = (torch.cat([t[:, :, end] for end in ends], 2) for t in (keys, values))
            self.keys, self.values = keys, values
        return keys, values

    def require_kept(self, n_tokens: Count) -> None:
        """Nothing is taken back: what it would see again is gone."""
        require(n_tokens == self.n_seen, "n_tokens", n_tokens, f"{self.n_seen}, all that it saw")


def with_streaming(model: Transformer, window: Size, n_first: Count = 4) -> Transformer:
    """A copy of a causal model, its weights as they are, whose tokens see first and last ones."""
    require(model.config.causal, "causal", False, "a causal model")
    model = deepcopy(model)
    for block in dict.fromkeys(layer.attention for layer in model.layers):
        block.body = StreamingAttention(block.body, window, n_first)
    return model


def streaming_cache(model: Transformer) -> Cache:
    """An empty cache for what `with_streaming` returned."""
    cache, bodies = model.new_cache(), [layer.attention.body for layer in model.layers]
    is_streaming = all(isinstance(body, StreamingAttention) for body in bodies)
    require(is_streaming, "model", type(bodies[0]).__name__, "StreamingAttention in every layer")
    cache.layers = [StreamingLayerCache(body.window, body.n_first) for body in bodies]
    return cache


check_module(__name__)
