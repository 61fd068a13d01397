"""Timings, memory and calibration are tested on work whose answer is known."""

import platform
import time
import weakref
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

from efflab import bench
from efflab.bench import Timing
from efflab.estimate import Estimate


def test_median_quartiles_and_rate():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 100.0))
    assert timing.median == 3.0
    assert timing.quartiles == (2.0, 4.0)
    assert str(timing) == "3,000 ms (2,000 to 4,000, 5 repeats)"
    assert str(Timing((0.0125, 0.0125))) == "12.5 ms (12.5 to 12.5, 2 repeats)"
    assert Timing((0.25,)).quartiles == (0.25, 0.25)


def test_ratio_pairs_the_repeats():
    """A machine that gets twice as slow half way spoils the medians but not the paired ratio."""
    slow, fast = Timing((3.0, 3.0, 6.0, 6.0)), Timing((1.0, 1.0, 2.0, 2.0))
    assert slow.ratio(fast) == 3.0
    # the median of the ratios 2, 4 and 1, not 3 over 2, the ratio of the medians
    assert Timing((2.0, 8.0, 3.0)).ratio(Timing((1.0, 2.0, 3.0))) == 2.0
    with pytest.raises(ValueError, match="other=1: expected a timing of 4 repeats"):
        slow.ratio(Timing((1.0,)))


def test_a_ratio_has_the_interval_of_its_median():
    ratio = Timing(tuple(map(float, range(1, 8)))).ratio_interval(Timing((1.0,) * 7))
    assert (ratio.mean, ratio.low, ratio.high) == (4.0, 1.0, 7.0)


class Clock:
    """A clock that only waits move: a busy machine changes no time."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(bench, "time", clock)
    return clock


def test_equal_things_are_within_the_band_and_unequal_ones_are_not(clock):
    order = []

    def wait(name, seconds):
        def call():
            order.append(name)
            clock.wait(seconds)

        return call

    fns = {"same": wait("same", 0.25), "twice": wait("twice", 0.5)}
    found = bench.compare(wait("baseline", 0.25), fns, warmup=0, repeats=7)
    assert order[:4] == ["baseline", "same", "twice", "baseline"]  # the baseline runs twice
    assert list(found.ratios) == ["same", "twice"]
    assert found.differs("twice")
    assert not found.differs("same")


def test_a_band_is_the_further_end_of_the_baselines_own_interval():
    timings = {"baseline": Timing((1.0, 1.0))}
    ratios = {"in": Estimate(1.06, 1.04, 1.2), "out": Estimate(1.2, 1.11, 1.3)}
    ratios["below"] = Estimate(0.8, 0.7, 0.89)
    found = bench.Comparison(timings, ratios, Estimate(1.0, 0.9, 1.05))
    assert found.band == pytest.approx(0.1)
    assert [found.differs(name) for name in ratios] == [False, True, True]
    with pytest.raises(ValueError, match="no name 'baseline'"):
        bench.compare(print, {"again": print})


@pytest.mark.parametrize("name", ["seconds", "again"])
def test_what_was_measured_stays_as_it_was(name):
    found = {
        "seconds": Timing((1.0,)),
        "again": bench.Comparison({}, {}, Estimate(1.0, 0.9, 1.1)),
    }[name]
    with pytest.raises(FrozenInstanceError):
        setattr(found, name, None)


def test_timed_calls_warmup_and_repeats():
    calls = []
    timing = bench.time_calls(lambda: calls.append(1), warmup=3, repeats=5)
    assert len(calls) == 8
    assert len(timing.seconds) == 5


def test_timed_measures_a_known_wait():
    assert 0.02 <= bench.time_calls(lambda: time.sleep(0.02), warmup=0, repeats=3).median < 0.2


def test_interleaved_alternates_the_order():
    order = []
    fns = {name: (lambda name=name: order.append(name)) for name in "abc"}
    timings = bench.time_interleaved(fns, warmup=0, repeats=2)
    assert order == list("abccba")
    assert list(timings) == list("abc")


def test_interleaved_ratio_of_known_waits(clock):
    waits = {"long": lambda: clock.wait(0.75), "short": lambda: clock.wait(0.25)}
    timings = bench.time_interleaved(waits, warmup=0, repeats=5)
    assert timings["long"].ratio(timings["short"]) == 3


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        (dict(repeats=0), ValueError, "repeats=0"),
        (dict(warmup=-1), ValueError, "warmup=-1"),
        (dict(repeats=2.5), TypeError, "repeats=2.5"),
    ],
)
def test_bad_counts_are_refused_before_any_call(options, error, name):
    calls = []
    with pytest.raises(error, match=name):
        bench.time_calls(lambda: calls.append(1), **options)
    assert not calls


def test_no_functions_is_refused():
    with pytest.raises(ValueError, match="at least one function"):
        bench.time_interleaved({})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_peak_bytes_of_a_gpu_that_is_not_there():
    with pytest.raises(ValueError, match="device='cuda': expected 'cpu'"):
        bench.peak_bytes(lambda: None, "cuda")


def test_peak_bytes_of_known_allocations():
    before = torch.empty(1000, 1000)  # alive before: does not count

    def chain():
        a = torch.empty(1000, 1000)
        b = torch.empty(500, 1000)
        del a
        return torch.empty(250, 1000), b, before

    assert bench.peak_bytes(lambda: torch.empty(1000, 1000)) == 4_000_000
    assert bench.peak_bytes(chain) == 6_000_000
    assert bench.peak_bytes(lambda: None) == 0


def test_peak_bytes_counts_what_operators_allocate_inside():
    """A matrix product that copies its operands would show here; softmax has one output."""
    x = torch.randn(512, 512)
    peak = bench.peak_bytes(lambda: torch.softmax(x, -1))
    assert peak == x.nbytes


def test_peak_bytes_refuses_an_unknown_device():
    with pytest.raises(ValueError, match="device='tpu'"):
        bench.peak_bytes(lambda: None, device="tpu")


def test_saved_bytes_of_a_known_network():
    """Linear keeps its input, GELU its own: 10 x 8 and 10 x 16 values; weights are left out."""
    net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    x = torch.randn(10, 8)
    # x, the GELU's input, and its output which the second product keeps
    assert bench.saved_bytes(net, x) == 4 * (80 + 160 + 160)


def test_saved_bytes_lets_go_of_what_was_saved():
    """exp saves its own output, which would hold itself if it were kept with its history."""
    seen = []

    class Exp(nn.Module):
        def forward(self, x):
            y = x.exp()
            seen.append(weakref.ref(y))
            return y.sum()

    assert bench.saved_bytes(Exp(), torch.ones(10, requires_grad=True)) == 40
    assert seen[0]() is None


def test_saved_bytes_counts_a_shared_storage_once():
    class Square(nn.Module):
        def forward(self, x):
            return x * x.view(-1).view_as(x) * 1.0

    x = torch.randn(100, requires_grad=True)
    assert bench.saved_bytes(Square(), x) == 400


def test_saved_bytes_works_under_no_grad():
    with torch.no_grad():
        assert bench.saved_bytes(nn.Linear(8, 16), torch.randn(10, 8)) == 320
        assert not torch.is_grad_enabled()


def test_calibrate_gives_a_device_that_a_roofline_can_use():
    device = bench.calibrate(seconds=0.2, size=256, copy_bytes=2**22)
    x = torch.randn(256, 256)
    product = bench.time_calls(lambda: x @ x, warmup=3, repeats=5)
    assert device.peak("fp32") > 1e8
    assert device.memory_bandwidth > 1e7
    # the same product, busy or not
    assert 0.02 < 2 * 256**3 / product.median / device.peak("fp32") < 5
    assert device.memory_bytes > 2**28
    assert "thread" in device.name
    assert device.source == "measured here: 256 x 256 matrix product, copy of 4 MiB"


@pytest.mark.parametrize("options", [dict(seconds=0), dict(size=0), dict(copy_bytes=1)])
def test_calibrate_refuses_nonsense(options):
    with pytest.raises(ValueError, match="expected"):
        bench.calibrate(**options)


@pytest.mark.parametrize(("room", "n_timed"), [(1.0, 2), (10.5, 4), (12.0, 5)])
def test_the_best_call_is_of_those_that_fit_and_of_two_at_least(clock, room, n_timed):
    waits = [5.0, 4.0, 1.0, 1.5, 0.5, 9.0]
    calls = iter([0.0, *waits])  # the first one warms up

    def work():
        clock.wait(next(calls))

    assert bench._best(work, room) == min(waits[:n_timed])
    assert list(calls) == waits[n_timed:]


@pytest.mark.parametrize(
    ("processor", "name"), [("i386", "i386"), ("", "a machine")], ids=["known", "unknown"]
)
def test_without_a_list_of_processors_the_platform_names_one(monkeypatch, processor, name):
    def refuse(*_, **__):
        raise FileNotFoundError("not Linux")

    monkeypatch.setattr(bench.Path, "read_text", refuse)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "a machine")
    assert bench.cpu_name() == name


@pytest.mark.parametrize(
    ("machine", "flags", "has"),
    [
        ("x86_64", "avx2", {"avx2"}),
        ("x86_64", "avx2 avx_vnni", {"avx2", "vnni"}),
        ("x86_64", "avx2 avx512f avx512_vnni", {"avx2", "avx512", "vnni"}),
        ("x86_64", "avx512_bf16", {"bf16"}),
        ("x86_64", "amx_int8 amx_bf16", {"amx", "bf16"}),
        ("x86_64", "asimddp bf16", set()),  # words of another family
        ("aarch64", "asimddp", {"vnni"}),
        ("arm64", "bf16", {"bf16"}),
        ("aarch64", "", set()),
    ],
)
def test_features_are_named_alike_on_either_family(monkeypatch, machine, flags, has):
    monkeypatch.setattr(bench.Path, "read_text", lambda *_, **__: f"flags : {flags}")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    found = bench.cpu_features()
    assert {name for name, present in found.items() if present} == has
    assert all(present in (True, False) for present in found.values())


def test_by_default_two_calls_warm_up():
    calls = []
    assert len(bench.time_calls(lambda: calls.append("timed")).seconds) == 7
    bench.time_interleaved({"one": lambda: calls.append("one")})
    bench.compare(lambda: calls.append("old"), {"new": lambda: calls.append("new")})
    counts = {name: calls.count(name) for name in ("timed", "one", "new", "old")}
    assert counts == {"timed": 9, "one": 9, "new": 13, "old": 26}


@pytest.mark.parametrize("used", [False, True])
def test_only_a_gpu_in_use_is_waited_for(monkeypatch, used):
    waits = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    bench.synchronize()
    assert len(waits) == used
