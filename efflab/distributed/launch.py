"""Runs a function on several processes of one machine, the ranks of a gloo group.

`launch` starts them for one function, `RankPool` keeps them for several. Each rank is a new Python
process: not a fork, which would copy torch's locked mutexes, and not a `multiprocessing` child,
which would run the caller's main script again and leave a helper process behind. What runs inside
a rank is in `efflab.distributed.rank`.
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
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from efflab.arguments import check_module
from efflab.base.significant import significant
from efflab.distributed.process import RankProcess
from efflab.distributed.rank import report as report
from efflab.errors import quote, require
from efflab.rules import Positive, Size

MAX_RANKS = 64
START_SECONDS = 60.0
POLL_SECONDS = 0.25
GRACE_SECONDS = 0.5
"""Time to collect further failures after the first, to tell the cause from its consequences."""
WHERE_SECONDS = 2.0
"""Time in which a rank that did not finish must report its stack."""
LOOPBACK_SECONDS = 5.0
Progress = Callable[[int, object], None]
Message = tuple[int, str, bytes]
"""(rank, kind, pickled payload)"""


class RankError(RuntimeError):
    """A rank raised, died or did not finish. `rank` is its number; the text has its traceback."""

    def __init__(self, rank: int, what: str, details: str = ""):
        super().__init__(f"rank {rank} {what}" + (f"\n\n{details}" if details else ""))
        self.rank = rank


def launch(
    fn: Callable, n_procs: Size, *args, timeout: Positive, on_progress: Progress | None = None
) -> list:
    """`[fn(rank, world_size, *args) for each rank]`, each in a process of its own.

    The gloo group is up when `fn` starts, and each rank uses one thread. `timeout` (seconds) counts
    from then; starting has its own limit of 60 s. `fn` must be importable, arguments and results
    picklable; tensors are copied. What a rank passes to `report` reaches
    `on_progress(rank, message)` while it runs. A rank that raises, dies or does not finish ends
    all ranks with a `RankError`. No process is left behind in any case.
    """
    with closing(RankPool(n_procs)) as pool:  # `run` checks and pickles before it starts the ranks
        return pool.run(fn, *args, timeout=timeout, on_progress=on_progress)


class RankPool:
    """`n_procs` ranks that stay up between calls, so that they are started only once.

    `with RankPool(2) as pool: pool.run(fn, ...)`, or over several cells of a notebook
    `pool = RankPool(2)` until `pool.close()`. They end with the block, with `close`, when the pool
    is garbage-collected (its cell ran again), or with the Python process that started them. After
    a failure the next `run` starts new ones. One job runs at a time: a second thread waits. Ranks
    import a function's module once, so later edits of it are not seen.
    """

    def __init__(self, n_procs: Size):
        require(n_procs <= MAX_RANKS, "n_procs", n_procs, f"at most {MAX_RANKS} processes")
        self.n_procs = n_procs
        self._lock = threading.Lock()
        self._ranks: list[RankProcess] = []
        self._inbox: queue.Queue = queue.Queue()
        self._end = partial(_end, self._ranks, os.getpid())  # the finalizer must not hold the pool
        weakref.finalize(self, self._end)

    def __enter__(self) -> "RankPool":
        with self._lock:
            self._start()
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """The ranks' process ids, in order; [] while they are down."""
        return [rank.process.pid for rank in self._ranks]

    def run(
        self, fn: Callable, *args, timeout: Positive, on_progress: Progress | None = None
    ) -> list:
        """As `launch`, on these ranks; they keep their random state from job to job."""
        require_function(fn)
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
        """End the ranks at once; does nothing if there are none."""
        self._end()

    def _start(self) -> None:
        if self._ranks:
            return
        _require_loopback()
        self._inbox = queue.Queue()
        folder = TemporaryDirectory(prefix="efflab-ranks-", ignore_cleanup_errors=True)
        try:
            for number in range(self.n_procs):
                self._ranks.append(RankProcess(number, self.n_procs, folder, self._inbox))
            self._gather("ready", START_SECONDS, None)
        except BaseException:
            self.close()
            raise

    def _gather(self, kind: str, timeout: float, on_progress: Progress | None) -> list[bytes]:
        """One message of this kind from every rank, in order of rank."""
        answers: dict[int, bytes] = {}
        deadline = time.monotonic() + timeout
        while len(answers) < self.n_procs:
            message = self._next(deadline)
            if message is None:
                raise self._timeout_error(kind, timeout, set(range(self.n_procs)) - set(answers))
            rank, what, payload = message
            if what == kind:
                answers[rank] = payload
            elif what == "progress" and on_progress is not None:
                on_progress(rank, _receive(rank, payload))
            elif what in ("raised", "gone"):
                raise self._rank_error(message)
        return [answers[rank] for rank in range(self.n_procs)]

    def _next(self, deadline: float) -> Message | None:
        """The next message of any rank, or "gone" for a dead one; None at the deadline."""
        while (left := deadline - time.monotonic()) > 0:
            with suppress(queue.Empty):
                return self._inbox.get(timeout=min(left, POLL_SECONDS))
            for number, rank in enumerate(self._ranks):
                if rank.ended():  # and a process that it forked still holds its pipe open
                    return number, "gone", b""
        return None

    def _rank_error(self, message: Message) -> RankError:
        """The error to raise: of a dead rank first, since others fail when their peer dies."""
        deadline = time.monotonic() + GRACE_SECONDS
        messages = [message]
        while messages[-1][1] != "gone" and (later := self._next(deadline)):
            messages.append(later)
        for rank, what, _ in messages:
            if what == "gone":
                return RankError(rank, *self._ranks[rank].death())
        rank, _, text = next(m for m in messages if m[1] == "raised")
        return RankError(rank, "raised", pickle.loads(text))

    def _timeout_error(self, kind: str, timeout: float, missing: set[int]) -> RankError:
        """The error for a timeout: names a rank that does not just wait for others, with stacks."""
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


def _end(ranks: list[RankProcess], owner: int) -> None:
    """End a pool's ranks and remove their folder, in the process that started them."""
    if os.getpid() != owner:  # a fork's copy of the pool
        return
    for rank in ranks:
        rank.kill()
    for rank in ranks:
        rank.wait()
    for rank in ranks:
        rank.folder.cleanup()
    ranks.clear()


def _receive(rank: int, payload: bytes):
    """Unpickle a rank's message. That runs code of its types, so any error becomes `RankError`."""
    try:
        return pickle.loads(payload)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise RankError(rank, "sent what cannot be read here", traceback.format_exc()) from error


def _require_loopback() -> None:
    """Fail at once if loopback is down; gloo would wait for the kernel's timeout, over a minute."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), LOOPBACK_SECONDS).close()
    except OSError as error:
        down = "ranks talk over the loopback interface, and 127.0.0.1 does not answer: is `lo` up?"
        raise ConnectionError(f"{down} ({error})") from error


# --- Arguments -------------------------------------------------------------------------------


def require_function(fn) -> None:
    """`fn` must be importable in a new Python process: its module's attribute of that name."""
    module, name = getattr(fn, "__module__", ""), getattr(fn, "__qualname__", "")
    value = None if module == "__main__" else sys.modules.get(module or "")
    for part in name.split("."):
        value = getattr(value, part, None)
    allowed = (
        "a function that another process can import: put it into a module, a .py file, and import "
        "it from there (not a lambda, nor a function of a notebook's cell or of another function)"
    )
    require(callable(fn) and value is fn, "fn", fn, allowed)


def _pickle(fn: Callable, args: tuple) -> bytes:
    try:
        return pickle.dumps((fn, args))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        allowed = f"values that pickle accepts ({error})"
        raise ValueError(f"args={quote(args)}: expected {allowed}") from error


def _in_collective(stack: str) -> bool:
    """Whether the innermost line of a stack, as text, is torch waiting for other ranks."""
    innermost = stack.rpartition('  File "')[2].partition('"')[0]
    return "/torch/distributed/" in Path(innermost).as_posix()


check_module(__name__)
