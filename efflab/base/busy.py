"""Whether other processes use the machine: checked before a build, and during every timing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BUSY_CORES = 0.5
"""Above this, as a share of one core, other processes disturb a timing."""
SECONDS = 0.5
"""Shorter timings are added up first: the system counts CPU time in hundredths of a second."""


def busy_cores() -> float:
    """How many cores' worth of time the machine's processes use while this one sleeps a second."""
    import psutil

    return psutil.cpu_percent(1.0) / 100 * psutil.cpu_count()


class Others:
    """CPU use of other processes while we timed: `cores`, in the busiest half second."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Start over, as for another notebook."""
        self.cores = self._used = self._timed = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count others' CPU time inside the block; ours are this process and its children."""
        before = _clocks()
        try:
            yield
        finally:
            timed, used, own = (b - a for a, b in zip(before, _clocks(), strict=True))
            self._timed += timed
            self._used += max(0.0, used - own)
            if self._timed >= SECONDS:
                self.cores = max(self.cores, self._used / self._timed)
                self._timed = self._used = 0.0

    @property
    def busy(self) -> bool:
        """Whether a build would have refused to measure."""
        return self.cores > BUSY_CORES


others = Others()
"""The instance of this process: `bench` updates it, a verdict's card shows it."""


def _clocks() -> tuple[float, float, float]:
    """Seconds of wall-clock time, of CPU time on all cores, and of our processes' part of it."""
    import psutil

    cores = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guest time is counted as user time too
    work = sum(seconds for name, seconds in cores.items() if name not in idle)
    return time.perf_counter(), work, _own_seconds(psutil.Process())


def _own_seconds(process) -> float:
    """CPU seconds of a process and its children, ended children included."""
    import psutil

    own = 0.0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):  # it ended meanwhile
            times = member.cpu_times()
            own += times.user + times.system + times.children_user + times.children_system
    return own
