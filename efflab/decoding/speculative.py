"""Speculative decoding: a small model drafts, a large one checks several tokens at once.

What comes out is distributed as the large model alone would have it (Leviathan et al. 2023; Chen et
al. 2023).
"""

import torch
from torch import Tensor

from efflab.arguments import check_module
from efflab.errors import require
from efflab.model import Transformer, probabilities
from efflab.rules import Count, NonNegative, Size
from efflab.tensors import Ids, Integers, Matrix


@torch.no_grad()
def generate(
    target: Transformer,
    draft: Transformer,
    ids: Ids,
    n_new: Count,
    *,
    n_draft: Size = 4,
    temperature: NonNegative = 1.0,
    seed: Count = 0,
) -> tuple[Tensor, int]:
    """(ids (1, T + n_new), how many of the new tokens the draft had proposed).

    Each round the draft proposes up to `n_draft` tokens, and the target reads all in one pass.
    At temperature 0 the text is the target's own greedy one.
    """
    require(len(ids) == 1 and ids.numel() > 0, "ids.shape", tuple(ids.shape), "one row of tokens")
    sizes = target.config.vocab_size, draft.config.vocab_size
    require(sizes[0] == sizes[1], "draft", sizes[1], f"the target's vocabulary of {sizes[0]}")
    most, end = min(target.config.max_len, draft.config.max_len), ids.shape[1] + n_new
    require(end <= most, "n_new", n_new, f"up to max_len={most} tokens with the prompt's")
    rng = torch.Generator(ids.device).manual_seed(int(seed))
    caches, n_accepted = [model.new_cache(n_draft) for model in (target, draft)], 0
    while ids.shape[1] < end:
        n, proposal, guesses = min(n_draft, end - ids.shape[1] - 1), ids, []
        for _ in range(n):
            logits = draft(proposal[:, caches[1].n_seen :], cache=caches[1])[:, -1]
            guesses.append(probabilities(logits, temperature))
            new = torch.multinomial(guesses[-1], 1, generator=rng)
            proposal = torch.cat([proposal, new], dim=1)
        logits = target(proposal[:, caches[0].n_seen :], cache=caches[0])[0, -n - 1 :]
        p, drafts = probabilities(logits, temperature), proposal[0, ids.shape[1] :]
        n_good, last = accept(p, torch.cat([*guesses, p[:1]])[:n], drafts, rng)
        n_accepted += n_good
        ids = torch.cat([proposal[:, : ids.shape[1] + n_good], last.view(1, 1)], dim=1)
        for cache in caches:
            cache.truncate(min(cache.n_seen, ids.shape[1] - 1))
    return ids, n_accepted


def accept(p: Matrix, q: Matrix, drafts: Integers, rng: torch.Generator) -> tuple[int, Tensor]:
    """(how many of the n drafts stay, the token that follows them).

    `p` (n+1,V) is what the target would draw from, `q` (n,V) what the drafts were drawn from. A
    draft x stays with probability min(1, p(x) / q(x)); the first that does not is replaced by a
    draw from max(0, p - q), scaled to 1. The tokens are then distributed as p.
    """
    shape = len(p) - 1, p.shape[1]
    require(q.shape == shape, "q.shape", tuple(q.shape), f"{shape}, as p has")
    require(drafts.shape == (len(q),), "drafts.shape", tuple(drafts.shape), f"({len(q)},)")
    for i, draft in enumerate(drafts):
        if torch.rand((), generator=rng) * q[i, draft] >= p[i, draft]:
            left = (p[i] - q[i]).clamp(min=0)
            left = left if left.any() else p[i]  # in few bits nothing may be left
            return i, torch.multinomial(left, 1, generator=rng)
    return len(drafts), torch.multinomial(p[-1], 1, generator=rng)


check_module(__name__)
