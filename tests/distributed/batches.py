"""What the tests of parallel training compare on."""

import torch

SAME = 1e-6
"""Of the largest value: fp32 sums in another order."""


def random_ids(seed, n_rows=8, seq_len=16, vocab_size=300):
    """Ids (n_rows, seq_len), the same for a seed."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, (n_rows, seq_len), generator=rng)
