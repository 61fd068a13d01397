"""What runs inside a process that `launch` started: one rank, its group and its messages.

The parent writes pickled orders to the rank's standard input and reads pickled messages (kind,
payload) from its standard output; what functions print goes to a log instead. Tensors go through
these two pipes as well: without shared memory, a full /dev/shm (64 MB in a container) cannot fail.
"""

import os
import pickle
import queue
import sys
import threading
import traceback
from datetime import timedelta
from typing import BinaryIO

from efflab.base.privacy import opt_out
from efflab.distributed.process import MARK, end_marked

# The parent enforces the timeout; gloo's own limit must not end a collective earlier.
NO_LIMIT = timedelta(days=7)
LOOPBACK = {"linux": "lo", "darwin": "lo0"}


class _Outbox:
    """The pipe to the parent, one per process; the lock is for the rank's threads."""

    stream: BinaryIO | None = None
    lock = threading.Lock()


def report(message) -> None:
    """Send `message` (anything picklable) to the caller's `on_progress(rank, message)` at once.

    Any function on a rank can call it, on any thread. In a process that is no rank it prints, so
    that the same function also runs alone.
    """
    if _Outbox.stream is None:
        print(message)
    else:
        _send("progress", pickle.dumps(message))


def main() -> None:
    """Run as a rank: join the group, then execute the parent's jobs until it closes the pipe."""
    opt_out()
    orders, _Outbox.stream = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # print() goes to the log, not between the messages
    rank, world_size, rendezvous = pickle.load(orders)
    jobs: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders, jobs), daemon=True).start()
    _answer("ready", _join_group, rank, world_size, rendezvous)
    while True:
        _answer("result", _work, jobs.get(), rank, world_size)


def _join_group(rank: int, world_size: int, rendezvous: str) -> None:
    """Join the gloo group through a file, which needs no port that another program could hold.

    gloo's own sockets take any free port, but resolve the host's name for an address; without a
    network, or behind a VPN, that fails or is slow. The loopback interface always works, and is
    not reachable from outside.
    """
    if sys.platform in LOOPBACK:
        os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK[sys.platform]
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)  # n ranks would compete for the cores
    store = dist.FileStore(rendezvous, world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=NO_LIMIT)


def _work(job: bytes, rank: int, world_size: int):
    fn, args = pickle.loads(job)
    return fn(rank, world_size, *args)


def _answer(kind: str, fn, *args) -> None:
    """Send what `fn` returns, or its traceback from `fn` on."""
    try:
        payload = pickle.dumps(fn(*args))
    except BaseException as error:  # SystemExit too: the parent waits for an answer
        trace = error.__traceback__
        while trace and trace.tb_next and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        text = "".join(traceback.format_exception(error.with_traceback(trace)))
        kind, payload = "raised", pickle.dumps(text)
    _send(kind, payload)


def _send(kind: str, payload: bytes) -> None:
    assert _Outbox.stream is not None  # main opens it before all else
    with _Outbox.lock:
        pickle.dump((kind, payload), _Outbox.stream)
        _Outbox.stream.flush()


def _listen(orders, jobs: queue.SimpleQueue) -> None:
    """Queue jobs, send the main thread's stack on request, and exit when the parent is gone.

    On a thread of its own, so that it works while the rank computes or waits in a collective.
    """
    me = threading.main_thread().ident or 0
    while True:
        try:
            kind, job = pickle.load(orders)
        except (EOFError, OSError):
            _end()
        if kind == "job":
            jobs.put(job)
        else:
            _send("where", pickle.dumps(_stack(sys._current_frames()[me])))


def _end() -> None:
    """Exit, after killing all processes that this one started."""
    try:
        end_marked(os.environ[MARK])
    finally:
        os._exit(1)


def _stack(frame) -> str:
    """The stack of the main thread, without this module's own frames."""
    frames = [f for f in traceback.extract_stack(frame) if f.filename != __file__]
    return "".join(traceback.format_list(frames[1:]))  # the first is the command line
