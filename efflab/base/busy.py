"""Whether others use the machine: before a build, which refuses, and while something is timed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from efflab.arguments import check_arguments
from efflab.errors import require

BUSY_CORES = 0.5
"""Who measures times wants others to use no more than this of one core."""
SECONDS = 0.5
"""Less timing than this tells nothing: a system counts hundredths of a second."""
LONGEST_SAMPLE = 60
"""Seconds that one look at the machine may take."""


@check_arguments
def busy_cores(sample_seconds: float = 1.0) -> float:
    """How many cores' worth of time the machine's processes use while this one sleeps."""
    within = 0 < sample_seconds <= LONGEST_SAMPLE
    require(within, "sample_seconds", sample_seconds, f"above 0, at most {LONGEST_SAMPLE}")
    import psutil

    return psutil.cpu_percent(float(sample_seconds)) / 100 * psutil.cpu_count()


class Others:
    """What processes that are not ours used while we timed: `cores`, in the busiest half second."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Begin anew, as with another notebook."""
        self.cores = self._used = self._timed = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Counts what others use until the block ends; ours are this process and its children."""
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
"""Of this process: `bench` watches, a verdict's card tells."""


def _clocks() -> tuple[float, float, float]:
    """Seconds by the clock, of all cores' work, and of our processes' among it."""
    import psutil

    cores = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # a guest's time is in the user's, too
    work = sum(seconds for name, seconds in cores.items() if name not in idle)
    return time.perf_counter(), work, _own_seconds(psutil.Process())


def _own_seconds(process) -> float:
    """What a process, its children and those that have ended used of all cores."""
    import psutil

    own = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):  # it ended meanwhile
            times = one.cpu_times()
            own += times.user + times.system + times.children_user + times.children_system
    return own
