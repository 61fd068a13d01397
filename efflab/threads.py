"""Independent pieces of work on several threads, each piece whole on one of them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode


def shared_out(fn: Callable, pieces: Iterable) -> Iterator:
    """`fn(piece)` of each in order, on as many threads as torch uses.

    torch shares out every operator instead, and all threads wait for the slowest at the end of
    each. With hundreds of small operators on a machine that has other work to do, that waiting is
    most of the time. Each piece sees the caller's grad mode. Where the calling thread is watched
    (a profiler, a FLOP counter, a trace) or computes in another precision (autocast), which no
    other thread knows of, everything stays on it.
    """
    pieces, n_threads = list(pieces), torch.get_num_threads()
    if n_threads == 1 or len(pieces) < 2 or _is_watched():
        yield from map(fn, pieces)
        return
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def alone(piece):
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return fn(piece)

    try:
        options = dict(initializer=torch.set_num_threads, initargs=(1,))
        with ThreadPoolExecutor(min(n_threads, len(pieces)), **options) as pool:
            yield from pool.map(alone, pieces)
    finally:
        torch.set_num_threads(n_threads)  # what threads that start later take over


def _is_watched() -> bool:
    """Whether something that holds for this thread alone is on."""
    return (
        torch.autograd._profiler_enabled()
        or _get_current_dispatch_mode() is not None
        or torch.jit.is_tracing()
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
    )
