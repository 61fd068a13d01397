"""Notebook 08's verdicts: what they come to here, and what other numbers would make of them."""

from dataclasses import replace

import pytest

from efflab import lab
from efflab.data import read_published
from efflab_rooms.accelerators import measure, verdicts

CHECKS = [dict(n=256, dtype="fp16", ratio=0.32), dict(n=8192, dtype="fp16", ratio=0.76)]
EXACT = [dict(n=256, dtype="fp16", ratio=0.97), dict(n=8192, dtype="fp16", ratio=1.0)]
"""A model of GPUs that meets the record."""
CLOCKS = measure.clocks_mhz(measure.FULL_SIDE)
LONE = [88.6, 89.8, 92.0]
"""Clocks (MHz) of a full chip, and of a 4 x 4 unit alone."""


def npu_case(*, times=1.0, launch=7e-6, speeds=(1.15, 1.67), checks=CHECKS):
    """Evidence beside NPUs `times` as strong as they are, or other published speeds."""

    def rival(against, gpu, dtype):
        array = measure.rival(against, gpu, dtype)
        strength = dict(hertz=times * array.hertz, memory_bandwidth=times * array.memory_bandwidth)
        return replace(array, **strength)

    rows = [
        dict(model=m, speed_over_a100=s) for m, s in zip(("BERT", "ResNet"), speeds, strict=True)
    ]
    return verdicts.npu_evidence(128, launch, rows, checks, rival)


def fpga_case(*, wrong=0, clocks=CLOCKS, **resources):
    """Evidence with other wrong values, clocks, or resources of every chip."""
    chips = [chip | resources for chip in read_published("fpga")]
    return verdicts.fpga_evidence({"wrong-4": (4, 0), "wrong-own": (8, wrong)}, chips, clocks)


def drives():
    """(claim, evidence) from arrays, tables, chips and clocks that may come."""
    yield "npu-latency", npu_case()
    yield "npu-latency", npu_case(times=1000.0, launch=0.0, speeds=(1.7, 1.67))
    yield "npu-latency", npu_case(times=1000.0, launch=0.0, checks=EXACT)
    yield "npu-latency", npu_case(checks=EXACT)
    yield "fpga-inference", fpga_case()
    yield "fpga-inference", fpga_case(wrong=1, dsp=15)
    yield "fpga-inference", fpga_case(dsp=6840, lut=10**6, ff=10**6)
    yield "fpga-inference", fpga_case(dsp=240, lut=63400, ff=126800, clocks=[89.8, 40.0])


def outcomes(judge, evidence):
    return {part.id: part.outcome for part in judge(evidence).parts}


def test_what_the_claims_come_to_here():
    launch, checks = measure.launch_seconds(), measure.model_check_rows(["fp16"])
    evidence = verdicts.npu_evidence(128, launch, read_published("tpu_v4"), checks)
    here = verdicts.npu_latency(evidence)
    words = [part.outcome for part in here.parts]
    assert words == ["does not hold", "undecided", "does not hold"]
    assert here.parts[2].decisions == {"tpu-v4-bert": "does not hold"}
    serves = verdicts.fpga_inference(fpga_case()).parts[2]
    served = {key.removeprefix("ms-") for key, word in serves.decisions.items() if word == "holds"}
    assert served == {"xc7a100t", "xcvu9p"}
    assert (serves.outcome, serves.basis) == ("does not hold", "registered")
    assert serves.decisions["ms-xc7z020"] == "does not hold"
    alone = verdicts.fpga_inference(fpga_case(clocks=LONE)).parts[2]
    assert alone.decisions["ms-xc7z020"] == "holds"


def test_the_range_of_the_placements_is_said_for_what_it_is():
    (item,) = [e for e in fpga_case(clocks=[60.0, 80.0, 75.0]) if e.id == "ms-xc7a100t"]
    assert [item.low, item.value, item.high] == [
        measure.model_ms(measure.TOKENS, measure.SIDE, mhz, 15) for mhz in (80, 75, 60)
    ]
    assert "median (and range) of 3 placements" in item.english
    for n, sure in ((2, 50), (3, 75), (4, 88)):  # both ends on one side: 2 in 2 ** n
        serves = verdicts.fpga_inference(fpga_case(clocks=[70.0] * n)).parts[2]
        assert f"the range of {n} placements" in serves.record()["remark"]
        assert f"with {sure}%" in serves.record()["remark"]


def test_the_equal_array_wins_where_only_the_gpu_launches():
    values = {item.id: item.value for item in npu_case()}
    assert 0.18 < values["equal-gpu-starts-a100-int8-1"] < 0.2
    assert values["equal-a100-int8-1"] == pytest.approx(1)


def test_each_part_turns_with_its_own_numbers():
    strong = npu_case(times=1000.0, launch=0.0, checks=EXACT)
    assert outcomes(verdicts.npu_latency, strong) == {
        "first-tpu": "holds",
        "equal-strength": "holds",
        "published": "does not hold",
    }
    assert outcomes(verdicts.fpga_inference, fpga_case(wrong=1))["exact"] == "does not hold"
    none = outcomes(verdicts.fpga_inference, fpga_case(dsp=15))
    assert (none["fits"], none["serves"]) == ("does not hold", "does not hold")
    large = fpga_case(dsp=6840, lut=10**6, ff=10**6)
    assert outcomes(verdicts.fpga_inference, large)["serves"] == "holds"


def test_clocks_on_both_sides_of_the_bar_decide_nothing():
    (item,) = [e for e in fpga_case(dsp=240, clocks=[89.8, 40.0]) if e.id == "ms-xc7a100t"]
    assert item.low < measure.TARGET_MS < item.high
    same = fpga_case(dsp=240, lut=63400, ff=126800, clocks=[89.8, 40.0])
    assert outcomes(verdicts.fpga_inference, same)["serves"] == "undecided"


def test_cards_in_both_languages(both_languages):
    for evidence in (npu_case(), npu_case(times=1000.0, launch=0.0)):
        lab.verdict("npu-latency", verdicts.npu_latency(evidence))
    for evidence in (fpga_case(), fpga_case(wrong=1, dsp=15)):
        lab.verdict("fpga-inference", verdicts.fpga_inference(evidence))
