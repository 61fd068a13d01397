"""Notebook 06: its numbers against torch and papers, its pictures, verdicts and exercises."""

import json
import math
import os
import subprocess
import sys
from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from efflab import bench, cost, lab, profile
from efflab.acceleration import block_formats
from efflab.acceleration.precision import FORMATS
from efflab.acceleration.recipes import RECIPES, largest_batch, state_parts
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.experiments import mixed_precision as experiment
from efflab.experiments.record import agrees, expected_repeat, read_record, same_python
from efflab.lab.check import judge
from efflab_rooms.mixed_precision import exercises, figures, measure, verdicts

# --- Formats ---------------------------------------------------------------------------------


def test_the_explorers_bits_are_the_number(both_languages):
    fig = figures.bits_of(-1, 1.0)
    rows = dict(zip(FORMATS, fig.data[0].text, strict=True))
    assert "".join(rows["fp16"]) == f"{torch.tensor(0.1).half().view(torch.int16).item():016b}"
    expected = torch.tensor(0.1).view(torch.int32).item()
    assert "".join(rows["fp32"]) == f"{expected:032b}"
    assert "10⁻¹²" in figures.bits_of(-12, 1.0).layout.title.text


def test_live_its_sliders_move_the_picture():
    live = lab.Explorer(figures.bits_of, frames=0)
    live.set(times=2.5)  # the suite's one slider over numbers that are not whole
    assert live.figure.layout.meta["number shown"] == pytest.approx(0.25)
    assert live.widgets["times"].max == 9.9


def test_small_and_large_numbers_are_told():
    ticks = figures.bits_of(-9, 3.0).layout.yaxis.ticktext
    assert [lab.tr("becomes zero") in text for text in ticks] == [False] * 3 + [True] * 3
    ticks = figures.bits_of(6, 9.0).layout.yaxis.ticktext
    assert lab.tr("too large") in ticks[3]  # fp16's infinity
    assert "448" in ticks[4]  # e4m3fn saturates


def test_blocks_lose_fewer_gradients_than_integers():
    weight, gradient = measure.weight_and_gradient()
    codes = {name: encode(weight) for name, encode in measure.ENCODERS.items()}
    bits = [8 * code.nbytes / weight.numel() for code in codes.values()]
    assert bits == [5, 4.25, 9, 8.25, 8.25]
    decoded = {name: encode(gradient).dequantize() for name, encode in measure.ENCODERS.items()}
    lost = {name: measure.share_lost(values, gradient) for name, values in decoded.items()}
    assert lost["MXFP4"] < lost["INT4, groups of 32"]
    assert lost["MXFP8 e5m2"] <= lost["MXFP8 e4m3"] < 0.1 < lost["INT8, groups of 32"]
    error = {n: measure.relative_error(code.dequantize(), weight) for n, code in codes.items()}
    assert error["INT8, groups of 32"] < error["MXFP8 e4m3"] < error["MXFP8 e5m2"]
    assert error["MXFP8 e5m2"] < error["INT4, groups of 32"] < error["MXFP4"]


# --- Gradients -------------------------------------------------------------------------------


def test_the_floor_is_where_fp16_makes_zero():
    floor = FORMATS["fp16"].smallest / 2
    x = torch.tensor([floor, 1.001 * floor, 2.0**-14, 2.0**-15, 65520.0])
    assert (x.half() == 0).tolist() == [True, False, False, False, False]
    shares = measure.fp16_shares(x)
    assert (shares["zero"], shares["infinite"]) == (pytest.approx(20), pytest.approx(20))
    assert shares["fewer bits"] == pytest.approx(40)


def test_scaling_saves_gradients_until_they_overflow(both_languages):
    gradients = measure.step_gradients(2, 64)
    for magnitudes in gradients.values():
        shares = [measure.fp16_shares(magnitudes, 2.0**power) for power in range(0, 25, 4)]
        zero = [share["zero"] for share in shares]
        assert zero == sorted(zero, reverse=True)
        assert zero[0] > 0.1 > 0.01 > zero[-2]
        infinite = [share["infinite"] for share in shares]
        assert infinite[0] == 0 < infinite[-1]
    lost = list(figures.floor_figure(gradients, 2.0**10).layout.meta.values())
    assert lost[1] < lost[0]
    assert lost[3] < lost[2]


def test_skipped_steps_are_marked_and_counted(both_languages):
    scales = [8.0, 4.0, 4.0, 8.0]
    steps = [dict(step=i, scale=x, skipped=i in (0, 3), loss=5.0 - i) for i, x in enumerate(scales)]
    fig = figures.scaler_figure(steps)
    assert list(fig.layout.meta.values()) == [2, 1, 3]  # skipped, times grown, log2 of the last
    crosses = [(list(t.x), list(t.y)) for t in fig.data if t.mode == "markers"]
    assert crosses == [([0, 3], [3, 3]), ([0, 3], [5, 2])]


def test_what_is_never_zeroed_stands_beside_what_is(both_languages):
    zeroed = np.stack([np.full((2, 50), 2.0), np.full((2, 50), 4.0)])
    fig = figures.zeroing_figure(zeroed, zeroed + 0.5)
    assert list(fig.layout.meta.values()) == [3, 3.5]
    assert [t.y[-1] for t in fig.data] == [3, 3, 3.5, 3.5]


# --- Memory ----------------------------------------------------------------------------------


def whole_steps(of):
    """{recipe: its totals} at 2 sequences of 64 tokens, by `step_bytes` or `formula_bytes`."""
    return {recipe: measure.totals(of(recipe, 2, 64)) for recipe in measure.STEP_RECIPES}


def test_formula_and_real_step_agree():
    formulas = whole_steps(measure.formula_bytes)
    for recipe, step in whole_steps(measure.step_bytes).items():
        for part, n_bytes in step.items():
            tolerance = 0.2 if part == measure.PEAK else 0.01
            ratio = n_bytes / formulas[recipe][part]
            assert ratio == pytest.approx(1, abs=tolerance), (recipe, part)


@pytest.mark.parametrize(
    ("recipe", "chunk"), [*((r, 0) for r in measure.STEP_RECIPES), ("master weights", 32)]
)
def test_products_left_out_take_the_bytes_of_real_ones(monkeypatch, recipe, chunk):
    with profile.ProductsLeftOut():
        assert not (torch.ones(2, 3) @ torch.ones(3, 4)).any()
        heads = torch.ones(1, 2, 3, 4)
        assert not F.scaled_dot_product_attention(heads, heads, heads, is_causal=True).any()
    without = measure.step_bytes(recipe, 2, 64, chunk)
    monkeypatch.setattr(profile, "ProductsLeftOut", nullcontext)
    multiplied = measure.step_bytes.__wrapped__(recipe, 2, 64, chunk)
    peaks = without.pop(measure.PEAK), multiplied.pop(measure.PEAK)
    assert without == multiplied
    assert abs(peaks[0] - peaks[1]) <= 64  # torch's own scalars


def test_what_halves_and_what_does_not():
    steps = whole_steps(measure.step_bytes)
    state = {recipe: step["state"] / steps["fp32"]["state"] for recipe, step in steps.items()}
    assert [state[recipe] for recipe in measure.MIXED_RECIPES] == pytest.approx([1, 1], abs=1e-3)
    assert state["16 bits only"] == pytest.approx(0.5, abs=1e-3)
    kept = {recipe: step[measure.BACKWARD] for recipe, step in steps.items()}
    assert kept["master weights"] / kept["fp32"] == pytest.approx(0.55, abs=0.01)


def test_master_weights_move_what_bf16_alone_would_not():
    """1 + 1/512 is 1 in bf16; four such updates are not lost where fp32 keeps them."""
    model = torch.nn.Linear(1, 1, bias=False).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1)
    optimizer = measure.MasterAdamW(model.parameters(), lr=1 / 512)
    for _ in range(4):
        model.weight.grad = torch.full_like(model.weight, -1.0)
        optimizer.step()
    assert model.weight.item() == 1 + 1 / 128
    plain = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    adam = torch.optim.AdamW([plain], lr=1 / 512)
    for _ in range(4):
        plain.grad = torch.full_like(plain, -1.0)
        adam.step()
    assert plain.item() == 1


@pytest.mark.parametrize("recipe", measure.STEP_RECIPES)
def test_a_loss_in_chunks_is_the_loss(recipe):
    whole, chunks = (measure.Training(recipe, 2, 24, chunk) for chunk in (0, 7))
    losses = [training(training.ids) for training in (whole, chunks)]
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-5)
    for loss in losses:
        loss.backward()
    tolerance = 1e-6 if recipe == "fp32" else 2e-3  # 16-bit gradients add up in another order
    for a, b in zip(whole.parameters(), chunks.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=tolerance)


def test_in_chunks_what_is_kept_is_half():
    steps = {
        (64 * n, chunk, recipe): measure.totals(measure.step_bytes(recipe, n, 64, chunk))
        for n in (2, 4)
        for chunk in (0, 32)
        for recipe in ("fp32", "master weights")
    }

    def share(tokens, chunk, part):
        full, mixed = (steps[tokens, chunk, r][part] for r in ("fp32", "master weights"))
        return mixed / full

    for tokens in (128, 256):
        assert share(tokens, 32, measure.BACKWARD) == pytest.approx(0.5, abs=0.005)
        assert share(tokens, 0, measure.BACKWARD) > 0.54


def test_a_token_adds_what_the_text_says():
    """62 % of what it adds to fp32's peak, the loss whole; about half, the loss in chunks."""
    for chunk, share in ((0, 0.62), (measure.CHUNK, 0.5)):
        more = [
            measure.step_bytes(recipe, 4, 512, chunk)[measure.PEAK]
            - measure.step_bytes(recipe, 2, 512, chunk)[measure.PEAK]
            for recipe in ("fp32", "master weights")
        ]
        assert more[1] / more[0] == pytest.approx(share, abs=0.01)


def test_fp8_needs_its_scale():
    _, gradient = measure.weight_and_gradient()
    lost = {
        name: measure.share_lost(store(gradient), gradient)
        for name, store in measure.OF_A_TENSOR.items()
    }
    assert lost["FP8 e4m3, no scale"] > 90
    assert lost["INT8, one scale"] > 1 > 0.1 > lost["FP8 e4m3, one scale"]
    assert lost["FP8 e5m2, one scale"] == 0
    error = {
        n: measure.relative_error(f(gradient), gradient) for n, f in measure.OF_A_TENSOR.items()
    }
    assert error["INT8, one scale"] < error["FP8 e4m3, one scale"] < error["FP8 e5m2, one scale"]
    x = torch.tensor([[448.0, -1.0], [0.3, 0.0]])
    assert torch.equal(experiment.round_to_fp8(x, measure.E4M3), x.to(measure.E4M3).float())


def test_products_in_fp8_have_their_gradients():
    """Values that e4m3 holds at these scales: the product and both gradients are exact."""
    x = torch.tensor([[[448.0, 7.0]]], requires_grad=True)
    weight = torch.tensor([[2.0, -448.0]], requires_grad=True)
    y = experiment.Fp8Product.apply(x, weight)
    assert y.item() == 448 * 2 - 7 * 448
    y.backward(torch.tensor([[[3.5]]]))
    assert torch.equal(x.grad, torch.tensor([[[7.0, -1568.0]]]))
    assert torch.equal(weight.grad, torch.tensor([[1568.0, 24.5]]))
    linear = torch.nn.Linear(2, 1)
    experiment.multiply_in_fp8(linear)
    assert torch.equal(linear(x), experiment.Fp8Product.apply(x, linear.weight) + linear.bias)


def test_parts_figure(both_languages):
    small = list(figures.parts_figure(2, 64).layout.meta.values())
    assert small[0] == 1 < small[1]  # the copies of the weights outweigh what a small batch saves
    large = list(figures.parts_figure(4, 128).layout.meta.values())
    assert large == sorted(large, reverse=True)


# --- Speed -----------------------------------------------------------------------------------


def test_the_product_is_right_with_and_without_the_instructions():
    """AVX2 alone, set before torch loads; the error is bf16's rounding of two inputs and a sum."""
    here = measure.product_ratio(128, repeats=2)
    call = f"from {measure.__name__} import product_ratio as p; print(json.dumps(p(128)))"
    capped = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", f"import json; {call}"]
    out = subprocess.run(command, env=capped, text=True, check=True, capture_output=True)
    there = json.loads(out.stdout.splitlines()[-1])
    for ratio in (here, there):
        assert ratio["error"] == pytest.approx(0.3, abs=0.05)
        assert ratio["low"] <= ratio["mean"] <= ratio["high"]


def test_ratios_of_this_cpu():
    ratios = measure.cpu_ratios(1, 16)
    assert len(ratios) == (5 if bench.cpu_features()["bf16"] else 4)
    assert all(r["low"] <= r["mean"] <= r["high"] and r["band"] >= 0 for r in ratios.values())


def test_published_gains_are_the_readmes():
    runs = [run for run in verdicts.published_runs() if "inference" not in run["task"]]
    over = {base: [r["gain"] for r in runs if r["baseline"] == base] for base in ("TF32", "FP32")}
    assert min(over["TF32"]) == pytest.approx(1.59, abs=0.01)
    assert max(over["TF32"]) == pytest.approx(1.93, abs=0.01)
    assert min(over["FP32"]) == pytest.approx(3.77, abs=0.01)
    assert max(over["FP32"]) == pytest.approx(4.51, abs=0.01)
    assert {r["device"][:4] for r in runs if r["baseline"] == "FP32"} == {"V100"}
    assert set(verdicts.batch_gains()) == {1.0, 2.0}
    assert len(verdicts.published_runs()) == 14


def test_published_steps_are_below_the_roofline():
    shapes = {("A100", 128): 256, ("A100", 512): 32, ("V100", 128): 64, ("V100", 512): 8}
    names = {device[:4]: device for device in figures.GPUS}
    runs = [r for r in verdicts.published_runs() if r["task"] == "pretraining"]
    alone = [r for r in runs if r["n_devices"] == 1]
    assert len(alone) == 4
    for run in alone:
        device, seq_len = run["device"][:4], run["seq_len"]
        case = names[device], run["baseline"].lower(), seq_len, shapes[device, seq_len]
        assert 1.5 < run["gain"] < measure.step_gain(*case)


def test_roofs_figure(both_languages):
    meta = dict(figures.roofs_figure().layout.meta)
    assert sorted(meta.values()) == [2, 2, 7.96, 14.77, 16]


def test_explorer_shows_what_fits(both_languages):
    meta = dict(figures.training(64, "master weights").layout.meta)
    full = dict(figures.training(64, "fp32").layout.meta)
    fits = lab.tr("largest batch that fits")
    assert 1.8 < meta[fits] / full[fits] < 2
    assert meta["GB"] < full["GB"]
    assert meta[lab.tr("times faster than fp32")] > 5
    assert lab.tr("does not fit") in figures.training(1024, "fp32").layout.title.text


def test_what_the_text_says_of_models_of_today():
    """Llama 3.1 70B: no mixed state below fp32's, 14 cards; Qwen3-8B: one recipe fits an A100."""
    llama, qwen = PRESETS["llama-3.1-70b"], PRESETS["qwen3-8b"]
    state = {name: sum(state_parts(llama, r).values()) / 1e9 for name, r in RECIPES.items()}
    assert state["fp32"] == pytest.approx(1129, abs=0.5)
    assert all(state[name] >= state["fp32"] for name in measure.MIXED_RECIPES)
    a100 = DEVICES["A100 80GB SXM"]
    assert 13 < 1e9 * state["fp32"] / a100.memory_bytes < 14
    weights = [cost.weight_bytes(llama, name) / 1e9 for name in ("fp32", "bf16", "fp8")]
    assert weights == pytest.approx([282, 141, 71], abs=0.5)
    fitting = [name for name, r in RECIPES.items() if largest_batch(qwen, 128, a100, r)]
    assert fitting == ["16 bits only"]


# --- Curves ----------------------------------------------------------------------------------


def test_recorded_runs_are_paired(both_languages):
    for name in experiment.PRECISIONS:
        assert sorted(measure.by_seed(name, "loss")) == list(experiment.SEEDS)
    assert measure.difference("fp32").mean == 0
    assert all(d.low <= d.mean <= d.high for d in map(measure.difference, experiment.PRECISIONS))
    mixed = measure.difference("bf16 autocast")
    assert mixed.low <= 0 <= mixed.high  # what the recap rests on: no difference seen
    assert measure.difference(experiment.CONTROL).low > 0.3  # the control: it would have been seen
    scaled = measure.difference("fp8 scaled")
    assert scaled.high < measure.difference(experiment.CONTROL).low
    assert len(figures.loss_curves().data) == 5 + 4 * len(experiment.SEEDS)


def test_the_beginning_again():
    now = {}
    for name in ("fp32", "bf16 autocast"):
        losses, _ = experiment.train_until(name, 0, stop=experiment.EARLY)
        now[name] = experiment.early_loss(losses)
    assert abs(now["fp32"] - now["bf16 autocast"]) < 0.02
    if same_python(read_record(experiment.NAME)):
        for name, loss in now.items():
            assert agrees(loss, *expected_repeat(measure.by_seed(name, "early"), 0))


# --- Arguments and exercises -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.bits_of(7), "power=7"),
        (lambda: figures.bits_of(-1, 10.0), "times=10.0"),
        (lambda: measure.step_gradients(0, 8), "batch_size=0"),
        (lambda: measure.Training("tf32", 1, 8), "recipe='tf32'"),
        (lambda: measure.Training("fp32", 1, 8, -1), "chunk=-1"),
        (lambda: figures.training(device="V100 SXM2", recipe="tf32"), "'tf32'"),
        (lambda: experiment.train_until("fp8"), "precision='fp8'"),
        (lambda: experiment.train_until("fp32", -1), "seed=-1"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def rounded(x, exponent_bits, mantissa_bits):
    exponent = max(math.frexp(x)[1] - 1, 2 - 2 ** (exponent_bits - 1))
    step = 2.0 ** (exponent - mantissa_bits)
    return round(x / step) * step


def without_subnormals(x, exponent_bits, mantissa_bits):
    step = 2.0 ** (math.frexp(x)[1] - 1 - mantissa_bits)
    return round(x / step) * step


def cut(x, exponent_bits, mantissa_bits):
    exponent = max(math.frexp(x)[1] - 1, 2 - 2 ** (exponent_bits - 1))
    step = 2.0 ** (exponent - mantissa_bits)
    return int(x / step) * step


def better(blocks):
    low, rows = standard(blocks), blocks.flatten(-2)

    def error(e):
        back = block_formats.quantize(rows, "mxfp4", exponents=e).dequantize()
        return (back - rows).square().unflatten(-1, (-1, 32)).sum(-1)

    return low + (error(low + 1) < error(low))


def standard(blocks):
    return block_formats.block_exponents(blocks, block_formats.ELEMENTS["mxfp4"])


def lean(model):
    return model.bfloat16(), torch.optim.AdamW(model.parameters(), lr=3e-3)


def frozen(model):
    """Few bytes and no training."""
    return model.bfloat16(), torch.optim.SGD(model.parameters(), lr=1e-9)


def full(model):
    return model, torch.optim.AdamW(model.parameters(), lr=3e-3)


def test_recorded_gpus_stand_beside_their_roofs(monkeypatch):
    def part(name):
        speeds = dict(fp32=50.0, tf32=400.0, bf16=700.0, fp16=690.0)
        products = [dict(n=8192, dtype=d, tflops=v) for d, v in speeds.items()]
        steps = [("fp32", 1, 30, 400), ("bf16", 1, 20, 200), ("tf32", 1, 10, 400)]
        steps += [("fp32", 8, None, None), ("bf16", 8, 40, 900)]
        rows = [dict(recipe=r, batch_size=n, ms=ms, mb_step=mb) for r, n, ms, mb in steps]
        rows = products if name == "precision by shape" else rows
        return {gpu: dict(rows=rows) for gpu in ("NVIDIA H100 80GB HBM3", "NVIDIA B300")}

    monkeypatch.setattr(verdicts.gpu_bench, "read_part", part)
    known, unknown = verdicts.gpu_product_rows()
    assert (known["speed-up over fp32"], known["speed-up over TF32"]) == (14.0, 1.75)
    assert known["roof over TF32 (computed)"] == pytest.approx(2)
    assert known["roof over fp32 (computed)"] == pytest.approx(989.4 / 66.9, rel=0.01)
    assert unknown["roof over fp32 (computed)"] is unknown["roof over TF32 (computed)"] is None
    first = verdicts.gpu_step_rows()[:4]
    cases = [(row["batch"], row["precision"]) for row in first]
    assert cases == [(1, "bf16"), (1, "fp32"), (1, "tf32"), (8, "bf16")]
    headers = ("speed-up over fp32", "speed-up over TF32", "batch memory / fp32")
    ratios = [[row[header] for header in headers] for row in first]
    assert ratios[0] == [1.5, 0.5, 0.5]
    assert ratios[3] == [None, None, None]  # fp32 had no room


def test_the_recorded_gpus_of_the_repository():
    """What the notebook says of them: TF32 is never beaten twice, a small batch not at all."""
    assert all(row["speed-up over TF32"] < 2 for row in verdicts.gpu_product_rows())
    steps = {
        (row["batch"], row["precision"]): row["speed-up over TF32"]
        for row in verdicts.gpu_step_rows()
    }
    assert steps[4, "bf16"] < 1 < steps[32, "bf16"]


ANSWERS = {
    "06-1": (rounded, (without_subnormals, cut)),
    "06-2": (better, (standard, lambda blocks: standard(blocks) + 1)),
    "06-3": (lean, (frozen, full)),
}


trained_once = cache(exercises.bytes_and_loss)
"""An answer's numbers, the same whatever language its judgement is in."""


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, both_languages, monkeypatch):
    monkeypatch.setattr(exercises, "bytes_and_loss", trained_once)
    right, wrong = ANSWERS[name]
    assert judge(exercises.EXERCISES[name], right)[0] == "correct"
    for answer in wrong:
        assert judge(exercises.EXERCISES[name], answer)[0] == "not quite"
    lab.check(name, wrong[0])
