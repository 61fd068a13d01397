"""The model of both sides, by hand and at its limits."""

from dataclasses import replace

import pytest

from efflab.acceleration import npu, systolic
from efflab.acceleration.systolic import Product
from efflab.config import PRESETS
from efflab.devices import DEVICES

A100 = DEVICES["A100 40GB"]


def test_tpu_v1_has_its_published_peak():
    assert npu.TPU_V1.peak_ops == pytest.approx(DEVICES["TPUv1"].peak("int8"), rel=0.005)


def test_npu_time_is_scale_sims_cycles_or_the_memorys():
    wide = Product("x", 4096, 512, 512)  # long streams: multiplying decides
    cycles = systolic.gemm_cycles(4096, 512, 512, 256, 256, "ws") + 1
    plain = replace(npu.TPU_V1, overlap=False)
    assert npu.npu_seconds(wide, plain) == pytest.approx(cycles / 700e6)
    # four folds: the second register hides three times the loading and the diagonal
    hidden = cycles - 3 * (256 + 510)
    assert npu.npu_seconds(wide, npu.TPU_V1) == pytest.approx(hidden / 700e6)
    thin = Product("x", 1, 4096, 4096)  # one token: reading the weights decides
    assert npu.npu_seconds(thin, npu.TPU_V1) == pytest.approx(4096 * 4096 / 34e9)
    assert npu.npu_seconds(thin, npu.TPU_V1, 1e-3) == 1e-3


def test_gpu_time_is_whole_waves_or_the_memorys():
    full = Product("x", 12 * 128, 9 * 128, 4096)  # 108 tiles: one of 128 x 128 a multiprocessor
    assert npu.gpu_seconds(full, A100, "fp16") == pytest.approx(2 * full.macs / 312e12)
    one_more = replace(full, m=12 * 128 + 1)  # another wave, of smaller tiles
    seconds = npu.gpu_seconds(one_more, A100, "fp16")
    assert seconds > 1.05 * npu.gpu_seconds(full, A100, "fp16")
    thin = Product("x", 1, 4096, 4096)
    assert npu.gpu_seconds(thin, A100, "fp16") == pytest.approx(2 * 4096 * 4096 / 1555e9)


def test_heads_share_the_waves():
    head = Product("scores", 32, 32, 64)
    one, same, two = (
        npu.gpu_seconds(replace(head, count=c), A100, "fp32") for c in (100, 108, 109)
    )
    assert one == same  # a 32 x 32 tile for each of at most 108 multiprocessors
    assert two == pytest.approx(2 * one)


def test_neither_is_faster_than_its_peak():
    for batch in (1, 8):
        for p in systolic.block_products(PRESETS["gpt2"], 100):
            p = replace(p, count=p.count * batch)
            assert npu.npu_seconds(p, npu.TPU_V1) >= 2 * p.macs / npu.TPU_V1.peak_ops
            for dtype in A100.peak_flops:
                assert npu.gpu_seconds(p, A100, dtype) >= 2 * p.macs / A100.peak(dtype)


def test_a_twin_is_as_strong_and_never_wins_large():
    twin = npu.twin(A100, "fp16")
    assert twin.peak_ops == pytest.approx(A100.peak("fp16"))
    assert twin.memory_bandwidth == A100.memory_bandwidth
    huge = Product("x", 128 * 12 * 64, 128 * 9 * 8, 4096)
    ratio = npu.npu_seconds(huge, twin) / npu.gpu_seconds(huge, A100, "fp16")
    assert 1 < ratio < 1.001


def test_an_equal_launch_draws_both_together():
    p = Product("x", 128, 768, 768)
    far, near = (
        npu.npu_seconds(p, npu.TPU_V1, o) / npu.gpu_seconds(p, A100, "int8", o) for o in (0.0, 1e-3)
    )
    assert far > near == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: npu.npu_seconds(Product("x", 1, 1, 1), npu.TPU_V1, -1.0), "launch=-1.0"),
        (lambda: npu.gpu_seconds(Product("x", 1, 1, 1), DEVICES["TPUv1"], "int8"), "TPUv1"),
        (lambda: npu.gpu_seconds(Product("x", 1, 1, 1), A100, "fp8"), "fp8"),
        (lambda: replace(npu.TPU_V1, rows=0), "rows=0: expected an int of at least 1"),
        (lambda: replace(npu.TPU_V1, hertz=-1.0), "hertz=-1.0: expected a positive number"),
        (lambda: replace(npu.TPU_V1, memory_bandwidth=0.0), "memory_bandwidth=0.0"),
        (lambda: replace(npu.TPU_V1, dataflow="rs"), "dataflow='rs'"),
        (lambda: replace(npu.TPU_V1, dtype="fp64"), "dtype='fp64'"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
