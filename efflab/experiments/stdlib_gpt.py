"""Trains `stdlib-gpt`, the small language model that the notebooks work on."""

import lzma
from dataclasses import asdict

import numpy as np
import torch

from efflab import data, train
from efflab.base.files import replacing
from efflab.config import PRESETS
from efflab.data import STDLIB_GPT
from efflab.evaluate import bits_per_byte
from efflab.experiments.provenance import describe_run, machine, machine_name
from efflab.model import Transformer
from efflab.pretrained import save_checkpoint

BATCH_SIZE, N_STEPS, SEED = 8, 3000, 0
LIBRARY_REPEATS = 2  # copies of the library in the stream per copy of its tests


def training_stream() -> np.ndarray:
    """Training modules and, where installed, the tests of these modules, as token ids."""
    library = data.stdlib_tokens("train")
    tests = list(data.stdlib_files("train", tests=True))
    streams = [library] * LIBRARY_REPEATS
    if tests:
        streams.append(data.tokens_of(text for _, text in tests))
    return np.concatenate(streams)


def xz_bits_per_byte(*, primed: bool = False) -> float:
    """Bits per byte of `xz -9` on the held-out modules in one file: the value to beat.

    `primed`: the bytes they add to a file that begins with the training set, which is the fair
    comparison: xz's dictionary of 64 MiB then holds all of it.
    """
    raw = _all_text("held-out")
    prefix = _all_text("train") + _all_text("train", tests=True) if primed else b""
    sizes = [len(lzma.compress(text, preset=9)) for text in (prefix, prefix + raw)]
    return 8 * (sizes[1] - (sizes[0] if primed else 0)) / len(raw)


def _all_text(split: str, *, tests: bool = False) -> bytes:
    return "".join(text for _, text in data.stdlib_files(split, tests=tests)).encode()


def train_stdlib_gpt() -> dict:
    """Train, write the checkpoint with its card into data/, and return the card.

    A step is 8 windows of 512 tokens. A killed run resumes from `training.safetensors` beside the
    checkpoint. Needs a C++ compiler, for `torch.compile`.
    """
    config = PRESETS["stdlib-gpt"]
    if not data.TOKENIZER_FILE.exists():
        texts = (
            text for tests in (False, True) for _, text in data.stdlib_files("train", tests=tests)
        )
        with replacing(data.TOKENIZER_FILE) as part:
            data.train_tokenizer(texts).save(str(part))
    stream = training_stream()
    torch.manual_seed(SEED)
    model = Transformer(config)
    model.compile()

    def batch(step):
        return data.random_windows(stream, BATCH_SIZE, config.max_len, SEED * 10**6 + step)

    unfinished = STDLIB_GPT.with_name("training.safetensors")
    options = dict(optimizers=train.muon(model), checkpoint=unfinished, progress=True)
    losses = train.fit(model, batch, N_STEPS, **options)
    card = save_checkpoint(model, STDLIB_GPT, model_card(model, losses))
    unfinished.unlink()
    return card


def model_card(model: Transformer, losses: list[float]) -> dict:
    """The checkpoint's provenance and its bits per byte on all held-out windows."""
    quality = bits_per_byte(model, None)
    return dict(
        name="stdlib-gpt",
        **describe_run("efflab train stdlib-gpt"),
        machine=machine_name(machine()),
        seeds=[SEED],
        tokenizer_sha256=data.sha256(data.TOKENIZER_FILE),
        steps=len(losses),
        tokens=len(losses) * BATCH_SIZE * model.config.max_len,
        loss_nats=round(sum(losses[-100:]) / len(losses[-100:]), 4),
        held_out_bits_per_byte={k: round(v, 4) for k, v in asdict(quality).items()},
        xz_bits_per_byte=round(xz_bits_per_byte(), 4),
        xz_primed_bits_per_byte=round(xz_bits_per_byte(primed=True), 4),
    )
