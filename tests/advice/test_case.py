"""What advice is asked for: the unchanged model's needs, and arguments that are refused."""

from dataclasses import replace

import pytest

from efflab import cost
from efflab.advice import recorded
from efflab.advice.case import ALL_DEVICES, BUDGETS, CPUS, GPUS, SERVING, Case
from efflab.config import PRESETS
from efflab.devices import DEVICES, own_device

A100 = "A100 80GB SXM"
OWN = own_device(165, 24, 1008)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(model="bert"), ("source='bert'", "'bert-base'")),
        (dict(device="TPUv1"), ("device='TPUv1'", "'A100 80GB SXM'")),
        (dict(budget="price"), ("budget='price'", "'latency'")),
        (dict(device=replace(OWN, name=" ")), ("device=' '", "a device's name")),
        (dict(n_devices=0), ("n_devices=0", "at least 1")),
        (dict(device="CPU with VNNI", n_devices=2), ("n_devices=2", "1 with a CPU")),
        (dict(seq_len=0), ("seq_len=0", "at least 1")),
        (dict(seq_len=513), ("seq_len=513", "at most max_len=512")),
    ],
)
def test_a_bad_argument_is_named_with_what_is_allowed(changes, words):
    asked = dict(model="bert-base", device=A100, budget="latency") | changes
    with pytest.raises(ValueError, match=r".") as error:
        Case(**asked)
    assert all(word in str(error.value) for word in words)


def test_defaults_are_the_longest_text_on_one_device():
    case = Case("bert-base", A100, "memory")
    assert (case.tokens, case.n_devices) == (512, 1)
    assert Case("bert-base", A100, "memory", seq_len=64).tokens == 64
    assert case.flops == cost.forward_flops(PRESETS["bert-base"], 512)
    assert case.n_params == 109482240


def test_every_device_and_budget_is_taken():
    assert set(DEVICES) - set(GPUS) == {"TPUv1", "M4 Max"}  # no memory, no products in 16 bits
    for device in ALL_DEVICES:
        for budget in (*BUDGETS, *SERVING):
            assert Case("gpt2", device, budget).budget == budget


def test_each_kind_of_cpu_has_a_record_of_its_own():
    new, old = (recorded.engine_row("OpenVINO INT8", device) for device in CPUS)
    assert new["1x16"] < 0.5 < old["1x16"]  # time over fp32's


def test_seconds_are_the_roofline_and_on_a_cpu_flops_alone():
    case = Case("bert-base", A100, "latency")
    gpu = DEVICES[A100]
    assert case.dtype == "tf32"
    assert Case("bert-base", "V100 SXM2", "latency").dtype == "fp32"
    assert case.seconds(156e12) == pytest.approx(1.0)
    assert case.seconds(1.0) == pytest.approx(4 * case.n_params / gpu.memory_bandwidth)
    assert case.seconds(1.0, 2039e9) == pytest.approx(1.0)
    assert case.seconds(312e12, 1.0, "fp16") == pytest.approx(1.0)
    assert Case("bert-base", "CPU with VNNI", "latency").seconds(7.0, 1.0, "int8") == 7.0


def test_training_bytes_are_the_state_and_what_layers_keep():
    case = Case("bert-base", A100, "memory", seq_len=128)
    kept = cost.activation_bytes(
        case.config, 128, 8, value_bytes=4, dropout=False, fused_attention=True
    )
    assert case.training_bytes() == 16 * case.n_params + kept
    shared = replace(case.config, share="all")
    assert case.training_bytes(shared) == 16 * cost.num_params(shared) + kept
    assert case.training_bytes(value_bytes=2) < case.training_bytes()
