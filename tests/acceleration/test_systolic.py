"""Cycles of a systolic array: SCALE-Sim's own, and a grid in which every value is moved by hand."""

import csv
from dataclasses import FrozenInstanceError
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from efflab.acceleration import systolic
from efflab.config import PRESETS
from efflab.cost import flops_by_part
from efflab.data import DATA_DIR

SCALE_SIM = (DATA_DIR / "published" / "systolic.csv", Path(__file__).with_name("scalesim.csv"))


def scale_sim():
    """(dataflow, row) of SCALE-Sim: the frozen rows of version 2, and ours of version 3."""
    for path in SCALE_SIM:
        lines = [x for x in path.read_text(encoding="utf-8").splitlines() if x[0] != "#"]
        for row in csv.DictReader(lines):
            yield row.pop("dataflow"), {name: int(value) for name, value in row.items()}


def test_every_row_of_scale_sim():
    found = list(scale_sim())
    assert len(found) == 14 + 108
    for flow, row in found:
        cycles = row.pop("cycles")
        assert systolic.gemm_cycles(**row, dataflow=flow) == cycles, (flow, row)


def test_a_product_stays_as_it_is():
    product = systolic.Product("p", 2, 3, 4)
    with pytest.raises(FrozenInstanceError):
        product.m = 5
    assert len({product, systolic.Product("p", 2, 3, 4)}) == 1


# --- A grid moved by hand ------------------------------------------------------------------------


def padded(x, rows, cols):
    return np.pad(x, ((0, -x.shape[0] % rows), (0, -x.shape[1] % cols)))


def entering(values, t):
    """What enters each line of a grid at clock t: line i starts i clocks late; nan is nothing."""
    n = values.shape[1]
    return np.array([values[i, t - i] if 0 <= t - i < n else np.nan for i in range(len(values))])


def output_stationary(a, b):
    """One fold, a (rows,k) and b (k,cols): (product, clocks). It knows no formula."""
    rows, cols = len(a), b.shape[1]
    x, y, total, t = *np.full((2, rows, cols), np.nan), np.zeros((rows, cols)), 0
    while t == 0 or not np.isnan(x).all():
        x = np.column_stack([entering(a, t), x[:, :-1]])  # all of A moves one to the right
        y = np.vstack([entering(b.T, t), y[:-1]])  # and all of B one down
        total += np.nan_to_num(x * y)
        t += 1
    return total, t - 1  # in the last clock nothing was left to multiply


def stationary(held, stream):
    """One fold with `held` (rows,cols) in the cells and `stream` (rows,time) passing to the right.

    Gives stream.T @ held and the clocks, those of loading included.
    """
    rows, cols = held.shape
    cells, t = np.zeros((rows, cols)), 0
    for row in held[::-1]:  # rows come in at the top and push the earlier ones down
        cells = np.vstack([row, cells[:-1]])
        t += 1
    assert (cells == held).all()
    x, sums, out, start = np.full((rows, cols), np.nan), np.zeros((rows, cols)), [], t
    while t == start or not np.isnan(x).all():
        x = np.column_stack([entering(stream, t - start), x[:, :-1]])
        above = np.vstack([np.zeros(cols), sums[:-1]])
        sums = above + np.nan_to_num(x) * cells
        out.append(sums[-1].copy())
        t += 1
    length = stream.shape[1]  # column c's sums leave c clocks late
    product = [[out[rows - 1 + i + c][c] for c in range(cols)] for i in range(length)]
    return np.array(product), t - 1


def run(a, b, rows, cols, dataflow):
    """(product, clocks) of a @ b, fold after fold, zero where a fold hangs over the edge."""
    if dataflow == "is":  # the transposed product, with A held
        product, clocks = run(b.T, a.T, rows, cols, "ws")
        return product.T, clocks
    (m, n), clocks = (len(a), b.shape[1]), 0
    if dataflow == "os":
        a, b = padded(a, rows, 1), padded(b, 1, cols)
    else:
        a, b = padded(a, 1, rows), padded(b, rows, cols)
    product = np.zeros((len(a), b.shape[1]))
    for c in range(0, b.shape[1], cols):
        if dataflow == "os":
            for r in range(0, len(a), rows):
                tile, spent = output_stationary(a[r : r + rows], b[:, c : c + cols])
                product[r : r + rows, c : c + cols] = tile
                clocks += spent
        else:
            for r in range(0, len(b), rows):
                tile, spent = stationary(b[r : r + rows, c : c + cols], a[:, r : r + rows].T)
                product[:, c : c + cols] += tile
                clocks += spent
    return product[:m, :n], clocks


SMALL = [(3, 4, 5, 2, 3), (4, 4, 4, 4, 4), (5, 3, 1, 4, 2), (1, 1, 6, 1, 1), (7, 6, 5, 3, 4)]


@pytest.mark.parametrize("dataflow", systolic.DATAFLOWS)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_a_grid_moved_by_hand_takes_as_long(case, dataflow):
    m, n, k, rows, cols = case
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (m, k)).astype(float), rng.integers(-9, 9, (k, n)).astype(float)
    product, clocks = run(a, b, rows, cols, dataflow)
    assert (product == a @ b).all()
    assert clocks - 1 == systolic.gemm_cycles(m, n, k, rows, cols, dataflow)


# --- A second register, moved by hand ------------------------------------------------------------


def double_buffered(tiles, streams, step):
    """(products, clocks) of tiles (rows,cols) of weights, each with its stream (rows,time).

    A cell has a weight in use and one that waits. A tile starts `step` clocks after the one before
    and enters, a row a clock, right behind the front of that one's stream; a front takes what waits
    into use.
    """
    (rows, cols), length = tiles[0].shape, streams[0].shape[1]
    firsts = [rows + i * step for i in range(len(tiles))]
    enters = [0, *firsts[:-1]]
    used, waiting, sums, x = np.zeros((4, rows, cols))
    products = np.zeros((len(tiles), length, cols))
    clocks = firsts[-1] + length + rows + cols - 2
    for t in range(clocks):
        x = np.column_stack([np.zeros(rows), x[:, :-1]])
        above, old = np.vstack([np.zeros(cols), sums[:-1]]), waiting.copy()
        for i, (r, c) in product(range(len(tiles)), np.ndindex(rows, cols)):
            clock, entered = t - firsts[i] - r - c, t - enters[i] - c
            if clock == 0:
                used[r, c] = old[r, c]
            if c == 0 and 0 <= clock < length:
                x[r, 0] = streams[i][r, clock]
            if r <= entered < rows:
                waiting[r, c] = old[r - 1, c] if r else tiles[i][rows - 1 - entered, c]
        sums = above + x * used
        for i, c in product(range(len(tiles)), range(cols)):
            clock = t - firsts[i] - (rows - 1) - c
            if 0 <= clock < length:
                products[i, clock, c] = sums[-1, c]
    return products, clocks


@pytest.mark.parametrize("length", [1, 2, 4, 7])
@pytest.mark.parametrize("shape", [(4, 3), (2, 5), (3, 3)])
def test_a_second_register_starts_a_fold_no_sooner_than_it_can(length, shape):
    rows, cols = shape
    rng = np.random.default_rng(0)
    tiles = rng.integers(1, 9, (3, rows, cols)).astype(float)
    streams = rng.integers(1, 9, (3, rows, length)).astype(float)
    expected = np.array([s.T @ tile for tile, s in zip(tiles, streams, strict=True)])
    step = max(length, rows)
    products, clocks = double_buffered(tiles, streams, step)
    assert (products == expected).all()
    cycles = systolic.overlapped_cycles(length, cols, rows, rows, cols, "ws", count=3)
    assert clocks - 1 == cycles
    too_soon, _ = double_buffered(tiles, streams, step - 1)
    assert (too_soon != expected).any()


@pytest.mark.parametrize("dataflow", systolic.DATAFLOWS)
def test_one_fold_has_nothing_to_hide_and_more_cost_the_longer_of_two(dataflow):
    one = systolic.gemm_cycles(4, 4, 4, 4, 4, dataflow)
    assert systolic.overlapped_cycles(4, 4, 4, 4, 4, dataflow) == one
    assert systolic.overlapped_cycles(4, 4, 4, 4, 4, dataflow, count=3) == one + 2 * 4
    three = systolic.Product("x", 4, 4, 4, 3)
    assert three.cycles(4, 4, dataflow, overlap=True) == one + 2 * 4
    assert three.cycles(4, 4, dataflow) == 3 * (one + 1) - 1


def test_a_row_of_heads_on_the_first_tpu_takes_its_loading():
    """Jouppi et al. 2017: the second tile hides "the 256 cycles it takes to shift a tile in"."""
    heads = [systolic.overlapped_cycles(128, 128, 64, 256, 256, count=n) for n in (1, 2, 3)]
    assert np.diff(heads).tolist() == [256, 256]


# --- The schedule, and a block's products --------------------------------------------------------


@pytest.mark.parametrize("dataflow", systolic.DATAFLOWS)
def test_the_schedule_multiplies_every_pair_once_and_neighbours_hand_on(dataflow):
    m, n, k = (3, 2, 4) if dataflow == "os" else (4, 2, 3) if dataflow == "ws" else (2, 4, 3)
    steps = systolic.schedule(m, n, k, 3, 2, dataflow)
    assert {(s.i, s.j, s.l) for s in steps} == set(np.ndindex(m, n, k))
    assert len(steps) == len({(s.cycle, s.row, s.col) for s in steps}) == m * n * k
    assert max(s.cycle for s in steps) == systolic.gemm_cycles(m, n, k, 3, 2, dataflow)
    at = {(s.cycle, s.row, s.col): s for s in steps}
    for s in steps:
        left = at.get((s.cycle - 1, s.row, s.col - 1))
        if s.col:  # the left neighbour used the same streaming value a cycle before
            a, b = (s.i, s.l), (s.l, s.j)
            assert b == (left.l, left.j) if dataflow == "is" else a == (left.i, left.l)


def test_one_size_below_the_grid_is_refused():
    with pytest.raises(ValueError, match="rows for 4=3"):
        systolic.schedule(4, 2, 2, 3, 2)


@pytest.mark.parametrize("name", ["minilm-l6", "bert-base", "gpt2", "llama-3.1-70b"])
def test_a_blocks_products_are_its_flops(name):
    config = PRESETS[name]
    parts = flops_by_part(config, 48, 3)
    expected = sum(parts[p] for p in ("projections", "scores", "ffn")) // config.n_layer
    assert 2 * sum(p.macs for p in systolic.block_products(config, 48, 3)) == expected


def test_products_run_in_a_row():
    # one full fold: 4 * 4 * 10 products in 16 cells for 4 + 4 - 2 + 10 cycles
    assert systolic.gemm_cycles(4, 4, 10, 4, 4) == 16 - 1
    product = systolic.Product("x", 4, 4, 10, count=3)
    assert product.cycles(4, 4) == 3 * 16 - 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: systolic.gemm_cycles(0, 1, 1, 8, 8), "m=0"),
        (lambda: systolic.gemm_cycles(1, 1, 1, 0, 8), "rows=0"),
        (lambda: systolic.gemm_cycles(1, 1, 1, 8, 8, "rs"), "dataflow='rs'"),
        (lambda: systolic.block_products(PRESETS["gpt2"], 0), "seq_len=0"),
        (lambda: systolic.block_products(PRESETS["deepseek-v3"], 4), "experts=.*one of None"),
        (lambda: systolic.Product("x", 4, 4, 0), "k=0: expected an int of at least 1"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_grid_that_is_no_square_has_rows_times_columns():
    """One fold of 4 x 10 x 2 products in a grid of 4 x 2, and of 2 x 10 x 4 in one of 2 x 4."""
    assert systolic.gemm_cycles(4, 2, 10, 4, 2) == systolic.gemm_cycles(2, 4, 10, 2, 4) == 14 - 1
    assert systolic.folds(8, 2, 10, 4, 2) == 2
    assert systolic.folds(4, 6, 10, 4, 2) == 3
