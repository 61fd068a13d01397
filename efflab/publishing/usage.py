"""The cost of a build: seconds and peak memory of each notebook, stored in data/builds.json."""

import json
import threading
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import SimpleNamespace

from efflab.base.busy import BUSY_CORES, busy_cores
from efflab.base.files import update
from efflab.base.json_files import read_json
from efflab.base.stored import require_object
from efflab.errors import require, require_number
from efflab.experiments.form import MACHINE

ENTRY = dict(seconds=float, peak_mb=float, machine=dict, date=str)
GROWN = 2.0
"""A notebook that takes more than this many times its recorded share causes a warning."""


def require_idle() -> None:
    """Refuse a busy machine, since notebooks measure times."""
    allowed = f"at most {BUSY_CORES} cores in use by others, since notebooks measure times; "
    cores = round(busy_cores(), 2)
    require(cores <= BUSY_CORES, "busy cores", cores, allowed + "--busy builds all the same")


@contextmanager
def watching_memory(every_seconds: float = 0.2):
    """Yields an object whose `peak_bytes` is the peak memory of this process's children.

    Resident memory, summed over the kernel and its children, without the browser that draws a
    build's pictures, which readers do not need.
    """
    import psutil

    memory, stop = SimpleNamespace(peak_bytes=0), threading.Event()

    def watch():
        me = psutil.Process()
        while not stop.is_set():
            resident = sum(map(_resident_bytes, me.children(recursive=True)))
            memory.peak_bytes = max(memory.peak_bytes, resident)
            stop.wait(every_seconds)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()


def _resident_bytes(process) -> int:
    import psutil

    try:
        parent = process.parent()
        # Until its exec a fork has its parent's command and memory, which are not its own.
        is_fork = parent is not None and process.cmdline() == parent.cmdline()
        is_browser = "chrom" in process.name().lower()
        return 0 if is_fork or is_browser else process.memory_info().rss
    except psutil.Error:  # it ended meanwhile
        return 0


def entry(seconds: float, peak_bytes: int) -> dict:
    """A build's entry: seconds in cells, peak MB, machine and date."""
    from efflab.experiments.provenance import machine

    cost = dict(seconds=round(seconds, 1), peak_mb=round(peak_bytes / 1e6))
    return cost | dict(machine=machine(), date=date.today().isoformat())


def read_builds(path: Path) -> dict[str, dict]:
    """{"03 en": entry} of data/builds.json, or {} before the first build."""
    if not path.exists():
        return {}
    return read_json(path, check=_require_builds, remedy="restore or delete it")


def _require_builds(builds: dict) -> None:
    for name, build in builds.items():
        require_object(name, build, ENTRY)
        require_object(f"{name}: machine", build["machine"], MACHINE)
        for key in ("seconds", "peak_mb"):
            require_number(f"{name}: {key}", build[key])


def warnings_about(before: dict[str, dict], now: dict[str, dict]) -> list[str]:
    """Warnings for builds of `now` that take over `GROWN` times their recorded share of the total.

    Shares, not seconds, since a slower machine takes longer for all of them.
    """
    after = before | now
    totals = (sum(e["seconds"] for e in builds.values()) for builds in (after, before))
    total, old_total = (seconds or 1.0 for seconds in totals)  # tests' notebooks take no time
    lines = []
    for name in sorted(now.keys() & before.keys()):
        share = now[name]["seconds"] / total
        old_share = before[name]["seconds"] / old_total
        if share > GROWN * old_share:
            seconds = f"{now[name]['seconds']} s, before {before[name]['seconds']} s"
            lines.append(f"{name}: {share:.0%} of the total, before {old_share:.0%} ({seconds})")
    return lines


def keep_builds(path: Path, now: dict[str, dict]) -> None:
    """Add the builds of `now` to data/builds.json."""

    def add(_: str | None) -> str:
        return json.dumps(dict(sorted((read_builds(path) | now).items())), indent=1) + "\n"

    update(path, add)
