"""A rank's process as its parent sees it: start it, send orders, read messages, end it."""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

CHILD = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer);"
    "from efflab.distributed.rank import main; main()"
)
MARK = "EFFLAB_RANK"
"""Environment variable that all descendants of a rank inherit, in other sessions too."""
JOIN_SECONDS = 0.5
GROUP_SECONDS = 5.0
"""How long a rank's own children may take to die."""


class RankProcess:
    """A rank's process as the parent sees it."""

    def __init__(
        self, number: int, world_size: int, folder: TemporaryDirectory, inbox: queue.Queue
    ):
        self.folder = folder  # of all ranks
        self.log = Path(folder.name) / f"rank{number}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1", MARK: str(self.log)},
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        assert self.process.stdin is not None  # both are pipes
        assert self.process.stdout is not None
        self._orders, self._messages = self.process.stdin, self.process.stdout
        self._reader = threading.Thread(target=self._read, args=(number, inbox), daemon=True)
        self._reader.start()
        about = number, world_size, str(self.log.with_name("rendezvous"))
        self._write(pickle.dumps(sys.path) + pickle.dumps(about))

    def order(self, kind: str, job: bytes | None) -> None:
        """Send an order on a thread, so that a stopped rank, which does not read, blocks nobody."""
        order = pickle.dumps((kind, job))
        threading.Thread(target=self._write, args=(order,), daemon=True).start()

    def _write(self, data: bytes) -> None:
        with suppress(OSError, ValueError):  # it is dead, which the reader reports
            self._orders.write(data)
            self._orders.flush()

    def _read(self, number: int, inbox: queue.Queue) -> None:
        """Put the rank's messages into `inbox` until its pipe closes, which means that it ended."""
        with suppress(Exception):  # a dead rank's last message may be cut short
            while True:
                inbox.put((number, *pickle.load(self._messages)))
        inbox.put((number, "gone", b""))

    def ended(self) -> bool:
        """Whether the process ended; it stays a zombie (WNOWAIT), so its pid is not reused."""
        if not hasattr(os, "waitid"):
            return self.process.poll() is not None
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, options) is not None

    def death(self) -> tuple[str, str]:
        """(how it ended, the last 2,000 characters that it printed)."""
        self.kill()
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return how, self.log.read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """Kill the rank and its process group."""
        if self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def wait(self) -> None:
        """Wait until the process is gone, and close its pipes."""
        self.process.wait()
        end_marked(str(self.log))
        if self._reader is not threading.current_thread():
            self._reader.join(JOIN_SECONDS)
        if not self._reader.is_alive():
            for stream in (self._orders, self._messages):
                with suppress(OSError):  # closing flushes what a dead rank did not take
                    stream.close()


def end_marked(mark: str) -> None:
    """Kill all other processes with this `MARK`, also those that left the rank's session.

    Repeats for up to `GROUP_SECONDS`, for processes that start meanwhile.
    """
    import psutil

    deadline = time.monotonic() + GROUP_SECONDS
    while time.monotonic() < deadline:
        processes = [p for p in psutil.process_iter() if p.pid != os.getpid() and _has(p, mark)]
        if not processes:
            return
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, JOIN_SECONDS)


def _has(process, mark: str) -> bool:
    """Whether the process is alive and has this mark; other users' processes cannot be read."""
    import psutil

    with suppress(psutil.Error, OSError):
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    return False
