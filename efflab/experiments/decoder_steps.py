"""Times of steps of decoders of random weights, in every engine and format: what a model of times
is fitted to (`efflab.advice.step_times`).

A step is a prompt from its beginning, or one more token after a filled cache. On one thread.
"""

import gc
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch

from efflab.bench import one_thread, time_calls
from efflab.blocks import Attention, FeedForward, Norms
from efflab.compression.decoders import FORMATS, Decoder, make_decoder
from efflab.config import ModelConfig
from efflab.errors import require_one_of
from efflab.experiments.record import EXPERIMENTS, run_cases
from efflab.model import Transformer
from efflab.rules import Count, Size

NAME = "decoder-steps"
PREFILL, DECODE = "prefill", "decode"
REPEATS = {PREFILL: 5, DECODE: 11}
PACKAGES = ("openvino", "nncf")


class Step(NamedTuple):
    """A prompt of `n_tokens` in each text, or one more token after that many in the cache."""

    phase: str
    n_tokens: Count
    n_texts: Size = 1


CASE = ("model", "format", *Step._fields)
"""What tells a case from others, beside its seed."""


def step_of(case: Mapping) -> Step:
    """The step of a case or run."""
    return Step(*(case[field] for field in Step._fields))


def llama(n_layer: Size, n_head: Size, n_kv_head: Size, d_model: Size, d_ff: Size, vocab: Size):
    """A decoder of today: grouped heads, rotary positions, RMSNorm, a gate, a tied output."""
    attention = Attention(n_kv_head=n_kv_head, bias="none")
    plain = ModelConfig(n_layer, n_head, d_model, d_ff, vocab, 2048, activation="silu", causal=True)
    options: dict = dict(feed_forward=FeedForward(gated=True, bias=False), positions="rotary")
    return replace(plain, attention=attention, norms=Norms("rms", bias=False), **options)


SHAPES = {
    "small": ModelConfig(4, 8, 256, 1024, 4096, 1024, causal=True),
    "narrow": ModelConfig(12, 4, 256, 1024, 2048, 1024, causal=True),
    "plain": ModelConfig(6, 12, 768, 3072, 16384, 1024, causal=True),
    "deep": llama(20, 6, 3, 384, 1024, 8192),
    "middle": llama(6, 10, 2, 640, 1792, 4096),
    "short": llama(2, 16, 4, 1024, 2816, 16384),
    "wide": llama(4, 12, 4, 1536, 4096, 4096),
}
"""What is fitted to, from 4 to 104 million parameters; what is predicted is not among them."""
STEPS = [Step(PREFILL, n) for n in (32, 128, 256)] + [Step(PREFILL, 64, 4)]
STEPS += [Step(DECODE, n) for n in (32, 256, 960)]
STEPS += [Step(DECODE, 32, 4), Step(DECODE, 256, 8), Step(DECODE, 960, 4)]


def time_step(decoder: Decoder, step: Step) -> float:
    """Seconds of a step, the median of `REPEATS` after two untimed ones."""
    require_one_of("phase", step.phase, REPEATS)
    shape, rng = (step.n_texts, step.n_tokens), torch.Generator().manual_seed(0)
    ids = torch.randint(decoder.config.vocab_size, shape, generator=rng)
    if step.phase == PREFILL:
        return time_calls(lambda: decoder.start(ids), 2, REPEATS[PREFILL]).median
    decoder.reset(*shape)
    token = torch.zeros(step.n_texts, 1, dtype=torch.int64)
    return time_calls(lambda: decoder.step(token), 2, REPEATS[DECODE]).median


@lru_cache(maxsize=1)
def random_decoder(config: ModelConfig, format: str) -> Decoder:
    """A model of random weights in an engine and format; the last one stays."""
    gc.collect()
    torch.manual_seed(0)
    return make_decoder(Transformer(config), format)


def run_one(
    model: str,
    format: str,
    phase: str,
    n_tokens: int,
    n_texts: int,
    seed: int,
    shapes: Mapping[str, ModelConfig] = SHAPES,
) -> dict:
    """Milliseconds of one step of a model of `shapes`."""
    decoder = random_decoder(shapes[model], format)
    return dict(ms=round(1e3 * time_step(decoder, Step(phase, n_tokens, n_texts)), 4))


def cases(shapes: Iterable[str], formats: Iterable[str], steps: Iterable[Step]) -> list[dict]:
    """Every step of every model in every format."""
    each = product(shapes, formats, steps)
    return [dict(model=m, format=f, **step._asdict(), seed=0) for m, f, step in each]


@one_thread()
def run(*, fresh: bool = False, folder: Path = EXPERIMENTS) -> dict:
    """Time every step; recorded as data/experiments/decoder-steps, or in another folder."""
    settings = dict(repeats=REPEATS, models=list(SHAPES))
    options = dict(settings=settings, versions_of=PACKAGES, fresh=fresh, folder=folder)
    return run_cases(NAME, cases(SHAPES, FORMATS, STEPS), run_one, **options)
