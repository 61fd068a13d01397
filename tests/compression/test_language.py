"""A small causal model in every engine: the same logits, fewer bytes, one shape for OpenVINO."""

import pytest
import torch

from efflab.compression import language
from efflab.compression.pruning import prune_heads
from efflab.config import ModelConfig
from efflab.model import Transformer
from efflab.structure.window import with_windows

CONFIG = ModelConfig(2, 4, 64, 128, 300, 192, causal=True)
SHAPE = (2, 192)
MAKERS = {
    "torch": lambda m, path, ids: language.torch_language("torch fp32", m),
    "torch bf16": lambda m, path, ids: language.bf16_language(m),
    "torch INT8": lambda m, path, ids: language.dynamic_language(m),
    "fp32": lambda m, path, ids: language.openvino_language(m, path, SHAPE),
    "fp16": lambda m, path, ids: language.openvino_language(m, path, SHAPE, half=True),
    "bf16": lambda m, path, ids: language.openvino_language(m, path, SHAPE, precision="bf16"),
    "INT8": lambda m, path, ids: language.openvino_language_int8(m, path, SHAPE, ids),
}
ERRORS = {"torch": 0, "fp32": 1e-5, "fp16": 2e-3, "bf16": 0.03, "torch bf16": 0.03}
"""Largest relative error of the logits; of INT8 engines 0.06."""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    light = prune_heads(Transformer(CONFIG).eval(), {0: [1, 2]})
    return with_windows(light, 16)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 300, (4, 192), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MAKERS)
def test_an_engine_gives_the_models_logits(name, model, ids, tmp_path):
    engine = MAKERS[name](model, tmp_path / "model.xml", ids)
    with torch.no_grad():
        exact = model(ids)
    found = engine(ids)
    assert found.dtype == torch.float32
    assert (found - exact).norm() / exact.norm() <= ERRORS.get(name, 0.06)
    kept = found.clone()
    assert not torch.equal(engine(ids.flip(0)), kept)
    assert torch.equal(found, kept)  # the next call writes elsewhere


def test_int8_is_smaller_than_fp16_and_fp16_than_fp32(ids, tmp_path):
    """The graph's text is the same in all: only the weights' bytes are compared."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(1, 4, 256, 1024, 2000, 192, causal=True)).eval()
    for name in ("fp32", "fp16", "INT8"):
        MAKERS[name](model, tmp_path / f"{name}.xml", ids)
    fp32, fp16, int8 = (
        (tmp_path / f"{name}.bin").stat().st_size for name in ("fp32", "fp16", "INT8")
    )
    assert 0.49 < fp16 / fp32 < 0.51
    assert 0.25 < int8 / fp32 < 0.30


@pytest.mark.parametrize("shape", [(3, 192), (2, 191), (0, 192)])
def test_another_shape_is_refused(shape, model, tmp_path):
    engine = MAKERS["fp32"](model, tmp_path / "model.xml", None)
    ids = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(ValueError, match=r"ids\.shape.*multiple of 2, 192"):
        engine(ids)
    with pytest.raises(ValueError, match=r"ids\.shape.*multiple of 2, 192"):
        MAKERS["INT8"](model, tmp_path / "model.xml", ids)


def test_an_unknown_precision_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="precision='fp8'"):
        language.openvino_language(model, tmp_path / "model.xml", SHAPE, precision="fp8")
