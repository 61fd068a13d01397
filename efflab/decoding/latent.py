"""Latent attention: all heads' keys and values come from one narrow vector, which is cached.

(DeepSeek-AI 2024, section 2.1.) *Expanded*, keys and values of each head are made from it, and
attention is the usual one; good for a prompt. *Absorbed*, the maps that would make them go into the
query and the output, and the heads attend to the narrow vectors themselves: good for one token,
which then reads what is cached and nothing else. Both give the same.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.cache import LayerCache, visible_keys
from efflab.config import Attention, ModelConfig
from efflab.errors import require
from efflab.grouped import make_norm
from efflab.model import Transformer
from efflab.rope import frequencies, turn, turns
from efflab.tensors import Hidden, Visible, require_channels


class LatentAttention(nn.Module):
    """Causal attention as `config.attention.latent` has it: (B,T,C) -> (B,T,C).

    The cache holds the narrow vectors (B,1,S,kv_rank) as keys, and the rotary keys that all heads
    share, (B,1,S,rope_dim), as values. `absorbed` None: where it is less work, for few queries.
    """

    READS_WEIGHTS = ("kv_up",)

    def __init__(self, config: ModelConfig, absorbed: bool | None = None):
        latent: Any = config.attention.latent
        require(latent is not None, "attention.latent", latent, "a Latent")
        require(config.causal, "causal", False, "a causal model")
        is_alone = config.attention == Attention(bias="none", latent=latent)
        allowed = 'Attention(bias="none", latent=...): the rest is not computed'
        require(is_alone, "attention", config.attention, allowed)
        super().__init__()
        self.absorbed, self.n_head, self.latent = absorbed, config.n_head, latent
        self.d_model = config.d_model
        C, H, d = config.d_model, config.n_head, latent.nope_dim + latent.rope_dim
        is_narrow = latent.q_rank is not None
        self.q_down = nn.Linear(C, latent.q_rank, bias=False) if is_narrow else nn.Identity()
        self.q_norm = make_norm(config, latent.q_rank, False) if is_narrow else nn.Identity()
        self.q_up = nn.Linear(latent.q_rank or C, H * d, bias=False)
        self.kv_down = nn.Linear(C, latent.kv_rank + latent.rope_dim, bias=False)
        self.kv_norm = make_norm(config, latent.kv_rank, False)
        self.kv_up = nn.Linear(latent.kv_rank, H * (latent.nope_dim + latent.v_dim), bias=False)
        self.out = nn.Linear(H * latent.v_dim, C, bias=False)
        self.radians, self.scale = frequencies(config.rope, latent.rope_dim), d**-0.5

    def forward(
        self, x: Hidden, mask: Visible | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """`mask` (B,1,1,T) or (B,1,T,T), True = visible; with a cache x goes on where it ends."""
        require_channels("x", x, self.d_model)
        latent, start = self.latent, 0 if cache is None else cache.n_seen
        by = turns(self.radians, start, x.shape[1], x)
        q = self.q_up(self.q_norm(self.q_down(x))).unflatten(-1, (self.n_head, -1)).transpose(1, 2)
        q, q_turned = q.split([latent.nope_dim, latent.rope_dim], dim=-1)
        c, k_turned = self.kv_down(x)[:, None].split([latent.kv_rank, latent.rope_dim], dim=-1)
        q_turned, k_turned, c = turn(q_turned, by), turn(k_turned, by), self.kv_norm(c)
        if cache is not None:
            c, k_turned = cache.extend(c, k_turned)
        seen = visible_keys(q.shape[2], c.shape[2], None, x.device)
        absorbed = q.shape[2] < c.shape[2] if self.absorbed is None else self.absorbed
        attend = self._absorbed if absorbed else self._expanded
        y = attend(q, q_turned, c, k_turned, seen if mask is None else mask & seen)
        return self.out(y.transpose(1, 2).flatten(2))

    def _expanded(self, q: Tensor, q_turned: Tensor, c: Tensor, k_turned: Tensor, seen: Tensor):
        kv = self.kv_up(c[:, 0]).unflatten(-1, (self.n_head, -1)).transpose(1, 2)
        k, v = kv.split([self.latent.nope_dim, self.latent.v_dim], dim=-1)
        k = torch.cat([k, k_turned.expand(-1, self.n_head, -1, -1)], dim=-1)
        q = torch.cat([q, q_turned], dim=-1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=self.scale)

    def _absorbed(self, q: Tensor, q_turned: Tensor, c: Tensor, k_turned: Tensor, seen: Tensor):
        up = self.kv_up.weight.unflatten(0, (self.n_head, -1))
        k_up, v_up = up.split([self.latent.nope_dim, self.latent.v_dim], dim=1)  # (H,D,rank)
        # heads and tokens are rows of one product: c would be copied for each head otherwise
        rows, c, k_turned = (q @ k_up).flatten(1, 2), c[:, 0], k_turned[:, 0]
        scores = self.scale * (rows @ c.mT + q_turned.flatten(1, 2) @ k_turned.mT)
        scores = scores.unflatten(1, (self.n_head, -1))
        scores = scores.masked_fill(~seen, torch.finfo(q.dtype).min)
        return (scores.softmax(-1).flatten(1, 2) @ c).unflatten(1, (self.n_head, -1)) @ v_up.mT


def latent_model(config: ModelConfig, absorbed: bool | None = None) -> Transformer:
    """A new Transformer with latent attention; its parameters are `cost.num_params(config)`."""
    model = Transformer(replace(config, attention=Attention(bias="none", head_dim=2)))
    for layer in model.layers:
        layer.attention.body = LatentAttention(config, absorbed).apply(Transformer._init)
    model.config = config
    return model


check_module(__name__)
