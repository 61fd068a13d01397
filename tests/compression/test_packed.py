"""Quantized models on disk: as small as they say, the same after reloading, damage noticed."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from efflab import weights
from efflab.compression import packed
from efflab.config import ModelConfig
from efflab.model import Transformer
from efflab.structure.vit import ViT

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


def test_a_table_of_positions_in_an_image_is_no_matrix(model):
    names = packed.weight_matrices(ViT(8, 2, 1, 2, 8, 8, 4, channels=1), embeddings=False)
    assert len(names) == 4 + 1
    assert all(name.startswith(("layers", "head")) for name in names)
    every = [name for name, p in model.named_parameters() if p.dim() == 2]
    assert list(packed.weight_matrices(model)) == every


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
    save_file({"a": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match=r"plain\.safetensors holds no hash.*save_quantized"):
        packed.load_quantized(tmp_path / "plain.safetensors")
    packed.save_quantized(model, packed.quantize_weights(model, 8), tmp_path / "m.safetensors")
    wider = ModelConfig(2, 2, 64, 64, 100, 16, causal=True)
    with pytest.raises(ValueError, match="the model's shape"):
        packed.load_model(tmp_path / "m.safetensors", lambda: Transformer(wider))


def test_a_model_is_loaded_whole_or_not_at_all(model, tmp_path):
    path = tmp_path / "m.safetensors"
    packed.save_quantized(model, packed.quantize_weights(model, 8), path)
    for n_layer, message in ((4, "missing: layers.2"), (1, "unknown: layers.1")):
        other = ModelConfig(n_layer, 2, 32, 64, 100, 16, causal=True)
        with pytest.raises(ValueError, match=rf"m\.safetensors: .*{message}"):
            packed.load_model(path, lambda other=other: Transformer(other))


NAME = "layers.0.ffn.body.up.weight"  # (64, 32)
CHANGES = {
    "bits": lambda layouts: layouts[NAME].__setitem__(0, 2),
    "half a bit": lambda layouts: layouts[NAME].__setitem__(0, 7.5),
    "transposed": lambda layouts: layouts[NAME].__setitem__(1, [32, 64]),
    "negative": lambda layouts: layouts[NAME].__setitem__(1, [-64, -32]),
    "huge": lambda layouts: layouts[NAME].__setitem__(1, [10**5, 10**5]),
    "one size": lambda layouts: layouts[NAME].__setitem__(1, 2048),
    "axis": lambda layouts: layouts[NAME].__setitem__(2, 1),
    "no such axis": lambda layouts: layouts[NAME].__setitem__(2, 5),
    "groups": lambda layouts: layouts[NAME].__setitem__(3, 16),
    "left out": lambda layouts: layouts.pop(NAME),
    "renamed": lambda layouts: layouts.update(other=layouts.pop(NAME)),
    "short": lambda layouts: layouts[NAME].pop(),
    "none": lambda layouts: layouts.clear(),
}


@pytest.mark.parametrize("hashed_anew", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_what_describes_the_weights_is_believed_as_saved_only(model, tmp_path, change, hashed_anew):
    """Even under a hash that fits it, a description has to fit its tensors and the model."""
    path = tmp_path / "m.safetensors"
    packed.save_quantized(model, packed.quantize_weights(model, 4, axis=0), path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    layouts = json.loads(metadata["quantized"])
    CHANGES[change](layouts)
    metadata["quantized"] = json.dumps(layouts)
    if hashed_anew:
        del metadata["sha256"]
        weights.save_tensors(path, load_file(path), metadata)
    else:
        save_file(load_file(path), path, metadata)
    with pytest.raises(ValueError, match=r"m\.safetensors"):
        packed.load_model(path, lambda: Transformer(CONFIG))


def test_weights_are_put_into_a_model_of_their_names_and_type(model):
    quantized = packed.quantize_weights(model, 8)
    assert packed.with_weights(model.bfloat16(), quantized).final_norm.bias.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="unknown: other"):
        packed.with_weights(model, {"other": quantized[NAME]})
    with pytest.raises(ValueError, match=r"up\.weight.*the model's shape \(64, 32\)"):
        packed.with_weights(model, {NAME: quantized["layers.0.ffn.body.down.weight"]})


def test_numpys_numbers_are_saved_as_numbers(model, tmp_path):
    quantized = packed.quantize_weights(model, np.uint8(4), group_size=np.int64(16))
    packed.save_quantized(model, quantized, tmp_path / "m.safetensors")
    again, _ = packed.load_quantized(tmp_path / "m.safetensors")
    assert torch.equal(again[NAME].dequantize(), quantized[NAME].dequantize())
    assert (again[NAME].bits, again[NAME].group_size) == (4, 16)


def test_what_could_not_be_loaded_again_is_not_saved(model, tmp_path):
    path, quantized = tmp_path / "m.safetensors", packed.quantize_weights(model, 8)
    with torch.no_grad():
        model.final_norm.bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"model: final_norm\.bias='inf or nan inside'"):
        packed.save_quantized(model, quantized, path)
    with pytest.raises(ValueError, match="quantized='other'"):
        packed.save_quantized(model, {"other": quantized[NAME]}, path)
    assert not path.exists()
