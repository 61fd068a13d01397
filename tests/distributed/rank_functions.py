"""What the tests of `launch` run on ranks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from efflab.distributed.launch import report
from efflab.distributed.ring import sent_bytes


def total(rank, world_size, value):
    """(rank, world size, sum over ranks of value + rank, threads)."""
    summed = torch.tensor([float(value + rank)])
    dist.all_reduce(summed)
    return rank, world_size, summed.item(), torch.get_num_threads()


def three_reports(rank, world_size):
    for i in range(3):
        report(f"step {i}")
        print("a line that is no message")


def fails(rank, world_size, failing, how):
    """One rank fails in the middle of a step; the others wait for it in a collective."""
    report(os.getpid())
    dist.all_reduce(torch.ones(1))
    if rank == failing:
        _fail(how)
    dist.all_reduce(torch.ones(1))


def _fail(how):
    if how == "raise":
        raise ZeroDivisionError("no such step")
    if how == "die":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


def with_a_child(rank, world_size):
    """Start processes that outlive the rank if nobody ends them, and be killed."""
    if rank == 0:
        report(subprocess.Popen(["sleep", "600"]).pid)
        report(in_a_session_of_its_own().pid)
        forked = os.fork()
        if forked == 0:
            time.sleep(600)
        report(forked)
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def in_a_session_of_its_own():
    """A process that no signal to the rank's group reaches."""
    return subprocess.Popen(["sleep", "600"], start_new_session=True)


def waits_with_a_child(rank, world_size, path):
    Path(path).write_text(str(in_a_session_of_its_own().pid))
    time.sleep(600)


class Leaves:
    """What ends the process that reads it, as a module does that is no library."""

    def __reduce__(self):
        return sys.exit, (3,)


def leaves(rank, world_size, how):
    if how == "report":
        report(Leaves())
    return Leaves()


def large(rank, world_size, array):
    """The array, and twice it as a tensor, and what of /dev/shm is open or mapped here."""
    used = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm" in line]
    for link in Path("/proc/self/fd").iterdir():
        if link.exists() and "/dev/shm" in str(link.readlink()):
            used.append(str(link.readlink()))
    return array, 2 * torch.from_numpy(array), used


def unpicklable(rank, world_size):
    return lambda: None


def sockets(rank, world_size):
    """Addresses that this process listens on or talks to."""
    import psutil

    connections = psutil.Process().net_connections(kind="inet")
    return [c.laddr.ip for c in connections] + [c.raddr.ip for c in connections if c.raddr]


def sleeps(rank, world_size, seconds):
    report(os.getpid())
    time.sleep(seconds)
    return rank


def reduce_scatter_bytes(rank, world_size, n_values):
    """Bytes that this rank sends in a reduce-scatter of n values, and in an all-reduce."""
    values, mine = torch.ones(n_values), torch.empty(n_values // world_size)
    dist.all_reduce(torch.ones(1))  # the first one connects the ranks
    start = sent_bytes()
    dist.reduce_scatter_tensor(mine, values)
    middle = sent_bytes()
    dist.all_reduce(values)
    return middle - start, sent_bytes() - middle
