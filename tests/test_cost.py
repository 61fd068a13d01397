"""Closed forms against released models, published tables, and our own Transformer."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efflab import cost, devices
from efflab.config import ACTIVATIONS, PRESETS, SHARING, ModelConfig
from efflab.data import read_published
from efflab.devices import DEVICES


def rows(name):
    return [
        pytest.param(row, id=" ".join(map(str, list(row.values())[:3])))
        for row in read_published(name)
    ]


@pytest.mark.parametrize("row", rows("params"))
def test_released_parameter_counts(row):
    name = row["model"]
    if name == "bert-base-30k":
        config = replace(PRESETS["bert-base"], vocab_size=30000, pooler=False)
    else:
        config = PRESETS[name]
    assert cost.num_params(config) == row["params"]


@st.composite
def configs(draw):
    n_head = draw(st.integers(1, 4))
    d_model = n_head * draw(st.integers(1, 6))
    return ModelConfig(
        draw(st.integers(1, 4)),
        n_head,
        d_model,
        draw(st.integers(1, 40)),
        draw(st.integers(1, 50)),
        draw(st.integers(1, 20)),
        causal=draw(st.booleans()),
        d_embed=draw(st.none() | st.just(d_model) | st.integers(1, 30)),
        share=draw(st.sampled_from(SHARING)),
        type_vocab=draw(st.integers(0, 3)),
        pooler=draw(st.booleans()),
        norm_first=draw(st.none() | st.booleans()),
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )


@given(configs())
@settings(max_examples=60, deadline=None)
def test_formula_counts_what_the_model_has(config):
    from efflab.model import Transformer

    assert cost.num_params(config) == sum(p.numel() for p in Transformer(config).parameters())


@given(configs(), st.integers(1, 20), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_flops_are_what_torch_counts(config, seq_len, batch_size):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from efflab.model import Transformer

    seq_len = min(seq_len, config.max_len)
    ids = torch.zeros(batch_size, seq_len, dtype=torch.long)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        Transformer(config)(ids)
    assert counter.get_total_flops() == cost.forward_flops(config, seq_len, batch_size)


def test_sharing_changes_parameters_and_not_flops():
    plain = replace(PRESETS["albert-base"], share="none")
    assert cost.num_params(plain) > 5 * cost.num_params(PRESETS["albert-base"])
    assert cost.forward_flops(plain, 128) == cost.forward_flops(PRESETS["albert-base"], 128)


def zero_tolerance(value):
    """Half the last printed digit; cells of 100 and more are truncated in the paper."""
    digits = len(str(value).partition(".")[2])
    return 1.0 if value >= 100 else 0.5 * 10**-digits + 1e-9


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("row", rows("zero"))
def test_zero_table(row, stage):
    printed = row[f"stage{stage}_gb"]
    gigabytes = cost.model_state_bytes(7.5e9, row["dp_degree"], stage) / 1e9
    assert gigabytes == pytest.approx(printed, abs=zero_tolerance(printed))


OPTIONS = {
    "none": {},
    "tensor parallel": dict(tensor_parallel=8),
    "tensor + sequence parallel": dict(tensor_parallel=8, sequence_parallel=True),
    "tensor parallel + selective recompute": dict(tensor_parallel=8, recompute="selective"),
    "tensor + sequence parallel + selective recompute": dict(
        tensor_parallel=8, sequence_parallel=True, recompute="selective"
    ),
    "full recompute": dict(recompute="full"),
}


def test_state_without_an_optimizer_or_gradients():
    sgd = cost.model_state_bytes(1e9, 8, 0, param_bytes=4, grad_bytes=4, optimizer_bytes=0)
    assert sgd == 8e9
    assert cost.model_state_bytes(1e9, 8, 3, grad_bytes=0, optimizer_bytes=0) == 2e9 / 8


@pytest.mark.parametrize("row", rows("activations"))
def test_activation_table(row):
    config, s, b, t = PRESETS["gpt3-175b"], 2048, 3, 8
    names = dict(s=s, b=b, h=config.d_model, a=config.n_head, t=t)
    per_layer = eval(row["bytes_per_layer"], {}, names)
    computed = cost.activation_bytes(config, s, b, **OPTIONS[row["configuration"]])
    assert computed == pytest.approx(per_layer * config.n_layer, rel=1e-12)


def test_activations_follow_the_width_of_the_ffn():
    narrow = replace(PRESETS["gpt2"], d_ff=768)
    gap = cost.activation_bytes(PRESETS["gpt2"], 10, 1) - cost.activation_bytes(narrow, 10, 1)
    assert gap == 12 * 10 * 4 * (3072 - 768)  # two 2-byte values a hidden unit


def test_activations_are_what_autograd_saves():
    import torch

    from efflab.model import Transformer

    config = ModelConfig(2, 4, 64, 256, 50, 64, causal=True)
    model, kept = Transformer(config), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    x = torch.randn(3, 64, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        for layer in model.layers:
            x = layer(x)
    formula = cost.activation_bytes(
        config, 64, 3, value_bytes=4, dropout=False, fused_attention=True
    )
    assert sum(kept.values()) == pytest.approx(formula, rel=0.03)  # the norms' statistics on top


def test_training_days_of_gpt3_and_a_trillion():
    assert round(cost.training_days(175e9, 300e9, 1024, 140e12)) == 34
    assert round(cost.training_days(1e12, 450e9, 3072, 163e12)) == 83  # the paper's 84, rounded up
    with_recompute = cost.training_days(1e9, 1e9, 1, 1e12)
    without = cost.training_days(1e9, 1e9, 1, 1e12, recompute=False)
    assert without == pytest.approx(0.75 * with_recompute)
    assert cost.training_flops(1, 1) == 8
    assert cost.training_flops(1, 1, recompute=False) == 6


@pytest.mark.parametrize("row", rows("devices"))
def test_devices_are_the_datasheets(row):
    device = DEVICES[row["device"]]
    columns = {
        "fp32": "fp32_tflops",
        "tf32": "tf32_tflops",
        "fp16": "fp16_bf16_tflops",
        "fp8": "fp8_tflops",
        "int8": "int8_tops",
    }
    printed = {dtype: row[c] * 1e12 for dtype, c in columns.items() if row[c]}
    peaks = {dtype: value for dtype, value in device.peak_flops.items() if dtype != "bf16"}
    assert peaks == pytest.approx(printed)
    assert ("bf16" in device.peak_flops) == (
        bool(row["fp16_bf16_tflops"]) and "V100" not in device.name
    )
    assert device.memory_bandwidth == row["memory_bandwidth_gb_per_s"] * 1e9
    assert device.memory_bytes == (row["memory_gb"] * 2**30 if row["memory_gb"] else None)
    if row["nvlink_gb_per_s"]:
        assert device.cluster.inside_bytes_per_second == row["nvlink_gb_per_s"] * 1e9
        assert device.cluster.outside_bytes_per_second == row["network_gb_per_s"] * 1e9


TODAY = {
    "A100 80GB SXM": "NVIDIA A100 SXM 80GB",
    "H100 SXM": "NVIDIA H100 SXM 80GB",
    "V100 SXM2": "NVIDIA V100 SXM2",
    "H200 SXM": "NVIDIA H200 SXM",
    "B200 SXM": "NVIDIA B200 SXM (HGX)",
    "MI300X": "AMD Instinct MI300X",
    "L4": "NVIDIA L4",
    "L40S": "NVIDIA L40S",
    "RTX 4090": "NVIDIA RTX 4090",
    "RTX 5090": "NVIDIA RTX 5090",
    "TPU v5e": "Google TPU v5e",
    "TPU v5p": "Google TPU v5p",
    "TPU v6e": "Google TPU v6e (Trillium)",
    "Ascend 910B": "Huawei Ascend 910B (376T bin)",
    "M4 Max": "Apple M4 Max (40-core GPU)",
}
"""Devices -> their rows of devices_today.csv, which has not the two others of devices.csv."""


def test_every_device_is_in_a_table():
    assert DEVICES.keys() - TODAY.keys() == {"A100 40GB", "TPUv1"}


@pytest.mark.parametrize(("name", "label"), TODAY.items())
def test_devices_of_today_are_their_rows(name, label):
    device, table = DEVICES[name], {row["device"]: row for row in read_published("devices_today")}
    row = table[label]
    columns = {dtype: f"{dtype}_tflops" for dtype in ("fp32", "tf32", "fp16", "bf16", "fp8")}
    printed = {d: row[c] * 1e12 for d, c in (columns | dict(int8="int8_tops")).items() if row[c]}
    # devices.csv rounds the H100's 1978.9 of fp8 and int8
    assert device.peak_flops == pytest.approx(printed, rel=1e-4)
    assert device.memory_bandwidth == row["bandwidth_gb_s"] * 1e9
    assert device.memory_bytes == row["memory_gb"] * 2**30
    if row["interconnect_gb_s_per_direction"]:
        inside = row["interconnect_gb_s_per_direction"] * 1e9
        assert device.cluster.inside_bytes_per_second == inside
    assert ("unsure" in device.source) == ("low" in row["sure"] and "INT8 low" not in row["sure"])


def test_a_device_of_ones_own_has_what_its_owner_says():
    device = devices.own_device(100, 24, 1000)
    assert (device.peak("bf16"), device.peak("fp16")) == (1e14, 1e14)
    assert (device.memory_bytes, device.memory_bandwidth) == (24 * 2**30, 1e12)
    for sizes, words in (((0, 1, 1), "tflops=0"), ((1, -1, 1), "gb=-1"), ((1, 1, 0), "gbps=0")):
        with pytest.raises(ValueError, match=words):
            devices.own_device(*sizes)


def test_roofline_has_two_sides():
    a100 = DEVICES["A100 80GB SXM"]
    assert cost.roofline_seconds(312e12, 0, a100, "bf16") == 1
    assert cost.roofline_seconds(0, 2039e9, a100, "bf16") == 1
    ridge = a100.ridge("bf16")
    assert math.isclose(ridge, 312e12 / 2039e9)


@pytest.mark.parametrize("name", ["bert-base", "gpt2", "gpt3-175b"])
def test_crossing_length_is_where_the_parts_meet(name):
    config = PRESETS[name]
    parts = cost.flops_by_part(config, cost.crossing_length(config))
    assert parts["scores"] == parts["ffn"]
    assert cost.attention_share(config, cost.crossing_length(config, "linear")) == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ModelConfig(0, 1, 8, 8, 8, 8), "n_layer=0: expected an int of at least 1"),
        (lambda: ModelConfig(1, 3, 8, 8, 8, 8), "n_head=3: expected a divisor of d_model=8"),
        (lambda: ModelConfig(1, 1, 8, 8, 8, 8, share="qkv"), "share='qkv': expected one of 'none'"),
        (lambda: cost.model_state_bytes(1e9, 0, 1), "dp_degree=0"),
        (lambda: cost.model_state_bytes(1e9, 8, 4), "zero_stage=4: expected one of 0, 1, 2, 3"),
        (lambda: cost.activation_bytes(PRESETS["gpt2"], 8, 1, recompute="some"), "'selective'"),
        (lambda: cost.forward_flops(PRESETS["gpt2"], 0), "seq_len=0"),
        (lambda: cost.model_state_bytes(0, 8, 1), "n_params=0: expected a positive number"),
        (lambda: cost.model_state_bytes(1e9, 8, 1, grad_bytes=-2), "grad_bytes=-2"),
        (lambda: cost.activation_bytes(PRESETS["gpt2"], 8, 1, value_bytes=0), "value_bytes=0"),
        (lambda: cost.training_flops(-1, 1), "n_params=-1"),
        (lambda: cost.training_flops(1, 0), "n_tokens=0"),
        (lambda: cost.training_days(0, 1, 1, 1), "n_params=0"),
        (lambda: cost.training_days(1, -1, 1, 1), "n_tokens=-1"),
        (lambda: cost.training_days(1, 1, 0, 1), "n_devices=0"),
        (lambda: cost.training_days(1, 1, 1, -1e12), "flops_per_device=-1"),
        (lambda: cost.roofline_seconds(-1, 1, DEVICES["V100 SXM2"]), "flops=-1"),
        (lambda: cost.roofline_seconds(1, -1, DEVICES["V100 SXM2"]), "n_bytes=-1"),
        (lambda: cost.roofline_seconds(1, 1, DEVICES["V100 SXM2"], "bf16"), "V100 SXM2='bf16'"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match="expected") as error:
        call()
    assert message in str(error.value)


def test_a_wrong_type_is_a_type_error():
    with pytest.raises(TypeError, match=r"n_layer=2\.5: expected an int"):
        ModelConfig(2.5, 1, 8, 8, 8, 8)


MILLIONS = {  # as the papers and the models' cards name them
    "bert-base": 110,
    "bert-large": 340,
    "minilm-l6": 22.7,
    "gpt2-xl": 1558,
    "gpt3-175b": 174.6e3,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_presets_have_the_size_they_are_known_for(name):
    assert cost.num_params(PRESETS[name]) / 1e6 == pytest.approx(MILLIONS[name], rel=0.02)
