"""What the tests of parallel training compare on."""

from dataclasses import replace

import torch

from efflab.cost import num_params

SAME = 1e-6
"""Of the largest value: fp32 sums in another order."""


def random_ids(seed, n_rows=8, seq_len=16, vocab_size=300):
    """Ids (n_rows, seq_len), the same for a seed."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, (n_rows, seq_len), generator=rng)


def held_params(config, n_ranks):
    """Parameters per rank: matrices and column-cut biases are shared out, all else is whole."""
    C, d_ff = config.d_model, config.d_ff
    n_attention = 1 if config.share in ("attention", "all") else config.n_layer
    n_ffn = 1 if config.share in ("ffn", "all") else config.n_layer
    cut = n_attention * (4 * C * C + 3 * C) + n_ffn * (2 * C * d_ff + d_ff)
    return num_params(replace(config, pooler=False)) - cut + cut // n_ranks
