"""Runs independent pieces of work on several threads, each piece on one of them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def map_on_threads(fn: Callable, pieces: Iterable) -> Iterator:
    """`fn(piece)` for each piece in order, on as many threads as torch uses.

    torch instead splits every operator over its threads, which then wait for the slowest of them.
    With hundreds of small operators on a busy machine, that waiting takes most of the time.

    Pieces run in the caller's grad mode. Other thread-local state (a profiler, autocast, a
    transform such as vmap, a CUDA stream) would be lost: where any is active, or a tensor is not a
    plain one on the CPU, all pieces run on the calling thread.
    """
    pieces, n_threads = list(pieces), torch.get_num_threads()
    if n_threads == 1 or len(pieces) < 2 or _has_local_state() or not _is_plain(pieces):
        yield from map(fn, pieces)
        return
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run_piece(piece):
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return fn(piece)

    try:
        options = dict(initializer=torch.set_num_threads, initargs=(1,))
        with ThreadPoolExecutor(min(n_threads, len(pieces)), **options) as pool:
            yield from pool.map(run_piece, pieces)
    finally:
        torch.set_num_threads(n_threads)  # a worker's 1 would apply to threads started later


def _is_plain(piece) -> bool:
    """Whether all tensors in it, in lists and tuples too, are torch's own and on the CPU."""
    if isinstance(piece, Tensor):
        own = type(piece) in (Tensor, torch.nn.Parameter)
        return own and piece.device.type == "cpu" and piece.layout == torch.strided
    return not isinstance(piece, list | tuple) or all(map(_is_plain, piece))


def _has_local_state() -> bool:
    """Whether thread-local state is active that other threads would not see."""
    return (
        torch.autograd._profiler_enabled()
        or torch.jit.is_tracing()
        or torch.compiler.is_compiling()
        or torch._C._is_any_autocast_enabled()
        or torch._C._functorch.peek_interpreter_stack() is not None  # vmap, grad, jvp
        or not torch._C._is_fwd_grad_enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0  # a default device too
        or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    )
