"""What recipes store against real steps and published formulas; their rooflines by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from efflab import bench, cost
from efflab.acceleration import recipes
from efflab.acceleration.recipes import RECIPES
from efflab.config import PRESETS, Attention, FeedForward, Latent, ModelConfig
from efflab.devices import DEVICES, Device
from efflab.model import Transformer

SMALL = ModelConfig(3, 4, 64, 192, 512, 64, causal=True)
LATENT = ModelConfig(3, 4, 64, 192, 512, 64, attention=Attention(latent=Latent(16, 8, 4, 8)))
TOY = Device("toy", {"fp32": 1e9, "bf16": 8e9}, 1e9, 1e9, "assumed")


class Loss(torch.nn.Module):
    """A model and its loss, as one of the recipes computes it."""

    def __init__(self, model, autocast):
        super().__init__()
        self.model, self.autocast = model, autocast

    def forward(self, ids):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            logits = self.model(ids).float()
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


@pytest.mark.parametrize("name", ["fp32", "autocast", "16 bits only"])
def test_bytes_of_a_real_step(name):
    """Within 2 %; states exactly, but for the optimizer's count of steps (4 bytes a tensor)."""
    recipe = RECIPES[name]
    model = Transformer(SMALL).to(torch.bfloat16 if recipe.weights == 2 else torch.float32)
    loss = Loss(model, name == "autocast")
    optimizer = torch.optim.AdamW(model.parameters())
    ids = torch.randint(0, 512, (4, 64))
    kept = bench.saved_bytes(loss, ids)
    loss(ids).backward()
    optimizer.step()
    parts = recipes.state_parts(SMALL, recipe)
    assert sum(p.nbytes for p in model.parameters()) == parts["weights"]
    assert sum(p.grad.nbytes for p in model.parameters()) == parts["gradients"]
    moments = [v.nbytes for s in optimizer.state.values() for v in s.values() if v.dim()]
    assert sum(moments) == parts["optimizer"]
    formula = recipes.activation_bytes(SMALL, 64, 4, recipe) + parts["16-bit copies"]
    assert kept == pytest.approx(formula, rel=0.02)


def test_states_are_those_of_zero_stage_0():
    config = PRESETS["gpt2"]
    n = cost.num_params(config)
    assert sum(recipes.state_parts(config, RECIPES["master weights"]).values()) == 16 * n
    assert cost.model_state_bytes(n, 1, 0) == 16 * n
    assert sum(recipes.state_parts(config, RECIPES["fp32"]).values()) == 16 * n
    assert sum(recipes.state_parts(config, RECIPES["16 bits only"]).values()) == 8 * n


@pytest.mark.parametrize("d_embed", [None, 32])
def test_matrices_are_the_models_matrices_without_positions(d_embed):
    config = replace(SMALL, d_embed=d_embed)
    model = Transformer(config)
    counted = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    assert recipes.matrices(config) == counted - model.embedding.position.weight.numel()


def test_the_batch_that_fits_fits_and_one_more_does_not():
    config, device = PRESETS["bert-large"], DEVICES["V100 SXM2"]
    for recipe in (RECIPES["fp32"], RECIPES["autocast"]):
        n = recipes.largest_batch(config, 128, device, recipe)
        memory = [sum(recipes.memory_parts(config, 128, b, recipe).values()) for b in (n, n + 1)]
        assert memory[0] <= device.memory_bytes < memory[1]
    assert recipes.largest_batch(PRESETS["gpt3-175b"], 128, device, RECIPES["fp32"]) == 0


def test_step_seconds_by_hand():
    """A toy device of 1 GB/s; every byte and FLOP counted on paper."""
    config = ModelConfig(1, 1, 2, 4, 8, 4, causal=True)
    seconds = recipes.step_seconds(config, 4, 1, TOY, RECIPES["fp32"])
    n = cost.num_params(config)
    flops = 4 * (8 * 4 + 4 * 2 * 4 + 2 * 2 * 8)  # 4 tokens: projections, FFN, logits
    moved = 4 * ((16 + 16 + 16) + 4 * (8 * 2 + 2 * 4 + 2 + 8))
    assert seconds["matrix products"] == pytest.approx(3 * max(flops, moved) / 1e9)
    assert seconds["attention"] == pytest.approx(3 * max(4 * 4 * 4 * 2, 4 * 4 * 4 * 2) / 1e9)
    layer = 2 * 2 * 8 + 2 * 4 * 4 + 2 * 2 * 12
    assert seconds["element-wise"] == pytest.approx(3 * 4 * (layer + 4 * 8) / 1e9)
    assert seconds["optimizer"] == pytest.approx((2 * 16 - 4) * n / 1e9)


def test_a_layer_with_shared_keys_and_a_gate_by_hand():
    """Two heads of 4 channels on one of keys; three maps of 2 x 4; a device that only moves."""
    attention = Attention(n_kv_head=1, head_dim=4)
    form = dict(attention=attention, feed_forward=FeedForward(gated=True), causal=True)
    config = ModelConfig(1, 2, 2, 4, 8, 4, **form)
    assert recipes.matrices(config) == 2 * 8 + 2 * 2 * 4 + 8 * 2 + 3 * 2 * 4 + 8 * 2
    device = Device("toy", {"fp32": 1e30}, 1e9, 1e9, "assumed")
    seconds = recipes.step_seconds(config, 4, 1, device, RECIPES["fp32"])
    values = (2 + 16) + (8 + 2) + 3 * (2 + 4) + (2 + 8)  # into and out of each product
    assert seconds["matrix products"] == pytest.approx(3 * 4 * (88 + 4 * values) / 1e9)
    assert seconds["attention"] == pytest.approx(3 * 4 * 4 * (8 + 4 + 4 + 8) / 1e9)
    layer = 2 * 2 * 8 + (2 + 1) * 4 * 4 + 2 * 2 * 12  # the activation reads two, writes one
    assert seconds["element-wise"] == pytest.approx(3 * 4 * (layer + 4 * 8) / 1e9)


@pytest.mark.parametrize("n", [1, 64, 1000, 16384])
def test_16_bits_over_tf32_is_two_at_any_shape(n):
    """Half the bytes and twice the peak: both roofs double, so no shape gains more."""
    for name in ("A100 80GB SXM", "H100 SXM"):
        gain = recipes.product_speedup(n, DEVICES[name], RECIPES["autocast"], RECIPES["tf32"])
        assert gain == pytest.approx(2)


def test_16_bits_over_fp32_lies_between_bytes_and_peaks():
    a100 = DEVICES["A100 80GB SXM"]
    gains = [
        recipes.product_speedup(n, a100, RECIPES["autocast"], RECIPES["fp32"])
        for n in (8, 64, 128, 256, 1024)
    ]
    assert gains == sorted(gains)
    assert (gains[0], gains[-1]) == (2, 16)


def test_a_type_that_a_device_lacks_is_refused():
    with pytest.raises(ValueError, match="precision on V100 SXM2='tf32'"):
        RECIPES["tf32"].compute(DEVICES["V100 SXM2"])
    assert RECIPES["autocast"].compute(DEVICES["V100 SXM2"]) == "fp16"
    assert RECIPES["autocast"].compute(DEVICES["A100 40GB"]) == "bf16"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recipes.matrices(PRESETS["albert-base"]), "share='all'"),
        (lambda: recipes.matrices(PRESETS["gpt-oss-20b"]), "experts=Experts"),
        (lambda: recipes.matrices(LATENT), "latent=Latent"),
        (lambda: recipes.step_seconds(SMALL, 8, 0, TOY, RECIPES["fp32"]), "batch_size=0"),
        (lambda: recipes.product_speedup(0, TOY, RECIPES["fp32"], RECIPES["fp32"]), "n=0"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
