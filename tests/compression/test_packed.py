"""Quantized models on disk: as small as they say, the same after reloading, damage noticed."""

import pytest
import torch

from efflab.compression import packed
from efflab.config import ModelConfig
from efflab.model import Transformer

CONFIG = ModelConfig(2, 2, 32, 64, 100, 16, causal=True)
IDS = torch.arange(12).view(1, 12)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(CONFIG).eval()


@pytest.mark.parametrize("grid", [{"axis": 0}, {"group_size": 16, "symmetric": False}], ids=str)
@pytest.mark.parametrize("bits", [3, 8])
def test_reloads_to_the_same_outputs(model, tmp_path, bits, grid):
    quantized = packed.quantize_weights(model, bits, **grid)
    n_bytes = packed.save_quantized(model, quantized, tmp_path / "m.safetensors")
    again = packed.load_model(tmp_path / "m.safetensors", lambda: Transformer(CONFIG))
    assert torch.equal(again(IDS), packed.with_weights(model, quantized)(IDS))
    # The rest of the file is its header: names, shapes, offsets.
    assert 0 <= n_bytes - packed.model_bytes(model, quantized) < 8000


def test_size_follows_the_bits(model):
    sizes = [
        packed.model_bytes(model, packed.quantize_weights(model, bits, axis=0))
        for bits in (4, 8, 16)
    ]
    n = sum(w.numel() for w in packed.weight_matrices(model).values())
    assert sizes[1] - sizes[0] == n // 2
    assert sizes[2] - sizes[1] == n


def test_embeddings_may_stay(model):
    names = packed.quantize_weights(model, 8, embeddings=False)
    assert not any("embedding" in name for name in names)
    assert len(names) == 2 * 4


def test_the_model_itself_is_left_alone(model):
    before = model(IDS)
    packed.with_weights(model, packed.quantize_weights(model, 2))
    assert torch.equal(model(IDS), before)


def test_damage_is_noticed(model, tmp_path):
    path = tmp_path / "m.safetensors"
    packed.save_quantized(model, packed.quantize_weights(model, 8), path)
    raw = path.read_bytes()
    flipped = bytearray(raw)
    flipped[-5] ^= 1
    for damaged in (raw[:-100], bytes(flipped), b"not a model"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            packed.load_quantized(path)


def test_other_files_and_models_are_refused(model, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="save_quantized"):
        packed.load_quantized(tmp_path / "plain.safetensors")
    packed.save_quantized(model, packed.quantize_weights(model, 8), tmp_path / "m.safetensors")
    wider = ModelConfig(2, 2, 64, 64, 100, 16, causal=True)
    with pytest.raises(ValueError, match="the model's shape"):
        packed.load_model(tmp_path / "m.safetensors", lambda: Transformer(wider))
