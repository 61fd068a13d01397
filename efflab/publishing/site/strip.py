"""The first page's demonstration: how surprised `stdlib-gpt` is with fewer and fewer bits."""

import inspect
from pathlib import Path

from efflab import data
from efflab.base.cache import get_or_make
from efflab.base.places import ROOT
from efflab.publishing.site import playground
from efflab.publishing.site.playground import Settings

BITS = (0, 8, 6, 5, 4, 3, 2)
"""Bits of a weight in each state; 0: as it was trained, in 32."""
SOURCES = data.STDLIB_GPT, data.TOKENIZER_FILE, Path(__file__), Path(playground.__file__)


def read_strip() -> dict:
    """As `make_strip` gives it, computed once for this checkpoint."""
    return get_or_make(ROOT / "build", "strip", SOURCES, make_strip)


def make_strip() -> dict:
    """{"tokens", "states": [{"bits", "score" (bits per byte), "bytes", "surprise" (bits)}]}."""
    text = inspect.getsource(playground.SAMPLES[0])
    decode = data.tokenizer().decode
    tokens = [decode([int(i)]) for i in data.tokens_of([text])[1:]]
    return dict(tokens=tokens, states=[_state(Settings(bits=bits), text) for bits in BITS])


def _state(settings: Settings, text: str) -> dict:
    model = playground.lighten(settings)
    logits, ids = playground.run(model, settings, text)
    surprise, score = playground.surprise(logits, ids)
    size = playground.stored_bytes(model, settings)
    rounded = [round(bits, 1) for bits in surprise.tolist()]
    return dict(bits=settings.bits, score=score, bytes=size, surprise=rounded)
