"""Notebooks that start ranks, over and over: no hang, no process, folder or memory left.

.venv/bin/python tests/distributed/soak.py 10
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import psutil

from efflab.publishing.catalog import sources

sys.path.append(str(Path(__file__).parents[1] / "publishing"))
from solving import execute_solved

NOTEBOOKS = ("12", "13")
LIMIT_SECONDS = 300


def left():
    """What a run could leave: ranks and kernels, ranks' folders, shared memory."""
    kept = {f"{p.pid} {name}" for p in psutil.process_iter() if (name := started(p))}
    folders = map(str, Path(gettempdir()).glob("efflab-ranks-*"))
    return kept | set(folders) | set(map(str, Path("/dev/shm").glob("*")))


def started(process):
    """A rank's or a kernel's command line, else None."""
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return None
    return line if "efflab.distributed" in line or "ipykernel" in line else None


def main(times):
    before = left()
    with TemporaryDirectory() as folder:
        for i in range(times):
            for number in NOTEBOOKS:
                start = time.monotonic()
                target = Path(folder) / f"{number}.ipynb"
                execute_solved(sources()[number], {}, target, complete=False)
                seconds = time.monotonic() - start
                more = left() - before
                print(f"run {i + 1}, notebook {number}: {seconds:.0f} s, left {more or 'nothing'}")
                if more or seconds > LIMIT_SECONDS:
                    sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
