"""Pieces of work on several threads: order, modes, errors, and threads left as they were."""

import threading
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from efflab.profile import quiet_profiler
from efflab.threads import shared_out


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

    assert list(shared_out(square, range(9))) == [n * n for n in range(9)]
    assert torch.get_num_threads() == 3


def test_each_piece_has_one_thread_and_the_callers_mode(three_threads):
    with torch.no_grad():
        found = list(shared_out(seen, range(8)))
    assert threading.get_ident() not in {ident for ident, _, _ in found}
    assert {(n_threads, grad) for _, n_threads, grad in found} == {(1, False)}
    with torch.inference_mode():
        total = torch.zeros(4)
        list(shared_out(lambda i: total[i].fill_(1), range(4)))
    assert total.sum() == 4


WATCHES = [quiet_profiler, partial(FlopCounterMode, display=False), partial(torch.autocast, "cpu")]


@pytest.mark.parametrize("watch", WATCHES)
def test_a_watched_thread_keeps_its_work(three_threads, watch):
    with watch():
        found = list(shared_out(seen, range(4)))
    assert {ident for ident, _, _ in found} == {threading.get_ident()}


def test_a_traced_thread_keeps_its_work(three_threads):
    """What another thread computes would be a constant in the trace."""
    doubled = lambda x: sum(shared_out(lambda n: n * x, range(4)))  # noqa: E731
    traced = torch.jit.trace(doubled, torch.ones(2))
    assert traced(torch.tensor([1.0, 2.0])).tolist() == [6, 12]


def test_an_error_comes_through_and_leaves_the_threads_as_they_were(three_threads):
    with pytest.raises(ZeroDivisionError):
        list(shared_out(lambda n: 1 / n, [2, 1, 0]))
    assert torch.get_num_threads() == 3


def test_one_thread_or_one_piece_stays_here():
    assert list(shared_out(lambda n: threading.get_ident(), [1])) == [threading.get_ident()]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert {i for i, _, _ in shared_out(seen, range(4))} == {threading.get_ident()}
    finally:
        torch.set_num_threads(before)
