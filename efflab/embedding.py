"""From ids to vectors and back: the two ends of a Transformer."""

import torch
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.config import ModelConfig
from efflab.errors import require
from efflab.grouped import make_norm
from efflab.rules import Count
from efflab.tensors import Ids, require_channels


class Embedding(nn.Module):
    """Token + position (+ type) embeddings: ids (B,T) -> (B,T,C).

    Where positions are rotary there is no table of them. An output that is not tied has its own.
    """

    READS_WEIGHTS = ("projection",)

    def __init__(self, config: ModelConfig):
        super().__init__()
        E = config.embed_dim
        self.d_model = config.d_model
        self.token = nn.Embedding(config.vocab_size, E)
        self.max_len, is_learned = config.max_len, config.positions == "learned"
        self.position = nn.Embedding(config.max_len, E) if is_learned else None
        self.segment = nn.Embedding(config.type_vocab, E) if config.type_vocab else None
        self.norm = nn.Identity() if config.is_norm_first else make_norm(config, E)
        self.projection = nn.Identity() if E == config.d_model else nn.Linear(E, config.d_model)
        self.head = None if config.tied else nn.Linear(E, config.vocab_size, bias=False)
        self.scale, self.logit_cap = E**0.5 if config.scaled_embedding else None, config.logit_cap

    def lookup(self, table: nn.Module, ids: Ids, name: str) -> Tensor:
        """A row per id. The error is made here because a max() check would break export."""
        try:
            return table(ids)
        except IndexError:
            low, high, allowed = int(ids.min()), int(ids.max()), table.num_embeddings - 1
            message = f"{name}: expected values in 0..{allowed}, got {low}..{high}"
            raise ValueError(message) from None

    def forward(self, ids: Ids, type_ids: Ids | None = None, start: Count = 0) -> Tensor:
        """Hidden (B,T,C) of ids at the positions from `start` on."""
        end = start + ids.shape[1]
        require(end <= self.max_len, "sequence length", end, f"at most max_len={self.max_len}")
        if type_ids is not None:
            require(self.segment is not None, "type_ids", type_ids, "None: the model has no types")
            shape = tuple(type_ids.shape)
            require(shape == tuple(ids.shape), "type_ids.shape", shape, "that of ids")
        x = self.lookup(self.token, ids, "ids")
        if self.scale is not None:
            x = x * self.scale
        if self.position is not None:
            x = x + self.position.weight[start:end]
        if self.segment is not None:
            types = torch.zeros_like(ids) if type_ids is None else type_ids
            x = x + self.lookup(self.segment, types, "type_ids")
        return self.projection(self.norm(x))

    def logits(self, x: Tensor) -> Tensor:
        """By the transposed token table or the head, no bias: hidden (B,T,C) -> (B,T,V)."""
        require_channels("x", x, self.d_model)
        if isinstance(self.projection, nn.Linear):
            x = x @ self.projection.weight
        logits = x @ self.token.weight.T if self.head is None else self.head(x)
        cap = self.logit_cap
        return logits if cap is None else cap * (logits / cap).tanh()


check_module(__name__)
