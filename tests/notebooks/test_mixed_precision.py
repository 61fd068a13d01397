"""Notebook 06: its numbers against torch and papers, its pictures, verdicts and exercises."""

import json
import math
import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from efflab import bench, lab
from efflab.acceleration import block_formats
from efflab.experiments import mixed_precision as experiment
from efflab.lab.check import judge
from efflab_rooms.mixed_precision import (
    curves,
    exercises,
    formats,
    gpu,
    gradients,
    memory,
    published,
    speed,
    verdicts,
)

# --- Formats ---------------------------------------------------------------------------------


def test_no_value_differs_from_torch():
    rows = formats.equality_rows()
    assert [row["differ from torch"] for row in rows] == [0] * 5
    assert rows[0]["16-bit patterns"] == 131_072


def test_where_torch_saturates_ocp_knows_nan_too():
    rows = {(r["format"], r["value"]): r for r in formats.overflow_rows()}
    e4m3, e5m2 = rows["fp8_e4m3fn", 1e5], rows["fp8_e5m2", 1e5]
    assert (e4m3["torch"], e4m3["OCP, saturating"]) == (448, 448)
    assert math.isnan(e4m3["OCP, not saturating"])
    assert (e5m2["torch"], e5m2["OCP, saturating"]) == (math.inf, 57344)
    assert rows["fp8_e4m3fn", 464.0]["OCP, not saturating"] == 448  # a tie, to the even one


def test_the_explorers_bits_are_the_number(both_languages):
    fig = formats.bits_of(-1, 1.0)
    rows = dict(zip(formats.FORMATS, fig.data[0].text, strict=True))
    assert "".join(rows["fp16"]) == f"{torch.tensor(0.1).half().view(torch.int16).item():016b}"
    expected = torch.tensor(0.1).view(torch.int32).item()
    assert "".join(rows["fp32"]) == f"{expected:032b}"
    assert "10⁻¹²" in formats.bits_of(-12, 1.0).layout.title.text


def test_live_its_sliders_move_the_picture():
    live = lab.Explorer(formats.bits_of, frames=0)
    live.set(times=2.5)  # the suite's one slider over numbers that are not whole
    assert live.figure.layout.meta["x"] == pytest.approx(0.25)
    assert live.widgets["times"].max == 9.9


def test_small_and_large_numbers_are_told():
    ticks = formats.bits_of(-9, 3.0).layout.yaxis.ticktext
    assert [lab.tr("becomes zero") in text for text in ticks] == [False] * 3 + [True] * 3
    ticks = formats.bits_of(6, 9.0).layout.yaxis.ticktext
    assert lab.tr("too large") in ticks[3]  # fp16's infinity
    assert "448" in ticks[4]  # e4m3fn saturates


def test_blocks_lose_fewer_gradients_than_integers():
    rows = {r["stored as"]: r for r in formats.block_rows()}
    bits = [r["bits a value"] for r in rows.values()]
    assert bits == [5, 4.25, 9, 8.25, 8.25]
    lost = {name: r["gradient rounded to zero (%)"] for name, r in rows.items()}
    assert lost["MXFP4"] < lost["INT4, groups of 32"]
    assert lost["MXFP8 e5m2"] <= lost["MXFP8 e4m3"] < 0.1 < lost["INT8, groups of 32"]
    error = {name: r["error of the weight (%)"] for name, r in rows.items()}
    assert error["INT8, groups of 32"] < error["MXFP8 e4m3"] < error["MXFP8 e5m2"]
    assert error["MXFP8 e5m2"] < error["INT4, groups of 32"] < error["MXFP4"]


# --- Gradients -------------------------------------------------------------------------------


def test_the_floor_is_where_fp16_makes_zero():
    x = torch.tensor([gradients.FLOOR, 1.001 * gradients.FLOOR, 2.0**-14, 2.0**-15, 65520.0])
    assert (x.half() == 0).tolist() == [True, False, False, False, False]
    found = gradients.shares(x)
    assert (found["zero"], found["infinite"]) == (pytest.approx(20), pytest.approx(20))
    assert found["fewer bits"] == pytest.approx(40)


def test_scaling_saves_gradients_until_they_overflow(both_languages):
    found = gradients.step_gradients(2, 64)
    rows = gradients.scale_rows(found)
    for name in ("activations", "parameters"):
        zero = [row[f"{name}: zero (%)"] for row in rows]
        assert zero == sorted(zero, reverse=True)
        assert zero[0] > 0.1 > 0.01 > zero[-2]
        infinite = [row[f"{name}: infinite (%)"] for row in rows]
        assert infinite[0] == 0 < infinite[-1]
    fig = gradients.floor_figure(found, 2.0**10)
    lost = list(fig.layout.meta.values())
    assert lost[1] < lost[0]
    assert lost[3] < lost[2]


@pytest.fixture(scope="module")
def steps():
    return gradients.scaled_steps(20)


def test_the_scale_falls_steps_are_skipped_and_it_grows_again(steps, both_languages):
    assert steps[0]["skipped"]
    assert steps[1]["scale"] == steps[0]["scale"] / 2
    assert steps[1]["loss"] != steps[0]["loss"]  # another batch, the same weights
    assert any(b["scale"] > a["scale"] for a, b in pairwise(steps))
    assert gradients.follows_our_rule(steps)
    assert next(iter(gradients.scaler_figure(steps).layout.meta.values())) >= 1
    changed = [*steps[:5], steps[5] | {"scale": 3.0}, *steps[6:]]
    assert not gradients.follows_our_rule(changed)


def test_gradients_never_zeroed_grow_and_cost(both_languages):
    runs = gradients.forgotten(50)
    for good, bad in zip(runs[True], runs[False], strict=True):
        assert good[0][0] == bad[0][0]
        assert good[1][0] == bad[1][0]
        assert bad[1][-1] > 4 * good[1][-1]
    good, bad = gradients.forgotten_figure(runs).layout.meta.values()
    assert bad > good + 0.2


# --- Memory ----------------------------------------------------------------------------------


def test_formula_and_real_step_agree():
    for row in memory.memory_rows(2, 64):
        whole = row["part"] == "whole step (peak)"
        assert row["ratio"] == pytest.approx(1, abs=0.2 if whole else 0.01), row


def test_what_halves_and_what_does_not():
    ratio = {(r["recipe"], r["part"]): r["of fp32"] for r in memory.memory_rows(2, 64)}
    for recipe in memory.MIXED:
        assert ratio[recipe, "state"] == pytest.approx(1, abs=1e-3)
    assert ratio["16 bits only", "state"] == pytest.approx(0.5, abs=1e-3)
    assert ratio["master weights", memory.KEPT] == pytest.approx(0.55, abs=0.01)
    bytes_a_parameter = [row["bytes a parameter"] for row in memory.parameter_rows()]
    assert bytes_a_parameter == [16, 16, 18, 16, 8]


def test_master_weights_move_what_bf16_alone_would_not():
    """1 + 1/512 is 1 in bf16; four such updates are not lost where fp32 keeps them."""
    model = torch.nn.Linear(1, 1, bias=False).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1)
    optimizer = memory.MasterAdamW(model, lr=1 / 512)
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


def test_from_so_many_tokens_on_the_whole_is_halved():
    n = memory.half_tokens("master weights")
    for tokens, halved in ((1.05 * n, True), (0.95 * n, False)):
        batch = tokens / 256
        totals = [sum(memory.formula(r, batch_size=1, seq_len=256).values()) for r in
                  ("fp32", "master weights")]  # fmt: skip
        kept = [memory.formula(r, 1, 256)[memory.KEPT] for r in ("fp32", "master weights")]
        full, mixed = (t + (batch - 1) * k for t, k in zip(totals, kept, strict=True))
        assert (mixed <= verdicts.HALF * full) == halved
    assert memory.half_tokens("autocast") == math.inf


def test_parts_figure(both_languages):
    small = list(memory.parts_figure(2, 64).layout.meta.values())
    assert small[0] == 1 < small[1]  # the copies of the weights outweigh what a small batch saves
    large = list(memory.parts_figure(4, 128).layout.meta.values())
    assert large == sorted(large, reverse=True)


# --- Speed -----------------------------------------------------------------------------------


def test_the_product_is_right_with_and_without_the_instructions():
    """AVX2 alone, set before torch loads; the error is bf16's rounding of two inputs and a sum."""
    here = speed.product_ratio(128, repeats=2)
    code = (
        f"import json; from {speed.__name__} import product_ratio as p; print(json.dumps(p(128)))"
    )
    capped = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    out = subprocess.run([sys.executable, "-c", code], env=capped, text=True, check=True,
                         capture_output=True)  # fmt: skip
    there = json.loads(out.stdout.splitlines()[-1])
    for found in (here, there):
        assert found["error"] == pytest.approx(0.003, abs=0.0005)
        assert found["low"] <= found["ratio"] <= found["high"]


def test_rows_of_this_cpu(both_languages):
    rows = speed.cpu_rows(1, 16)
    has_bf16 = bench.cpu_features()["bf16"]
    assert len(rows) == (5 if has_bf16 else 4)
    assert all(r["from"] <= r["time over fp32"] <= r["to"] for r in rows)
    lab.table(rows)
    lab.table(speed.feature_rows())


def test_published_gains_are_the_readmes():
    assert min(published.gains("TF32")) == pytest.approx(1.44, abs=0.01)
    assert max(published.gains("TF32")) == pytest.approx(1.93, abs=0.01)
    fp32 = published.gains("FP32", "V100")
    assert (min(fp32), max(fp32)) == (pytest.approx(3.77, abs=0.01), pytest.approx(4.51, abs=0.01))
    assert published.gains("FP32", "A100") == []
    assert set(published.batch_gains()) == {1.0, 2.0}
    assert len(published.published_rows()) == 14


def test_published_steps_are_below_the_roofline():
    rows = [r for r in speed.step_rows() if r["published"]]
    assert len(rows) == 4
    for row in rows:
        assert 1.5 < row["published"] < row["at best (computed)"]


def test_roofs_figure(both_languages):
    meta = dict(speed.roofs_figure().layout.meta)
    assert sorted(meta.values()) == [2, 2, 7.96, 14.77, 16]


def test_explorer_shows_what_fits(both_languages):
    meta = dict(speed.training(64, "master weights").layout.meta)
    full = dict(speed.training(64, "fp32").layout.meta)
    fits = lab.tr("batch that fits")
    assert 1.8 < meta[fits] / full[fits] < 2
    assert meta["GB"] < full["GB"]
    assert meta[lab.tr("times faster than fp32")] > 5
    assert lab.tr("does not fit") in speed.training(1024, "fp32").layout.title.text


# --- Curves ----------------------------------------------------------------------------------


def test_recorded_runs_are_paired(both_languages):
    for name in experiment.PRECISIONS:
        assert sorted(curves.by_seed(name, "loss")) == list(experiment.SEEDS)
    rows = curves.difference_rows()
    assert rows[0]["more than fp32"] is None
    assert all(r["from"] <= r["more than fp32"] <= r["to"] for r in rows[1:])
    assert rows[1]["from"] <= 0 <= rows[1]["to"]  # what the recap rests on: no difference seen
    fig = curves.curves_figure()
    assert len(fig.data) == 4 + 3 * len(experiment.SEEDS)
    assert curves.difference(experiment.CONTROL).low > 0.3  # the control: it would have been seen
    lab.table(rows)


def test_the_beginning_again():
    rows = curves.live_rows(0)
    assert [row["within the spread of seeds"] for row in rows] in ([True] * 2, [None] * 2)
    assert abs(rows[0]["measured"] - rows[1]["measured"]) < 0.02


# --- Verdicts --------------------------------------------------------------------------------


MEMORY = {"whole": 81, "batch": 55, "state": 100, "whole-autocast": 90, "formula": 1.1}
MEMORY |= {"published-batch": 2, "tokens-halved": 4874}
SPEED = {"a100-most": 1.93, "a100-least": 1.44, "a100-roofline": 2, "a100-step": 12.7}
SPEED |= {"v100-least": 3.8, "v100-most": 4.5, "bf16-here": 1.2}


def evidence(values):
    return [lab.Evidence(key, "x", value) for key, value in values.items()]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "holds if"),
        ({"whole": 60}, "holds"),
        ({"whole": 61}, "holds if"),
        ({"batch": 60}, "holds if"),
        ({"batch": 60.1}, "does not hold"),
        ({"formula": 1.2}, "holds if"),
        ({"formula": 1.21}, "undecided"),
        ({"formula": 0.79, "whole": 50}, "undecided"),
    ],
)
def test_memory_can_come_to_any_outcome(changed, word, both_languages):
    outcome = verdicts.amp_memory(evidence(MEMORY | changed))
    assert outcome.word == word
    lab.verdict("amp-memory", outcome)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "holds if"),
        ({"a100-least": 3, "a100-most": 3.2}, "holds"),
        ({"a100-least": 2.9, "a100-most": 3.2}, "undecided"),
        ({"a100-most": 3}, "undecided"),
        ({"v100-least": 3}, "holds if"),
        ({"v100-least": 2.9}, "does not hold"),
        ({"a100-step": 2.9}, "does not hold"),
    ],
)
def test_speed_can_come_to_any_outcome(changed, word, both_languages):
    outcome = verdicts.amp_speed(evidence(SPEED | changed))
    assert outcome.word == word
    lab.verdict("amp-speed", outcome)


def test_verdicts_of_what_is_measured_here():
    assert verdicts.amp_memory(memory.memory_evidence(2, 64)).word == "holds if"
    condition = verdicts.amp_memory(memory.memory_evidence(2, 64)).record("amp-memory")["condition"]
    assert "4,900 tokens" in condition
    outcome = verdicts.amp_speed(speed.speed_evidence(1, 16))
    assert outcome.record("amp-speed")["condition"].endswith("1.4 to 1.9")


# --- Arguments and exercises -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: formats.bits_of(7), "power=7"),
        (lambda: formats.bits_of(-1, 10.0), "times=10.0"),
        (lambda: gradients.step_gradients(0, 8), "batch_size=0"),
        (lambda: gradients.scaled_steps(0), "n_steps=0"),
        (lambda: gradients.forgotten(9), "n_steps=9"),
        (lambda: memory.ready("tf32", 1, 8), "recipe='tf32'"),
        (lambda: speed.training(device="V100 SXM2", recipe="tf32"), "'tf32'"),
        (lambda: experiment.train_until("fp8"), "precision='fp8'"),
        (lambda: curves.early("fp32", -1), "seed=-1"),
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

    monkeypatch.setattr(gpu.gpu_bench, "recorded_part", part)
    known, unknown = gpu.product_rows()
    assert (known["fp32"], known["tf32"]) == (14.0, 1.75)
    assert known["tf32_roof"] == pytest.approx(2)
    assert known["fp32_roof"] == pytest.approx(989.4 / 66.9, rel=0.01)
    assert unknown["fp32_roof"] is unknown["tf32_roof"] is None
    first = gpu.step_rows()[:4]
    assert [(row["batch"], row["recipe"]) for row in first] == [
        (1, "bf16"), (1, "fp32"), (1, "tf32"), (8, "bf16")
    ]  # fmt: skip
    assert (first[0]["fp32"], first[0]["tf32"], first[0]["peak"]) == (1.5, 0.5, 0.5)
    assert first[3]["fp32"] is first[3]["tf32"] is first[3]["peak"] is None  # fp32 had no room


def test_the_recorded_gpus_of_the_repository():
    """What the notebook says of them: TF32 is never beaten twice, a small batch not at all."""
    assert all(row["tf32"] < 2 for row in gpu.product_rows())
    steps = {(row["batch"], row["recipe"]): row["tf32"] for row in gpu.step_rows()}
    assert steps[4, "bf16"] < 1 < steps[32, "bf16"]


ANSWERS = {
    "06-1": (rounded, (without_subnormals, cut)),
    "06-2": (better, (standard, lambda blocks: standard(blocks) + 1)),
    "06-3": (lean, (frozen, full)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, both_languages):
    right, wrong = ANSWERS[name]
    assert judge(exercises.EXERCISES[name], right)[0] == "correct"
    for answer in wrong:
        assert judge(exercises.EXERCISES[name], answer)[0] == "not quite"
    lab.check(name, wrong[0])
