"""Calibration text, the layers' Hessians and errors on it, and both methods on one grid."""

import pytest
import torch

from efflab import data
from efflab.compression.calibration import (
    METHODS,
    calibration,
    layer_hessians,
    layers_error,
    quantize_by,
)
from efflab.compression.gptq import hessian, output_error
from efflab.config import ModelConfig
from efflab.model import Transformer

MAPS = ("attention.body.qkv", "attention.body.out", "ffn.body.up", "ffn.body.down")
WEIGHTS = [f"layers.{i}.{name}.weight" for i in range(2) for name in MAPS]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Transformer(ModelConfig(2, 2, 16, 32, 2048, 64, causal=True)).eval()


@pytest.fixture(scope="module")
def batches():
    return calibration(64)


@pytest.mark.parametrize("source", ["library", "prose", "random"])
@pytest.mark.parametrize(
    ("n_tokens", "shapes"),
    [(64, [(1, 64)]), (256, [(1, 256)]), (700, [(2, 256)]), (4096, [(8, 256)] * 2)],
)
def test_windows_have_256_tokens_or_all_that_were_asked_for(source, n_tokens, shapes):
    batches = calibration(n_tokens, source)
    assert [tuple(ids.shape) for ids in batches] == shapes
    assert all(ids.dtype == torch.int64 and 1 <= ids.min() for ids in batches)
    assert max(ids.max() for ids in batches) < 2048


def test_the_default_is_16_windows_of_the_library():
    expected, _ = data.random_windows(data.stdlib_tokens("train"), 16, 256, seed=0)
    assert torch.equal(torch.cat(calibration()), expected)


@pytest.mark.parametrize("source", ["library", "prose", "random"])
def test_a_seed_decides_the_windows(source):
    first, again, other = (calibration(64, source, seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, calibration(64, source)[0])


def test_hessians_are_those_of_all_batches_inputs(model):
    batches = calibration(64) + calibration(64, seed=1)
    found = layer_hessians(model, batches)
    assert list(found) == WEIGHTS
    norm = model.layers[0].attention.norm
    with torch.no_grad():
        inputs = torch.cat([norm(model.embedding(ids)).flatten(0, 1) for ids in batches])
    torch.testing.assert_close(found[WEIGHTS[0]], hessian(inputs))
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("group_size", [None, 8])
def test_both_methods_quantize_the_layers_maps_on_one_grid(model, batches, group_size):
    found = {m: quantize_by(m, model, 3, group_size, batches) for m in METHODS}
    for quantized in found.values():
        assert list(quantized) == WEIGHTS
    rtn, gptq = found["rtn"], found["gptq"]
    for name, weight in model.named_parameters():
        if name in WEIGHTS:
            assert torch.equal(rtn[name].scale, gptq[name].scale)
            assert torch.equal(rtn[name].zero_point, gptq[name].zero_point)
            rows = weight.numel() // group_size if group_size else len(weight)
            assert len(rtn[name].scale) == rows
    assert any(not torch.equal(rtn[name].packed, gptq[name].packed) for name in WEIGHTS)


@pytest.mark.parametrize("method", METHODS)
def test_options_reach_either_method(model, batches, method):
    quantized = quantize_by(method, model, 4, None, batches, symmetric=True)
    assert all(q.zero_point is None for q in quantized.values())


def test_the_layers_error_is_the_mean_over_maps(model, batches):
    hessians, quantized = layer_hessians(model, batches), quantize_by("rtn", model, 3, None)
    own = dict(model.named_parameters())
    errors = [output_error(own[name], quantized[name], hessians[name]) for name in WEIGHTS]
    assert layers_error(model, quantized, hessians) == pytest.approx(sum(errors) / len(errors))
    better = quantize_by("gptq", model, 3, None, batches)
    assert layers_error(model, better, hessians) < sum(errors) / len(errors)


@pytest.mark.parametrize("method", METHODS)
def test_a_misspelt_option_is_refused_by_either_method(model, batches, method):
    with pytest.raises(TypeError, match="symetric"):
        quantize_by(method, model, 4, None, batches, symetric=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibration(7), "n_tokens=7: expected an int of at least 8"),
        (lambda: calibration(64, "music"), "source='music': expected one of 'library', 'prose'"),
        (
            lambda: quantize_by("awq", torch.nn.ReLU(), 4, None),
            "method='awq': expected one of 'rtn', 'gptq'",
        ),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
