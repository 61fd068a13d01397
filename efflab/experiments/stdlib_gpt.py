"""Trains `stdlib-gpt`, the small language model that the notebooks work on."""

from pathlib import Path

import numpy as np
import torch

from efflab import data, train
from efflab.config import PRESETS
from efflab.errors import require_int
from efflab.model import Transformer

BATCH_SIZE = 8
LIBRARY_REPEATS = 2  # how often the library stands in the stream for each time its tests do


def training_stream() -> np.ndarray:
    """Training modules and, where installed, the tests of these modules, as token ids."""
    library = data.stdlib_tokens("train")
    tests = list(data.stdlib_files("train", tests=True))
    streams = [library] * LIBRARY_REPEATS
    if tests:
        streams.append(data.tokens_of(text for _, text in tests))
    return np.concatenate(streams)


def train_stdlib_gpt(n_steps: int = 3600, *, seed: int = 0, checkpoint: Path | None = None):
    """Train, from `checkpoint` where a killed run left one; returns (model, losses).

    A step is 8 windows of 512 tokens. Needs a C++ compiler, for `torch.compile`.
    """
    require_int("n_steps", n_steps)
    config = PRESETS["stdlib-gpt"]
    stream = training_stream()
    torch.manual_seed(seed)
    model = Transformer(config)
    model.compile()

    def batch(step):
        return data.random_windows(stream, BATCH_SIZE, config.max_len, seed * 10**6 + step)

    optimizers = train.muon(model)
    losses = train.fit(
        model, batch, n_steps, optimizers=optimizers, checkpoint=checkpoint, progress=True
    )
    return model, losses
