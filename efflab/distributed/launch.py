"""Several processes of one machine as the ranks of a gloo group, from a notebook or a script.

`launch` starts them for one function, `RankPool` keeps them for several. Each rank is a plain
Python process, started afresh and not forked (a fork would copy torch's locked mutexes), and not
through `multiprocessing`, which runs the caller's main script again in every child and leaves a
helper process behind. How a rank lives is in `efflab.distributed.rank`.
"""

import os
import pickle
import queue
import socket
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from efflab.arguments import check_arguments
from efflab.base.significant import significant
from efflab.distributed.process import RankProcess
from efflab.distributed.rank import report as report
from efflab.errors import require, require_int

MAX_RANKS = 64
START_SECONDS = 60.0
POLL_SECONDS = 0.25
GRACE_SECONDS = 0.5
"""How long after a first failure others are waited for, to tell the cause from what it caused."""
WHERE_SECONDS = 2.0
"""How long a rank that did not finish has for saying where it is."""
LOOPBACK_SECONDS = 5.0
Progress = Callable[[int, object], None]
Message = tuple[int, str, bytes]
"""(rank, kind, pickled payload)"""


class RankError(RuntimeError):
    """A rank raised, died or did not finish. `rank` is its number; the text has its traceback."""

    def __init__(self, rank: int, what: str, details: str = ""):
        super().__init__(f"rank {rank} {what}" + (f"\n\n{details}" if details else ""))
        self.rank = rank


@check_arguments
def launch(
    fn: Callable, n_procs: int, *args, timeout: float, on_progress: Progress | None = None
) -> list:
    """`[fn(rank, world_size, *args) for each rank]`, each in a process of its own.

    The gloo group is up when `fn` starts, and each rank uses one thread. `timeout` (seconds) counts
    from then; starting has its own limit of 60 s. `fn` must be importable, arguments and results
    picklable; tensors travel as copies. What a rank gives to `report` reaches
    `on_progress(rank, message)` while it runs. A rank that raises, dies or does not finish ends
    them all: `RankError`. No process is left, however this ends.
    """
    require_function(fn)
    _require_seconds(timeout)
    with RankPool(n_procs) as pool:
        return pool.run(fn, *args, timeout=timeout, on_progress=on_progress)


@check_arguments
class RankPool:
    """`n_procs` ranks that stay up from call to call, so that starting them is paid once.

    `with RankPool(2) as pool: pool.run(fn, ...)`, or over several cells of a notebook
    `pool = RankPool(2)` until `pool.close()`. They end with the block, with `close`, when nobody
    holds the pool any more (its cell ran again), or with the Python that started them. After a
    failure the next `run` starts new ones. One job at a time: a second thread waits. A function's
    module is imported once, as it was at its first use.
    """

    def __init__(self, n_procs: int):
        _require_ranks(n_procs)
        self.n_procs = n_procs
        self._lock = threading.Lock()
        self._up = _Up()
        self._ranks = self._up.ranks
        self._inbox: queue.Queue = queue.Queue()
        weakref.finalize(self, self._up.end)

    def __enter__(self) -> "RankPool":
        with self._lock:
            self._start()
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """The ranks' process ids, in order; none while they are down."""
        return [rank.process.pid for rank in self._ranks]

    def run(self, fn: Callable, *args, timeout: float, on_progress: Progress | None = None) -> list:
        """As `launch`, on these ranks; their random state stays as the last job left it."""
        require_function(fn)
        _require_seconds(timeout)
        job = _pickle(fn, args)
        with self._lock:
            self._start()
            try:
                for rank in self._ranks:
                    rank.order("job", job)
                answers = self._gather("result", timeout, on_progress)
                return [_receive(rank, answer) for rank, answer in enumerate(answers)]
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End the ranks, at once; harmless where there are none."""
        self._up.end()

    def _start(self) -> None:
        if self._ranks:
            return
        _require_loopback()
        self._inbox = queue.Queue()
        folder = self._up.new_folder()
        try:
            for number in range(self.n_procs):
                self._ranks.append(RankProcess(number, self.n_procs, folder, self._inbox))
            self._gather("ready", START_SECONDS, None)
        except BaseException:
            self.close()
            raise

    def _gather(self, kind: str, timeout: float, on_progress: Progress | None) -> list[bytes]:
        """One message of this kind from every rank, in their order."""
        answers: dict[int, bytes] = {}
        deadline = time.monotonic() + timeout
        while len(answers) < self.n_procs:
            message = self._next(deadline)
            if message is None:
                raise self._late(kind, timeout, set(range(self.n_procs)) - set(answers))
            rank, what, payload = message
            if what == kind:
                answers[rank] = payload
            elif what == "progress" and on_progress is not None:
                on_progress(rank, _receive(rank, payload))
            elif what in ("raised", "gone"):
                raise self._failure(message)
        return [answers[rank] for rank in range(self.n_procs)]

    def _next(self, deadline: float) -> Message | None:
        """The next message of any rank, or that one is gone; None at the deadline."""
        while (left := deadline - time.monotonic()) > 0:
            with suppress(queue.Empty):
                return self._inbox.get(timeout=min(left, POLL_SECONDS))
            for number, rank in enumerate(self._ranks):
                if rank.ended():  # and a process that it forked still holds its pipe open
                    return number, "gone", b""
        return None

    def _failure(self, message: Message) -> RankError:
        """The cause: a rank that is gone, rather than those whose connection to it then broke."""
        deadline = time.monotonic() + GRACE_SECONDS
        messages = [message]
        while messages[-1][1] != "gone" and (later := self._next(deadline)):
            messages.append(later)
        for rank, what, _ in messages:
            if what == "gone":
                return RankError(rank, *self._ranks[rank].death())
        rank, _, text = next(m for m in messages if m[1] == "raised")
        return RankError(rank, "raised", pickle.loads(text))

    def _late(self, kind: str, timeout: float, missing: set[int]) -> RankError:
        """Where each rank that did not finish is; the one named is not merely waiting for it."""
        for rank in missing:
            self._ranks[rank].order("where", None)
        stacks = dict.fromkeys(sorted(missing), "  (no answer: stopped, or in native code)")
        deadline = time.monotonic() + WHERE_SECONDS
        waited_for = set(missing)
        while waited_for and (message := self._next(deadline)):
            if message[1] == "where":
                stacks[message[0]] = pickle.loads(message[2])
                waited_for.discard(message[0])
        waiting = [rank for rank, stack in stacks.items() if _in_collective(stack)]
        cause = min(missing - set(waiting) or missing)
        what = "did not start" if kind == "ready" else "did not finish"
        details = "\n".join(f"rank {rank} is here:\n{stack}" for rank, stack in stacks.items())
        return RankError(cause, f"{what} within {significant(timeout)} s", details)


@dataclass
class _Up:
    """What is up of a pool, apart from it: whoever ends it must not keep the pool alive."""

    ranks: list[RankProcess] = field(default_factory=list)
    folder: TemporaryDirectory | None = None
    owner: int = field(default_factory=os.getpid)

    def new_folder(self) -> Path:
        self.folder = TemporaryDirectory(prefix="efflab-ranks-", ignore_cleanup_errors=True)
        return Path(self.folder.name)

    def end(self) -> None:
        if os.getpid() != self.owner:  # a fork's copy of the pool
            return
        for rank in self.ranks:
            rank.kill()
        for rank in self.ranks:
            rank.wait()
        self.ranks.clear()
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None


def _receive(rank: int, payload: bytes):
    """What a rank sent. Reading it runs code of its types, which may not end the caller either."""
    try:
        return pickle.loads(payload)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise RankError(rank, "sent what cannot be read here", traceback.format_exc()) from error


def _require_loopback() -> None:
    """Without it gloo would wait for the kernel's time-out, a minute or more."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), LOOPBACK_SECONDS).close()
    except OSError as error:
        down = "ranks talk over the loopback interface, and 127.0.0.1 does not answer: is `lo` up?"
        raise ConnectionError(f"{down} ({error})") from error


# --- Arguments -------------------------------------------------------------------------------


def require_function(fn) -> None:
    """`fn` must be what a fresh Python can import: its module's attribute of that name."""
    module, name = getattr(fn, "__module__", ""), getattr(fn, "__qualname__", "")
    value = None if module == "__main__" else sys.modules.get(module or "")
    for part in name.split("."):
        value = getattr(value, part, None)
    allowed = (
        "a function that another process can import: put it into a module, a .py file, and import "
        "it from there (not a lambda, nor a function of a notebook's cell or of another function)"
    )
    require(callable(fn) and value is fn, "fn", fn, allowed)


def _require_seconds(timeout) -> None:
    fine = isinstance(timeout, int | float) and 0 < timeout <= threading.TIMEOUT_MAX
    require(fine, "timeout", timeout, "a positive, finite number of seconds")


def _require_ranks(n_procs) -> None:
    require_int("n_procs", n_procs)
    require(n_procs <= MAX_RANKS, "n_procs", n_procs, f"at most {MAX_RANKS} processes")


def _pickle(fn: Callable, args: tuple) -> bytes:
    try:
        return pickle.dumps((fn, args))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"args={args!r}: expected values that pickle accepts ({error})") from error


def _in_collective(stack: str) -> bool:
    """Whether the innermost line of a stack, as text, is torch waiting for other ranks."""
    innermost = stack.rpartition('  File "')[2].partition('"')[0]
    return "/torch/distributed/" in Path(innermost).as_posix()
