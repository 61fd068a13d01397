"""The shipped language model: small, whole, and better than a compressor."""

import pytest

from efflab import cost, pretrained
from efflab.config import PRESETS
from efflab.evaluate import bits_per_byte
from efflab.experiments.stdlib_gpt import xz_bits_per_byte


@pytest.fixture(scope="module")
def model():
    return pretrained.load_stdlib_gpt()


def test_it_is_small():
    assert pretrained.STDLIB_GPT.stat().st_size <= 12e6
    assert 3e6 < cost.num_params(PRESETS["stdlib-gpt"]) < 6e6


def test_it_is_the_preset(model):
    assert model.config == PRESETS["stdlib-gpt"]
    assert not model.training


def test_it_beats_xz_on_modules_it_never_saw(model):
    """Another Python's library differs a little, so the card's figure must only be near."""
    estimate = bits_per_byte(model, 48)
    card = pretrained.read_card()["held_out_bits_per_byte"]
    assert estimate.high < xz_bits_per_byte()
    assert estimate.low - 0.05 < card["mean"] < estimate.high + 0.05
