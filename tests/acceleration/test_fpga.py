"""The int8 unit: bit for bit, clock for clock; a broken one is caught; what it takes of a chip."""

import inspect
import sys
import types

import numpy as np
import pytest

from efflab.acceleration import fpga, systolic


def whole(shape, seed=0):
    return np.random.default_rng(seed).integers(-128, 128, shape)


@pytest.mark.parametrize(
    ("m", "k", "n", "rows", "cols"),
    [(1, 1, 1, 1, 1), (3, 5, 4, 2, 2), (7, 9, 5, 3, 4), (2, 30, 9, 4, 2), (8, 20, 8, 8, 8)],
)
def test_products_and_clocks(m, k, n, rows, cols):
    a, b = whole((m, k)), whole((k, n), 1)
    product, clocks = fpga.simulate(a, b, rows, cols)
    assert (product == a @ b).all()
    assert clocks == fpga.cycles(m, n, k, rows, cols)


def test_the_largest_sums_do_not_wrap():
    a, b = np.full((1, 300), -128, np.int8), np.full((300, 1), -128, np.int8)
    assert fpga.simulate(a, b, 1, 1)[0].item() == 300 * 128 * 128


def test_clocks_are_scale_sims_and_the_drain():
    m, n, k, rows, cols = 20, 9, 7, 4, 3
    tiles = systolic.folds(m, n, k, rows, cols)
    scale_sim = systolic.gemm_cycles(m, n, k, rows, cols) + 1
    assert fpga.cycles(m, n, k, rows, cols) == scale_sim + tiles * rows


# --- A broken unit is caught ---------------------------------------------------------------------

FLIPS = [
    ("self.sum + self.a * self.b", "self.sum - self.a * self.b"),
    ("self.sum + self.a * self.b", "self.sum + self.a + self.b"),
    ("self.sum + self.a * self.b", "self.sum ^ self.a * self.b"),
    ("self.down.eq(self.b)", "self.down.eq(self.a)"),
    ("delay(m, self.b[j], j)", "delay(m, self.b[j], i)"),
    ("self.sum.eq(self.above)", "self.sum.eq(self.sum)"),
    ("WIDTH, SUM_WIDTH = 8, 32", "WIDTH, SUM_WIDTH = 8, 16"),
]


@pytest.mark.parametrize(("right", "flipped"), FLIPS)
def test_one_flipped_operator_is_caught(right, flipped, monkeypatch):
    source = inspect.getsource(fpga)
    assert source.count(right) == 1
    broken = types.ModuleType("broken_fpga")
    monkeypatch.setitem(sys.modules, "broken_fpga", broken)
    exec(source.replace(right, flipped), broken.__dict__)
    a, b = whole((2, 40)), whole((40, 3), 1)
    product, _ = broken.simulate(a, b, 2, 3)
    assert (product != a @ b).any()


# --- Verilog and resources -----------------------------------------------------------------------


def test_verilog_has_a_module_a_cell():
    text = fpga.verilog(2, 2)
    assert text.count("endmodule") == 5
    assert "$signed(a) * $signed(b)" in text


def flip_flops(rows, cols):
    """Sums, what is handed right and down inside the grid, and the triangles of late starts."""
    late = rows * (rows - 1) // 2 + cols * (cols - 1) // 2
    return 32 * rows * cols + 8 * (rows * (cols - 1) + cols * (rows - 1) + late)


def test_synthesis_takes_a_multiplier_a_cell():
    found = fpga.synthesize(2, 2)
    assert (found.dsp, found.ff) == (4, flip_flops(2, 2))
    assert 0 < found.lut < 4 * 100
    tall = fpga.synthesize(3, 1)
    assert (tall.dsp, tall.ff) == (3, flip_flops(3, 1))


def test_the_scarcest_resource_says_how_many_fit():
    need = fpga.Resources(dsp=4, lut=10, ff=20)
    assert need.copies(4, 10, 20) == 1
    assert need.copies(3, 100, 100) == 0
    assert need.copies(100, 39, 100) == 3
    assert need.copies(100, 100, 45) == 2
    assert fpga.Resources(dsp=0, lut=10, ff=20).copies(0, 100, 100) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fpga.simulate(whole((2, 3)), whole((4, 2)), 2, 2), "b.shape"),
        (lambda: fpga.simulate(whole((1, 2**17)), whole((2**17, 1)), 1, 1), "a.shape=.*below 2"),
        (lambda: fpga.simulate(whole((2, 3)) * 2.0, whole((3, 2)), 2, 2), "a.dtype='float64'"),
        (lambda: fpga.simulate(np.full((1, 1), 128), whole((1, 1)), 1, 1), "a.max=128"),
        (lambda: fpga.simulate(whole((1, 1)), whole((1, 1)), 0, 1), "rows=0"),
        (lambda: fpga.synthesize(2, 2, "virtex2"), "family='virtex2'"),
        (lambda: fpga.verilog(2, 0), "cols=0"),
        (lambda: fpga.cycles(0, 1, 1, 1, 1), "m=0"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
