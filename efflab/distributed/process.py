"""A rank's process as its parent sees it: started, ordered, listened to, ended."""

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

CHILD = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer);"
    "from efflab.distributed.rank import main; main()"
)
MARK = "EFFLAB_RANK"
"""A variable that a rank's process hands on to whatever it starts, in whatever session."""
JOIN_SECONDS = 0.5
GROUP_SECONDS, POLL_SECONDS = 5.0, 0.005
"""How long what a rank has started itself may take to die, and how often that is looked at."""


class RankProcess:
    """A rank's process as the parent sees it."""

    def __init__(self, number: int, world_size: int, folder: Path, inbox: queue.Queue):
        self.log = folder / f"rank{number}.log"
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
        about = number, world_size, str(folder / "rendezvous")
        self._write(pickle.dumps(sys.path) + pickle.dumps(about))

    def order(self, kind: str, job: bytes | None) -> None:
        """Send it on a thread: a rank that is stopped does not read, and nobody may wait for it."""
        order = pickle.dumps((kind, job))
        threading.Thread(target=self._write, args=(order,), daemon=True).start()

    def _write(self, data: bytes) -> None:
        with suppress(OSError, ValueError):  # it is gone, which the reader says as well
            self._orders.write(data)
            self._orders.flush()

    def _read(self, number: int, inbox: queue.Queue) -> None:
        """Pass the rank's messages on until its pipe closes, which it does when the rank ends."""
        with suppress(Exception):  # half a message of a rank that died can be anything
            while True:
                inbox.put((number, *pickle.load(self._messages)))
        inbox.put((number, "gone", b""))

    def ended(self) -> bool:
        """Whether the process is over; it stays a zombie, so that its number is not given anew."""
        if not hasattr(os, "waitid"):
            return self.process.poll() is not None
        return (
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        )

    def death(self) -> tuple[str, str]:
        """(how it ended, the last that it printed)."""
        self.kill()
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return how, self.log.read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """End it and what it has started itself."""
        if self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def _wait_for_group(self) -> None:
        """Until what the rank has started is over too: a kill is only asked for when it is sent.

        No longer than `GROUP_SECONDS`: in a container whose first process reaps nobody, zombies
        stay in the group for ever.
        """
        deadline = time.monotonic() + GROUP_SECONDS
        with suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
            while hasattr(os, "killpg") and time.monotonic() < deadline:
                os.killpg(self.process.pid, 0)
                time.sleep(POLL_SECONDS)

    def wait(self) -> None:
        """Until it is over, and nothing of it is left open here."""
        self.process.wait()
        self._wait_for_group()
        end_marked(str(self.log))
        if self._reader is not threading.current_thread():
            self._reader.join(JOIN_SECONDS)
        if not self._reader.is_alive():
            for stream in (self._orders, self._messages):
                with suppress(OSError):  # closing flushes what a dead rank did not take
                    stream.close()


def end_marked(mark: str) -> None:
    """End all other processes with this `MARK`: a session of its own saves none of a rank's.

    Those that start meanwhile too, for `GROUP_SECONDS`.
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
    """Whether it is alive and marked so; what belongs to others cannot be asked."""
    import psutil

    with suppress(psutil.Error, OSError):
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    return False
