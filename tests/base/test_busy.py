"""What others use while we time: told from what we use ourselves, our children included."""

import subprocess
import sys
import time

import pytest

from efflab import bench
from efflab.base import busy
from efflab.base.busy import Others
from efflab.lab import use_notebook

SPIN = [sys.executable, "-c", "import time; end = time.time() + 0.6\nwhile time.time() < end: pass"]


@pytest.fixture
def clocks(monkeypatch):
    """Makes time pass: seconds by the clock, of all cores' work, of our own among it."""
    now = [0.0, 0.0, 0.0]
    monkeypatch.setattr(busy, "_clocks", lambda: tuple(now))

    def passed(*seconds):
        now[:] = [a + b for a, b in zip(now, seconds, strict=True)]

    return passed


def test_the_busiest_half_second_counts(clocks):
    others = Others()
    for timed, used, own in ((1, 1.9, 1.8), (0.4, 0.9, 0.4), (0.1, 0.1, 0.1), (1, 1.2, 1.0)):
        with others.watched():
            clocks(timed, used, own)
        clocks(5, 10, 0)  # a reader thinks, and whatever runs meanwhile spoils no time
    assert others.cores == pytest.approx(1.0)  # 0.5 of 0.5 s
    assert others.busy
    others.clear()
    assert not others.busy


def test_a_moment_tells_nothing_and_half_a_core_is_allowed(clocks):
    others = Others()
    with others.watched():
        clocks(0.1, 0.2, 0.0)
    assert others.cores == 0
    with others.watched():
        clocks(0.9, 0.3, 0.0)
    assert others.cores == pytest.approx(0.5)
    assert not others.busy


def test_what_fails_is_watched_to_its_end(clocks):
    others = Others()

    def fail():
        with others.watched():
            clocks(1, 1, 0)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert others.cores == 1


def test_our_own_work_and_our_childrens_is_told_from_others():
    def used(work):
        before = busy._clocks()
        work()
        return [b - a for a, b in zip(before, busy._clocks(), strict=True)]

    def spin(end):
        while time.perf_counter() < end:
            pass

    for work in (lambda: spin(time.perf_counter() + 0.6), lambda: subprocess.run(SPIN, check=True)):
        timed, work_of_all, own = used(work)
        assert timed >= 0.5
        assert own > 0.2
        assert work_of_all >= own - 0.1  # the system counts in hundredths


def test_timing_is_watched_and_another_notebook_begins_anew(clocks):
    busy.others.clear()
    bench.time_calls(lambda: clocks(0.2, 0.3, 0.1), warmup=1, repeats=3)
    assert busy.others.cores == pytest.approx(1.0)
    use_notebook("03_sparse_attention", {}, {})
    assert busy.others.cores == 0
