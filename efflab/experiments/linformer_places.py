"""Loss of small masked models of images: Linformer trained with its projections, full attention.

A summary weighs places. In images of digits a place means the same in each, in text it does not
(`linformer_trained`, whose training and model this is): pixels are masked in bytes' place. E and F
start as the means of segments. Every seed trains its own models on its own batches and judges them
by its own draw of held-out images, both the same for all variants.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from efflab import data, train
from efflab.config import ModelConfig
from efflab.estimate import Estimate
from efflab.experiments import linformer_trained as bytes_of
from efflab.experiments.variants import paired_losses

MASK = 17
"""The id of a masked pixel, beyond the digits' 17 shades of grey."""
CONFIG = ModelConfig(2, 4, 64, 256, MASK + 1, 64, norm_first=True)
BATCH_SIZE, N_WINDOWS = 32, 512
VARIANTS = ("full", "started", "uniform")
CASES = {f"places-{variant}": (variant, "full") for variant in VARIANTS[1:]}
"""Id of evidence -> whose loss, less whose."""


def masked_digits(split: str, n_images: int, seed: int) -> train.Batch:
    """Random images of a split, 64 pixels in rows, masked as `linformer_trained.hide` does."""
    images = data.digits()[0 if split == "train" else 2]
    drawn = np.random.default_rng(seed).integers(0, len(images), n_images)
    return bytes_of.hide((16 * images[torch.from_numpy(drawn)]).long().flatten(1), seed, MASK)


def run_one(variant: str, seed: int) -> dict:
    """Held-out loss in nats a masked pixel."""
    model = bytes_of.make(variant, seed, CONFIG)

    def batch(step: int) -> train.Batch:
        return masked_digits("train", BATCH_SIZE, seed * 10**6 + step)

    bytes_of.train_masked(model, batch)
    with torch.no_grad():
        loss = bytes_of.masked_loss(model, *masked_digits("held-out", N_WINDOWS, seed))
    return dict(loss=round(loss.item(), 4))


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """`CASES` in nats a masked pixel, paired by seed."""
    return paired_losses(runs, CASES)


def settings() -> dict:
    """What all runs have in common."""
    shape = dict(seq_len=CONFIG.max_len, k=CONFIG.max_len // 4, batch_size=BATCH_SIZE)
    return bytes_of.settings() | shape | dict(n_windows=N_WINDOWS)
