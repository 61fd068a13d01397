"""Pieces of work on several threads: order, modes, errors, and threads left as they were."""

import threading
from functools import partial

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from efflab.base.threads import map_on_threads
from efflab.profile import quiet_profiler


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def seen(_piece) -> tuple:
    return threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()


def test_results_come_in_order_from_other_threads(three_threads):
    barrier = threading.Barrier(3, timeout=20)  # passes only if three pieces run at once

    def square(n):
        barrier.wait()
        return n * n

    assert list(map_on_threads(square, range(9))) == [n * n for n in range(9)]
    assert torch.get_num_threads() == 3


def test_each_piece_has_one_thread_and_the_callers_mode(three_threads):
    with torch.no_grad():
        found = list(map_on_threads(seen, range(8)))
    assert threading.get_ident() not in {ident for ident, _, _ in found}
    assert {(n_threads, grad) for _, n_threads, grad in found} == {(1, False)}
    with torch.inference_mode():
        total = torch.zeros(4)
        list(map_on_threads(lambda i: total[i].fill_(1), range(4)))
    assert total.sum() == 4


class Counting(TorchFunctionMode):
    """Any mode that sees what is called on the thread that opened it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


WATCHES = [
    quiet_profiler,
    partial(FlopCounterMode, display=False),
    partial(torch.autocast, "cpu"),
    partial(torch.autocast, "xpu", torch.bfloat16),  # of a device that is not here
    partial(torch.autograd.graph.saved_tensors_hooks, lambda x: x, lambda x: x),
    partial(torch.device, "cpu"),
    partial(fwAD._set_fwd_grad_enabled, False),
    Counting,
]


@pytest.mark.parametrize("watch", WATCHES)
def test_a_watched_thread_keeps_its_work(three_threads, watch):
    with watch():
        found = list(map_on_threads(seen, range(4)))
    assert {ident for ident, _, _ in found} == {threading.get_ident()}


TRANSFORMS = {
    "vmap": lambda fn, x: torch.vmap(fn)(x),
    "grad": lambda fn, x: torch.func.grad(lambda x: fn(x).sum())(x),
    "jvp": lambda fn, x: torch.func.jvp(fn, (x,), (x,)),
    "functionalize": lambda fn, x: torch.func.functionalize(fn)(x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transformed_thread_keeps_its_work(three_threads, name):
    """What vmap hands a function is a view of more than other threads see."""
    used = set()

    def doubled(x):
        def one(part):
            used.add(threading.get_ident())
            return 2 * part

        return torch.cat(list(map_on_threads(one, x.split(1))))

    x = torch.arange(12.0).view(3, 4)
    expected = {"vmap": 2 * x, "grad": torch.full_like(x, 2.0), "functionalize": 2 * x}
    found = TRANSFORMS[name](doubled, x)
    assert used == {threading.get_ident()}
    assert torch.equal(found[0] if name == "jvp" else found, expected.get(name, 2 * x))


class Own(torch.Tensor):
    """A tensor of somebody's own type, which may hold anything."""


ODD = {
    "another device": torch.ones(2, device="meta"),
    "another type": torch.ones(2).as_subclass(Own),
    "another layout": torch.eye(2).to_sparse(),
}


@pytest.mark.parametrize("name", ODD)
def test_only_plain_tensors_on_the_cpu_are_shared_out(three_threads, name):
    for odd in (ODD[name], (torch.ones(2), [ODD[name]])):
        found = list(map_on_threads(seen, [odd, torch.ones(2)]))
        assert {ident for ident, *_ in found} == {threading.get_ident()}
    plain = [torch.ones(2), (torch.nn.Parameter(torch.ones(2)), slice(0, 1), 3)]
    found = list(map_on_threads(seen, plain))
    assert threading.get_ident() not in {ident for ident, *_ in found}


def test_a_traced_thread_keeps_its_work(three_threads):
    """What another thread computes would be a constant in the trace."""
    doubled = lambda x: sum(map_on_threads(lambda n: n * x, range(4)))  # noqa: E731
    traced = torch.jit.trace(doubled, torch.ones(2))
    assert traced(torch.tensor([1.0, 2.0])).tolist() == [6, 12]


def test_an_error_comes_through_and_leaves_the_threads_as_they_were(three_threads):
    with pytest.raises(ZeroDivisionError):
        list(map_on_threads(lambda n: 1 / n, [2, 1, 0]))
    assert torch.get_num_threads() == 3


def test_one_thread_or_one_piece_stays_here():
    assert list(map_on_threads(lambda n: threading.get_ident(), [1])) == [threading.get_ident()]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert {i for i, _, _ in map_on_threads(seen, range(4))} == {threading.get_ident()}
    finally:
        torch.set_num_threads(before)
