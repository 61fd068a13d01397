"""Loss of small masked language models: Linformer trained with its projections, full attention.

Bytes of the standard library, of which a share is masked and asked for. Every seed trains its own
models on its own batches and judges them by its own held-out windows, both the same for all
variants, so that an interval over seeds covers texts too. The controls, which have to be worse than
full attention: a mean of all tokens in attention's place, and projections that are fitted to
convergence in a network that was trained without them and does not adapt. "started", added after
the others had been run for some seeds, decides nothing: E and F are trained from segment means on.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import data, train
from efflab.config import ModelConfig
from efflab.errors import require_one_of
from efflab.estimate import Estimate
from efflab.experiments.record import round_floats
from efflab.experiments.variants import paired_losses
from efflab.model import Transformer
from efflab.structure.linformer import linformer, segment_means

MASK, MASKED = 256, 0.3
"""The id that stands in a masked byte's place, and the share of bytes that are masked."""
CONFIG = ModelConfig(2, 4, 64, 256, MASK + 1, 128, norm_first=True)
BATCH_SIZE, N_STEPS, N_WINDOWS = 16, 700, 256
LR, ADAM_LR, SHARE = 2e-2, 5e-3, "heads"
QUARTER = CONFIG.max_len // 4
SUMMARIES = {"eighth": QUARTER // 2, "quarter": QUARTER, "half": 2 * QUARTER}
TRAINED = ("full", *SUMMARIES, "means", "uniform", "started")
VARIANTS = ("full", "fitted", *TRAINED[1:])
"""In the order of the runs: "fitted" goes on from the model that "full" has trained."""
ROUND, FALL, MAX_ROUNDS = 200, 0.01, 4
"""A fit goes on in rounds of so many steps until one lowers the loss by less than so many nats."""
CASES = {f"trained-{variant}": (variant, "full") for variant in VARIANTS[1:]}
CASES |= {"trained-over-means": ("quarter", "means"), "started-over-means": ("started", "means")}
"""Id of evidence -> whose loss, less whose."""


@lru_cache(maxsize=2)
def stdlib_bytes(split: str) -> np.ndarray:
    """A split of the library as one stream of bytes (int64), files apart by a zero."""
    text = "\0".join(text for _, text in data.stdlib_files(split))
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)


def masked_windows(split: str, n_windows: int, seed: int) -> train.Batch:
    """`hide` of random windows of a split."""
    return hide(data.random_windows(stdlib_bytes(split), n_windows, CONFIG.max_len, seed)[0], seed)


def hide(ids: Tensor, seed: int, mask: int = MASK) -> train.Batch:
    """Ids (B,T) with some of them masked, and those ids (B,T); -100 where none is asked for."""
    is_masked = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < MASKED
    return ids.masked_fill(is_masked, mask), ids.masked_fill(~is_masked, -100)


def masked_loss(model: nn.Module, ids: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the masked bytes; logits are made for these alone."""
    is_masked = targets >= 0
    logits = model.embedding.logits(model.encode(ids)[is_masked])
    return F.cross_entropy(logits, targets[is_masked])


def make(variant: str, seed: int, config: ModelConfig = CONFIG) -> Transformer:
    """The untrained model of one of `TRAINED`; what they have in common starts with equal weights.

    "means": E and F stay the means of as many segments as "quarter" has summaries; "started": they
    start there; "uniform": they stay the mean of the whole window.
    """
    require_one_of("variant", variant, TRAINED)
    torch.manual_seed(seed)
    model, n = Transformer(config), config.max_len
    if variant == "full":
        return model
    if variant in SUMMARIES:
        return linformer(model, n, n * SUMMARIES[variant] // CONFIG.max_len, SHARE)
    model = with_means(model, 1 if variant == "uniform" else n // 4)
    for projection in projections(model):
        projection.requires_grad_(variant == "started")
    return model


def with_means(model: Transformer, k: int) -> Transformer:
    """The model as a Linformer whose E and F are the means of k segments."""
    n = model.config.max_len
    model = linformer(model, n, k, SHARE)
    for projection in projections(model):
        projection.data = segment_means(k, n)[None]
    return model


def projections(model: Transformer) -> list[nn.Parameter]:
    """E and F of all layers."""
    bodies = [layer.attention.body for layer in model.layers]
    return [projection for body in bodies for projection in (body.E, body.F)]


def batches(seed: int, first: int = 0) -> Callable[[int], train.Batch]:
    """A function from a step, counted from `first`, to the seed's batch, alike for all variants."""
    return lambda step: masked_windows("train", BATCH_SIZE, seed * 10**6 + first + step)


@lru_cache(maxsize=1)
def train_variant(variant: str, seed: int, stop: int = N_STEPS) -> Transformer:
    """The model of one of `TRAINED` after `stop` of `N_STEPS` steps."""
    return train_masked(make(variant, seed), batches(seed), stop)


def train_masked(
    model: Transformer, batch: Callable[[int], train.Batch], stop: int = N_STEPS
) -> Transformer:
    """Train a model in place for `stop` of `N_STEPS` steps; returns it."""
    optimizers = train.muon(model, lr=LR, adam_lr=ADAM_LR)
    train.fit(model, batch, N_STEPS, optimizers=optimizers, stop=stop, loss_fn=masked_loss)
    return model


def fit_projections(model: Transformer, seed: int) -> tuple[Transformer, list[float]]:
    """A Linformer of a trained model, of which E and F alone learn, from segment means on.

    Returns the losses on windows of the training text before and after each round too.
    """
    model = with_means(model, QUARTER).requires_grad_(False)
    for projection in projections(model):
        projection.requires_grad_(True)
    losses = [window_loss(model, "train", seed)]
    while len(losses) < 2 or (losses[-2] - losses[-1] >= FALL and len(losses) <= MAX_ROUNDS):
        adam = [torch.optim.Adam(projections(model), lr=ADAM_LR)]
        batch = batches(seed, ROUND * (len(losses) - 1))
        train.fit(model, batch, ROUND, optimizers=adam, loss_fn=masked_loss)
        losses.append(window_loss(model, "train", seed))
    return model, losses


@torch.no_grad()
def window_loss(model: Transformer, split: str, seed: int) -> float:
    """Nats a masked byte on the seed's `N_WINDOWS` windows of a split."""
    return masked_loss(model, *masked_windows(split, N_WINDOWS, seed)).item()


def run_one(variant: str, seed: int) -> dict:
    """Held-out loss; of a fit also the losses after each round, by which it has converged."""
    if variant == "fitted":
        model, rounds = fit_projections(train_variant("full", seed), seed)
    else:
        model, rounds = train_variant(variant, seed), []
    return round_floats(dict(loss=window_loss(model, "held-out", seed), rounds=rounds))


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """`CASES` in nats a masked byte, paired by seed."""
    return paired_losses(runs, CASES)


def settings() -> dict:
    """What all runs have in common."""
    shape = dict(n_layer=CONFIG.n_layer, d_model=CONFIG.d_model, n_head=CONFIG.n_head)
    shape |= dict(seq_len=CONFIG.max_len, batch_size=BATCH_SIZE, n_steps=N_STEPS)
    fit = dict(masked=MASKED, lr=LR, adam_lr=ADAM_LR, round=ROUND, fall=FALL)
    return shape | fit | dict(k=QUARTER, share=SHARE, n_windows=N_WINDOWS)
