"""What a build costs, on processes and builds that are made up here."""

import json
import subprocess
import sys
import time
from datetime import date
from types import SimpleNamespace

import psutil
import pytest

from efflab.experiments.provenance import machine
from efflab.publishing import usage


def process(name, command, parent=None):
    """As much of a psutil.Process of 5 bytes as is asked, below a parent or below none."""
    above = parent and SimpleNamespace(cmdline=lambda: parent)
    asked = dict(name=lambda: name, cmdline=lambda: command, parent=lambda: above)
    return SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=5), **asked)


@pytest.mark.parametrize(
    ("name", "held"), [("python", 5), ("chromium", 0), ("Google Chrome Helper", 0)]
)
def test_the_browser_that_draws_pictures_is_left_out(name, held):
    assert usage._resident_bytes(process(name, ["python", "kernel"])) == held


def test_a_fork_that_has_not_become_its_program_is_left_out():
    """Until its exec a child shares its parent's memory, which it would count once more."""
    build = ["python", "build"]
    assert usage._resident_bytes(process("python", build, parent=build)) == 0
    assert usage._resident_bytes(process("python", ["python", "kernel"], parent=build)) == 5


def test_a_process_that_is_gone_holds_nothing():
    def gone():
        raise psutil.NoSuchProcess(1)

    ended = process("python", ["python", "kernel"])
    ended.memory_info = gone
    assert usage._resident_bytes(ended) == 0


def test_the_peak_of_what_was_started_is_seen():
    code = "x = bytearray(10**8); x[::4096] = x[::4096]; input()"
    with usage.watching_memory(every_seconds=0.02) as found:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        deadline = time.monotonic() + 30
        while found.peak_bytes < 10**8 and time.monotonic() < deadline:
            time.sleep(0.02)
        child.communicate(b"\n")
    assert 10**8 < found.peak_bytes < 10**9


@pytest.mark.parametrize(("busy", "idle"), [(0.5, True), (0.504, True), (0.51, False)])
def test_half_a_core_of_others_is_the_most(monkeypatch, busy, idle):
    monkeypatch.setattr(usage, "busy_cores", lambda: busy)
    if idle:
        usage.require_idle()
    else:
        with pytest.raises(ValueError, match=r"busy cores=0\.51: expected at most 0\.5 cores"):
            usage.require_idle()


def test_busy_cores_are_a_share_of_all(monkeypatch):
    asked = []
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: asked.append(seconds) or 25.0)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    assert usage.busy_cores() == 2.0
    assert asked == [1.0]


def test_an_entry_is_rounded_and_says_where_and_when():
    found = usage.entry(12.345, 123_456_789)
    assert found == dict(seconds=12.3, peak_mb=123, machine=machine(), date=str(date.today()))


def test_builds_are_added_in_order(tmp_path):
    path = tmp_path / "builds.json"
    assert usage.read_builds(path) == {}
    one, two, three, nine = (usage.entry(seconds, 10**8) for seconds in (1.0, 2.0, 3.0, 9.0))
    usage.keep_builds(path, {"02 en": two, "01 en": nine})
    usage.keep_builds(path, {"01 en": one, "03 en": three})
    found = usage.read_builds(path)
    assert list(found.items()) == [("01 en", one), ("02 en", two), ("03 en", three)]
    assert path.read_text(encoding="utf-8") == json.dumps(found, indent=1) + "\n"
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"builds\.json is damaged"):
        usage.read_builds(path)


def took(**seconds):
    return {name: {"seconds": value} for name, value in seconds.items()}


def test_a_share_that_has_doubled_is_warned_about():
    before = took(a=10.0, b=10.0, c=80.0)
    assert usage.warnings_about({}, took(a=10.0)) == []
    assert usage.warnings_about(before, took(a=20.0)) == []  # 20 of 110 s: under twice 10 of 100
    assert usage.warnings_about(before, took(a=30.0, b=30.0, c=240.0)) == []  # a slower machine
    line = "a: 22% of the total, before 10% (26.0 s, before 10.0 s)"
    assert usage.warnings_about(before, took(a=26.0, b=10.0, c=80.0)) == [line]
    assert usage.warnings_about(took(a=0.0, b=0.0), took(a=0.0)) == []
    two = usage.warnings_about(took(b=1.0, a=1.0, c=98.0), took(b=30.0, a=30.0, c=40.0))
    assert [text[0] for text in two] == ["a", "b"]
