"""Legal arguments of the decoding chapter: see `legal_calls`."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from efflab.config import Attention, Latent, ModelConfig
from efflab.decoding import batching, experts, latent, quantized_cache, sinks
from efflab.grouped import GroupedAttention
from efflab.model import Attention as PlainAttention
from efflab.model import FeedForward, Transformer

CONFIG = ModelConfig(2, 2, 8, 16, 20, 12, causal=True)
LATENT = replace(CONFIG, attention=Attention(bias="none", latent=Latent(4, 4, 2, 4)))


@cache
def rotary() -> Transformer:
    torch.manual_seed(0)
    return Transformer(replace(CONFIG, positions="rotary")).eval()


@cache
def streaming() -> Transformer:
    torch.manual_seed(0)
    return sinks.with_streaming(Transformer(CONFIG).eval(), 4, 1)


def feed_forwards() -> nn.ModuleList:
    return nn.ModuleList(FeedForward(8, 16) for _ in range(4))


def one_token() -> torch.Tensor:
    return torch.ones(1, 2, 1, 4)


def quantized_layer() -> quantized_cache.QuantizedLayerCache:
    return quantized_cache.QuantizedLayerCache(4, 4)


BY_TYPE: dict[Any, Callable[[], Any]] = {
    torch.Generator: lambda: torch.Generator().manual_seed(0),
    nn.ModuleList: feed_forwards,
    Callable[[int], float]: lambda: float,
    PlainAttention | GroupedAttention: lambda: PlainAttention(8, 2, causal=True),
    batching.Request: lambda: batching.Request(0.0, 2, 2),
}
BY_NAME: dict[str, Callable[[], Any]] = {}
BY_FUNCTION: dict[str, dict[str, Callable[[], Any]]] = {
    "decoding.batching.serve": {"n_slots": lambda: 8},
    "decoding.experts.ExpertFeedForward": {"d_model": lambda: 8},
    "decoding.latent.LatentAttention": {"config": lambda: LATENT},
    "decoding.latent.latent_model": {"config": lambda: LATENT},
    "decoding.quantized_cache.Codes": {"bits": lambda: 4, "dim": lambda: 3},
    "decoding.sinks.with_sinks": {"model": rotary},
    "decoding.sinks.streaming_cache": {"model": streaming},
    "decoding.sinks.StreamingLayerCache.extend": {"keys": one_token, "values": one_token},
    "decoding.sinks.StreamingLayerCache.truncate": {"n_tokens": lambda: 0},
    "decoding.speculative.accept": {
        "p": lambda: torch.full((2, 4), 0.25),
        "q": lambda: torch.full((1, 4), 0.25),
        "drafts": lambda: torch.ones(1, dtype=torch.long),
    },
}
BY_OWNER: dict[str, Callable[[], Any]] = {
    "decoding.experts.ExpertFeedForward": lambda: experts.ExpertFeedForward(feed_forwards(), 8, 2),
    "decoding.latent.LatentAttention": lambda: latent.LatentAttention(LATENT),
    "decoding.quantized_cache.QuantizedLayerCache": quantized_layer,
    "decoding.sinks.StreamingLayerCache": lambda: sinks.StreamingLayerCache(4, 1),
}
