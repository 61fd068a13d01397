"""Ring all-reduce, and the bytes that it sends, by formula and as counted by the kernel.

n ranks hold a tensor each and need the sum of all, cut into n parts. Partial sums travel once
around the ring (reduce-scatter: afterwards each rank has the total of one part), then the totals
do (all-gather). Each rank sends 2 (n - 1) parts of 1/n: less than twice the tensor, for any number
of ranks (Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms", section 3). But these
are 2 (n - 1) steps, one after the other; two trees need some 2 log n (Sanders et al. 2009,
"Two-tree algorithms for full bandwidth broadcast, reduction and scan").
"""

import os
import socket
import struct
import sys

import torch
import torch.distributed as dist
from torch import Tensor

from efflab.arguments import check_module
from efflab.distributed.ring_cost import ring_bytes as ring_bytes
from efflab.errors import require
from efflab.rules import Count, Size
from efflab.tensors import Numbers

TCP_INFO_BYTES = 256
NOT_SENT, SENT, SENT_AGAIN = ("I", 144), ("Q", 200), ("Q", 208)
"""Type and offset in Linux's struct tcp_info (linux/tcp.h, since 4.19): tcpi_notsent_bytes, still
in the socket's buffer, tcpi_bytes_sent, and tcpi_bytes_retrans, which tcpi_bytes_sent includes."""


def ring_all_reduce(tensor: Numbers) -> int:
    """Replace `tensor` (contiguous, any shape) by its sum over all ranks; returns the bytes sent.

    In step s rank r passes on part r - s and takes part r - s - 1 from the rank before it.
    """
    require(tensor.is_contiguous(), "tensor", tuple(tensor.shape), "a contiguous tensor")
    rank, n = dist.get_rank(), dist.get_world_size()
    parts = tensor.view(-1).tensor_split(n)
    sent = 0
    for step in range(n - 1):
        arrived = torch.empty_like(parts[(rank - step - 1) % n])
        sent += _pass_on(parts[(rank - step) % n], arrived)
        parts[(rank - step - 1) % n].add_(arrived)
    for step in range(n - 1):  # now part rank + 1 is finished here
        sent += _pass_on(parts[(rank + 1 - step) % n], parts[(rank - step) % n])
    return sent


def _pass_on(part: Tensor, into: Tensor) -> int:
    """Send to the next rank while receiving from the one before; bytes sent."""
    rank, n = dist.get_rank(), dist.get_world_size()
    sending = dist.isend(part, (rank + 1) % n)
    dist.recv(into, (rank - 1) % n)
    sending.wait()
    return part.nbytes


def sent_bytes() -> int:
    """Bytes that this process has sent over its open TCP connections, as counted by the kernel.

    Bytes still in a socket's buffer count too, since a send returns once they are there. gloo's
    headers count, and the few bytes of connecting. Only Linux keeps this count for every
    connection; elsewhere it is an `OSError`.
    """
    if sys.platform != "linux":
        raise OSError(f"no count of a connection's bytes on {sys.platform}, only on Linux")
    import psutil

    return sum(_bytes_of(connection.fd) for connection in psutil.Process().net_connections("tcp"))


def _bytes_of(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    waiting, sent, resent = (
        struct.unpack_from(kind, info, offset)[0] for kind, offset in (NOT_SENT, SENT, SENT_AGAIN)
    )
    return waiting + sent - resent


def compare_with_torch(rank: Count, world_size: Size, n_values: Size) -> dict:
    """On a rank: sum n random values by our ring and by `dist.all_reduce`, and compare.

    `error` is the largest difference relative to torch's largest value; `counted` the bytes that
    our ring returned, `ours` and `torch` those that the kernel counted, per rank.
    """
    values = torch.randn(n_values, generator=torch.Generator().manual_seed(rank))
    ours, theirs = values.clone(), values.clone()
    dist.all_reduce(torch.ones(1))  # connects the ranks before bytes are counted
    start = sent_bytes()
    counted = ring_all_reduce(ours)
    middle = sent_bytes()
    dist.all_reduce(theirs)
    end = sent_bytes()
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    return {"error": error, "counted": counted, "ours": middle - start, "torch": end - middle}


check_module(__name__)
