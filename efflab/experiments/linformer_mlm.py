"""What Linformer's k costs a network that is trained with it: masked-token loss on Python source.

For every seed the same initial weights, batches and masked tokens, so that within a seed two runs
differ in k alone. k = 1 gives every token the same one summary: what is left without attention.
"""

from statistics import mean

import torch
import torch.nn.functional as F

from efflab import data, train
from efflab.config import ModelConfig
from efflab.errors import require_int
from efflab.experiments.record import record
from efflab.model import Transformer
from efflab.structure.linformer import linformer

NAME = "linformer-mlm"
CONFIG = ModelConfig(4, 4, 64, 256, 2048, 128, norm_first=True)
MASK = 0  # the file marker, which stands in no text
SHARE, BATCH_SIZE, N_STEPS, N_WINDOWS = "heads", 4, 300, 64
SEEDS = (0, 1)
LENGTHS = (1, 8, 32, None)


def masked(ids: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B,T) with 15 % replaced by `MASK`; and the ids to guess there, -100 elsewhere."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.rand(ids.shape, generator=rng) < 0.15
    return ids.masked_fill(hidden, MASK), ids.masked_fill(~hidden, -100)


def loss_of(model: torch.nn.Module, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of the masked tokens."""
    return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), ignore_index=-100)


def held_out_loss(k: int | None, seed: int = 0, n_steps: int = N_STEPS) -> float:
    """Loss (nats a masked token) on held-out modules after `n_steps` with k summaries.

    None is full attention. 4 layers of 64 channels, windows of 128 tokens, Muon.
    """
    require_int("seed", seed, 0)
    torch.manual_seed(seed)
    model = Transformer(CONFIG)
    if k is not None:
        model = linformer(model, CONFIG.max_len, k, SHARE)
    stream, T = data.stdlib_tokens("train"), CONFIG.max_len

    def batch(step):
        number = seed * 10**6 + step
        return masked(data.random_windows(stream, BATCH_SIZE, T, number)[0], number)

    optimizers = train.muon(model, lr=1e-2, adam_lr=5e-3)
    train.fit(model, batch, n_steps, optimizers=optimizers, loss_fn=loss_of)
    held_out, _ = data.random_windows(data.stdlib_tokens("held-out"), N_WINDOWS, T, 0)
    with torch.no_grad():
        return loss_of(model, *masked(held_out, 0)).item()


def run() -> dict:
    """Every k with every seed; recorded as data/experiments/linformer-mlm."""
    runs = []
    for seed in SEEDS:
        for k in LENGTHS:
            runs.append(dict(k=k, seed=seed, loss=round(held_out_loss(k, seed), 4)))
            print(runs[-1], flush=True)
    settings = dict(n_layer=CONFIG.n_layer, d_model=CONFIG.d_model, seq_len=CONFIG.max_len)
    settings |= dict(share=SHARE, batch_size=BATCH_SIZE, n_steps=N_STEPS, n_windows=N_WINDOWS)
    return record(NAME, settings=settings, seeds=SEEDS, runs=runs)


def by_length(runs: list[dict]) -> dict[int | None, dict[str, float]]:
    """k (None: full attention) -> mean, low and high loss over the seeds."""
    summary = {}
    for k in dict.fromkeys(run["k"] for run in runs):
        losses = [run["loss"] for run in runs if run["k"] == k]
        summary[k] = dict(mean=mean(losses), low=min(losses), high=max(losses))
    return summary
