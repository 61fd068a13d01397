"""Experts: each token goes through a few of many feed-forwards (Shazeer et al. 2017).

Routing as in Mixtral (Jiang et al. 2024, section 2.1): softmax over all experts, the largest
`n_active`, scaled to sum to 1.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.errors import require
from efflab.model import Transformer
from efflab.rules import Size
from efflab.tensors import Hidden, require_channels


class ExpertFeedForward(nn.Module):
    """`n_active` of the experts a token, weighted by the router: (B,T,C) -> (B,T,C)."""

    def __init__(self, experts: nn.ModuleList, d_model: Size, n_active: Size):
        require(n_active <= len(experts), "n_active", n_active, f"at most {len(experts)} experts")
        super().__init__()
        self.d_model, self.n_active, self.experts = d_model, n_active, experts
        self.router = nn.Linear(d_model, len(experts), bias=False)

    def route(self, x: Hidden) -> tuple[Tensor, Tensor]:
        """Each token's experts and their weights, both (B,T,n_active)."""
        weights, chosen = self.router(x).softmax(-1).topk(self.n_active, dim=-1)
        return chosen, weights / weights.sum(-1, keepdim=True)

    def forward(self, x: Hidden) -> Tensor:
        require_channels("x", x, self.d_model)
        (chosen, weights), y = self.route(x), torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            *token, place = (chosen == number).nonzero(as_tuple=True)
            if len(place) > 0:  # an expert without a token computes nothing
                own = weights[(*token, place)][:, None] * expert(x[tuple(token)])
                y = y.index_put(tuple(token), own, accumulate=True)
        return y


def with_experts(model: Transformer, n_expert: Size, n_active: Size) -> Transformer:
    """A copy with each feed-forward copied `n_expert` times, behind an untrained router.

    As its weights sum to 1, it computes what the model did (Komatsuzaki et al. 2023, upcycling).
    """
    model = deepcopy(model)
    for block in dict.fromkeys(layer.ffn for layer in model.layers):  # in order, for the seed
        copies = nn.ModuleList(deepcopy(block.body) for _ in range(n_expert))
        block.body = ExpertFeedForward(copies, model.config.d_model, n_active)
        block.body.router.to(block.norm.weight)
        nn.init.normal_(block.body.router.weight, std=0.02)
    return model


check_module(__name__)
