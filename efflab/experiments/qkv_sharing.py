"""Loss against the number of layers that share one QKV projection.

For every seed the same initial weights and the same batches, so that within a seed two numbers of
sharing layers differ in the sharing alone. Small and short on purpose: a run fits in a notebook.
"""

from itertools import product
from statistics import mean, stdev

import torch

from efflab import train
from efflab.bench import one_thread
from efflab.config import ModelConfig
from efflab.errors import require, require_int
from efflab.experiments.record import by_seed, round_floats, run_cases
from efflab.experiments.training import held_out_loss, training_windows
from efflab.model import Transformer
from efflab.structure.sharing import share_qkv

NAME = "qkv-sharing"
CONFIG = ModelConfig(6, 4, 64, 256, 2048, 128, causal=True)
BATCH_SIZE, N_STEPS, N_WINDOWS = 4, 250, 64
EARLY = 75  # a run is also evaluated after these first steps, which a notebook repeats
SEEDS = (0, 1, 2)
COUNTS = (1, 3, 6, 4, 2)  # none, half and all of the layers first


def validation_loss(n_shared: int, seed: int = 0, stop: int = N_STEPS) -> float:
    """Held-out loss (nats a token) of a small model trained with `n_shared` layers' QKV shared.

    Trained from scratch for `stop` of 250 steps of 4 windows of 128 tokens; the loss is the mean
    over 64 held-out windows that are the same for every run.
    """
    require_int("n_shared", n_shared)
    require(n_shared <= CONFIG.n_layer, "n_shared", n_shared, "at most {high}", high=CONFIG.n_layer)
    require_int("seed", seed, 0)
    torch.manual_seed(seed)
    return trained_loss(share_qkv(Transformer(CONFIG), n_shared), seed, N_STEPS, stop)


def trained_loss(
    model: Transformer, seed: int, n_steps: int, stop: int | None = None, n_windows: int = N_WINDOWS
) -> float:
    """Held-out loss after `stop` of `n_steps` of training; a seed has the same batches for all."""
    batch = training_windows(BATCH_SIZE, CONFIG.max_len, seed * 10**6)
    with one_thread():
        optimizers = train.muon(model, lr=1e-2, adam_lr=5e-3)
        train.fit(model, batch, n_steps, optimizers=optimizers, stop=stop)
    return held_out_loss(model, n_windows, CONFIG.max_len)


def run_one(n_shared: int, seed: int) -> dict:
    """Loss early in the training and at its end."""
    early, loss = (validation_loss(n_shared, seed, stop) for stop in (EARLY, N_STEPS))
    return round_floats(dict(early=early, loss=loss))


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every number of sharing layers with every seed; recorded as data/experiments/qkv-sharing."""
    settings = dict(n_layer=CONFIG.n_layer, d_model=CONFIG.d_model, seq_len=CONFIG.max_len)
    settings |= dict(batch_size=BATCH_SIZE, n_steps=N_STEPS, early=EARLY, n_windows=N_WINDOWS)
    cases = [dict(n_shared=n, seed=seed) for n, seed in product(COUNTS, SEEDS)]
    return run_cases(NAME, cases, run_one, settings=settings, fresh=fresh)


def by_count(runs: list[dict], what: str = "loss") -> dict[int, dict[str, float]]:
    """n_shared -> mean, sd, low, high of the loss over seeds, and of the loss minus that at 1.

    `what`: "loss" at the end, or "early". `cost` is the mean of the differences within a seed and
    `cost_sd` their standard deviation.
    """
    losses, summary = by_seed(runs, "n_shared", what), {}
    for n, values in sorted(losses.items()):
        costs = [loss - base for loss, base in zip(values, losses[1], strict=True)]
        summary[n] = dict(mean=mean(values), low=min(values), high=max(values), cost=mean(costs))
        spread = stdev if len(values) > 1 else lambda _: 0.0
        summary[n] |= dict(sd=spread(values), cost_sd=spread(costs))
    return summary
