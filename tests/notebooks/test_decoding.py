"""Notebook 16: its technique, tables, figures, explorer, and exercises."""

import pytest
import torch

from efflab import lab
from efflab.estimate import Estimate
from efflab_rooms.decoding import figures, measure

FAST = Estimate(mean=9.0, low=8.0, high=10.0)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 64)])
def test_ours_is_the_librarys(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(measure.running_sum(x), x.cumsum(1))
    torch.testing.assert_close(measure.running_sum(x), measure.by_product(x))


def test_costs_by_hand():
    assert measure.product_flops(4) == 32
    assert measure.flops_ratio(4) == pytest.approx(32 / 3)
    assert measure.stalled_at(100) == 100
    assert measure.stalled_at(1024) == 256


def test_the_product_takes_longer():
    assert measure.measured_speedup(2048).low > 1


def test_tables_and_figures(both_languages):
    (row,) = measure.rows(1024, FAST)
    assert row["time / FLOPs"] == pytest.approx(9 / (2 * 1024**2 / 1023))
    lab.table([row], kind="measured")
    assert list(figures.triangle_figure(16).layout.meta.values()) == [8.5]
    assert list(figures.growth(64).layout.meta.values()) == [130.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure.running_sum(torch.ones(3)), "x.shape"),
        (lambda: measure.product_flops(1), "n_tokens=1"),
        (lambda: figures.growth(63), "n_tokens=63"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


ANSWERS = {
    "16-1": (lambda x: x.cumsum(1), lambda x: x),
    "16-2": (lambda x: x.cumsum(1), measure.by_product),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict, both_languages):
    right, wrong = ANSWERS[name]
    lab.check(name, right)
    with pytest.raises(AssertionError):
        lab.check(name, wrong)
