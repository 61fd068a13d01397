"""Every engine gives the model's logits: whole, after a prompt, and token by token."""

import pytest
import torch

from efflab import points
from efflab.bench import cpu_features
from efflab.compression.decoders import FORMATS, group_size, make_decoder, weight_bytes
from efflab.config import PRESETS, Attention, Latent, ModelConfig
from efflab.cost import num_params
from efflab.decoding.latent import latent_model
from efflab.experiments.decoder_steps import llama
from efflab.model import Transformer

SHAPES = {
    "plain": ModelConfig(2, 4, 64, 128, 200, 64, causal=True),
    "llama": llama(2, 4, 2, 64, 128, 200),
}
MOST_ERROR = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.15, "int4": 0.6}
"""Of the largest logit."""


@pytest.fixture(scope="module", params=SHAPES)
def model(request):
    torch.manual_seed(0)
    return Transformer(SHAPES[request.param]).eval()


def largest_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("name", FORMATS)
@torch.no_grad()
def test_an_engine_gives_the_logits_whole_and_token_by_token(model, name):
    ids = torch.randint(200, (3, 20), generator=torch.Generator().manual_seed(0))
    expected, most = model(ids), MOST_ERROR[name.split()[1]]
    decoder = make_decoder(model, name)
    assert largest_error(decoder(ids), expected) < most
    steps = [decoder.start(ids[:, :12])]
    steps += [decoder.step(ids[:, t : t + 1]) for t in range(12, 20)]
    assert largest_error(torch.stack(steps, 1), expected[:, 11:]) < most
    # another batch begins anew
    assert largest_error(decoder.start(ids[:1]), expected[:1, -1]) < most


@torch.no_grad()
def test_fewer_bits_cost_more_of_a_trained_model():
    model = points.language_model()
    ids = torch.randint(2048, (1, 64), generator=torch.Generator().manual_seed(0))
    expected = model(ids)
    errors = [
        largest_error(make_decoder(model, f"OpenVINO {f}")(ids), expected) for f in MOST_ERROR
    ]
    fp32, bf16, int8, int4 = errors
    assert fp32 < 1e-4 < int8 < int4
    assert bf16 < int4
    # a CPU that cannot emulate bf16 computes in fp32
    assert bf16 > 1e-4 or not cpu_features()["avx512"]


@torch.no_grad()
def test_a_windows_tokens_are_hidden_in_both_engines():
    config = llama(2, 4, 2, 64, 128, 200)
    from dataclasses import replace

    config = replace(config, attention=replace(config.attention, windows=(4, None)))
    model = Transformer(config).eval()
    ids = torch.randint(200, (2, 16), generator=torch.Generator().manual_seed(0))
    for name in ("torch fp32", "OpenVINO fp32"):
        decoder = make_decoder(model, name)
        steps = [decoder.start(ids[:, :9])]
        steps += [decoder.step(ids[:, t : t + 1]) for t in range(9, 16)]
        assert largest_error(torch.stack(steps, 1), model(ids)[:, 8:]) < 1e-4, name


@torch.no_grad()
def test_an_encoder_is_read_whole():
    model = Transformer(ModelConfig(2, 4, 64, 128, 200, 64)).eval()
    ids = torch.randint(200, (2, 16), generator=torch.Generator().manual_seed(0))
    for name in ("torch fp32", "OpenVINO fp32", "OpenVINO int8"):
        error = largest_error(make_decoder(model, name)(ids), model.encode(ids))
        assert error < MOST_ERROR[name.split()[1]], name


@torch.no_grad()
def test_a_cache_can_begin_filled_to_be_timed(model):
    decoder = make_decoder(model, "torch fp32")
    decoder.reset(2, 10)
    assert decoder.step(torch.zeros(2, 1, dtype=torch.int64)).shape == (2, 200)
    decoder = make_decoder(model, "OpenVINO fp32")
    decoder.reset(2, 10)
    assert decoder.step(torch.zeros(2, 1, dtype=torch.int64)).shape == (2, 200)


def test_bytes_of_weights_are_those_that_a_token_reads():
    config = PRESETS["stdlib-gpt"]
    n_table, n_positions = 2048 * 192, 512 * 192
    rest = num_params(config) - n_table - n_positions
    assert weight_bytes(config, "torch fp32") == 4 * (rest + n_table)
    assert weight_bytes(config, "OpenVINO int8") == rest + n_table
    assert group_size(config) == 64
    assert weight_bytes(config, "OpenVINO int4") == rest * (4 + 16 / 64) / 8 + n_table
    # torch quantizes linear layers alone, of which a tied output is none
    assert weight_bytes(config, "torch int8") == rest + 4 * n_table


def test_what_OpenVINO_stores_is_not_less_than_what_a_token_reads(model):
    for name in ("OpenVINO fp32", "OpenVINO int8", "OpenVINO int4"):
        stored, read = make_decoder(model, name).nbytes, weight_bytes(model.config, name)
        # positions, scales, and what is stored beside weights
        assert 0.99 * read < stored < 1.8 * read, name


@pytest.mark.parametrize("name", ["torch fp32", "torch bf16", "torch int8"])
def test_the_callers_model_stays_as_it_is(name):
    net = Transformer(SHAPES["plain"]).train()
    make_decoder(net, name)
    assert all(module.training for module in net.modules())
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_other_formats_and_widths_are_refused():
    latent = Attention(bias="none", latent=Latent(8, 8, 8, 8))
    net = latent_model(ModelConfig(1, 2, 16, 16, 20, 16, causal=True, attention=latent))
    with pytest.raises(ValueError, match=r"attention.latent=Latent.*: expected None"):
        make_decoder(net, "torch fp32")
    with pytest.raises(ValueError, match="name='torch int4': expected one of"):
        make_decoder(points.language_model(), "torch int4")
    with pytest.raises(ValueError, match="d_model=60: expected widths that 16 divides"):
        group_size(ModelConfig(1, 4, 60, 120, 200, 64, causal=True))
